// One circusd: how old its figures are, its watchers, its sockets.

import { Menu, actionButton, allow } from "./actions.js";
import { Past, RANGES, chooseRange, chosenRange } from "./beats.js";
import { offer } from "./choices.js";
import { serving } from "./condition.js";
import { Keyed, el, linkButton, set, show, write } from "./dom.js";
import { now } from "./feed.js";
import { isTrouble, lineOf } from "./headlines.js";
import { showOptions } from "./options.js";
import { reasonIn } from "./reason.js";
import { MAY_ACT } from "./session.js";
import { bytes, duration, perSecond, percent, text, word } from "./text.js";
import { rangeName } from "./trends.js";
import { LEDGER_WAIT, severity, verdictOf } from "./verdict.js";
import { WatcherCard, memoryOf } from "./watcher.js";

const STALE = 8; // seconds after which figures are shown in grey
const PROBES_STALE = 30;
const OPEN = "xboard_open"; // where it is kept that all cards are open
const FEW = 6; // watchers of one circusd that need no filter, and have curves while they are well
const MANY = 12; // workers of one circusd above which the healthy ones are folded

export class ServerSection {
  constructor({ server, history, details, addWatcher }) {
    this.server = server;
    this.addWatcher = addWatcher;
    const id = `server-${server.id}`;
    this.label = el("h2", { id, tabindex: "-1", "data-home": true });
    this.endpoint = el("span", { class: "mono" });
    this.process = el("span");
    this.age = el("span", { class: "server-age" });
    this.probed = el("span");
    this.problem = el("p", { class: "notice notice-bad", hidden: true });
    const keyed = (node) => new Keyed(node, ({ watcher }) => watcher.name, (item) => new WatcherCard({ ...item, history, details }));
    const [cards, own] = [el("div", { class: "watchers" }), el("div", { class: "watchers" })];
    [this.watchers, this.own] = [keyed(cards), keyed(own)];
    this.empty = el("div", { class: "empty" }, el("p", {}, text("server.no_watchers")));
    this.none = el("p", { class: "muted", role: "status", hidden: true }, text("filter.none"));
    this.sockets = new Sockets();
    this.system = new System(own, this.sockets.node);
    this.options = linkButton(text("options"), () => showOptions(this.server));
    this.past = new Past(server.id);
    this.tools = new Tools(id, () => this.arrange(), () => this.past.ask(() => this.arrange(), { soon: true }));
    const facts = el("p", { class: "server-facts" }, this.endpoint, this.process, this.age, this.probed, this.options);
    this.node = el(
      "section",
      { class: "server", "data-part": "server", "data-server": server.id, "aria-labelledby": id },
      el("header", { class: "server-head" }, el("div", {}, this.label, facts), ...(MAY_ACT ? [this.makeActions()] : [])),
      this.problem,
      this.tools.node,
      cards,
      this.empty,
      this.none,
      this.system.node,
    );
  }

  makeActions() {
    this.all = ["start", "restart", "stop"].map((name) =>
      actionButton({
        words: text(`all.${name}`),
        action: `${name}_all`,
        look: name === "stop" ? "danger" : "plain",
        details: () => ({ server: this.server.id }),
        question: () => this.question(`all.${name}`),
      }),
    );
    this.reread = actionButton({
      words: text("server.reread"),
      action: "reload_config",
      details: () => ({ server: this.server.id }),
      question: () => this.question("server.reread"),
    });
    this.add = el("button", { type: "button", class: "button button-plain" }, text("watcher.add"));
    this.add.addEventListener("click", () => this.addWatcher(this.server.id));
    this.remove = actionButton({
      words: text("server.remove"),
      action: "remove_server",
      details: () => ({ server: this.server.id, id: this.server.id }),
      question: () => this.question("server.remove"),
    });
    const label = text("server.actions", { label: this.server.label });
    const [start, restart, stop] = this.all;
    this.menu = new Menu(text("more.of", { name: this.server.label }), start, restart, stop, this.reread, this.add, this.remove);
    return el("div", { class: "actions", role: "group", "aria-label": label }, this.menu.node);
  }

  question(key) {
    const typed = key === "all.stop" ? this.server.label : "";
    const up = this.server.watchers.reduce((sum, watcher) => sum + serving(watcher), 0);
    return { title: text(`${key}.ask`, { label: this.server.label }), what: text(`${key}.what`, { up }), yes: text(key), typed };
  }

  update({ server, state, heardAt }) {
    this.server = server;
    this.heardAt = heardAt;
    write(this.label, server.label);
    write(this.endpoint, server.endpoint);
    this.tools.update(server);
    if (server.has_ledger) this.askPast();
    show(this.empty, server.reachable && !server.watchers.length);
    show(this.options, server.reachable);
    if (MAY_ACT) {
      show(this.add, state.allow_add);
      show(this.remove, server.removable);
    }
    this.arrange();
  }

  /** Ask for the past now and then, and as soon as the ledger has why a verdict changed: no "100 % up" beside "DOWN". */
  askPast() {
    const verdicts = this.server.watchers.map(verdictOf).join();
    if (verdicts !== (this.verdicts ?? verdicts)) setTimeout(() => this.past.ask(() => this.arrange(), { soon: true }), LEDGER_WAIT);
    this.verdicts = verdicts;
    this.past.ask(() => this.arrange());
  }

  /** Put the cards: those in trouble first, then as it was chosen; the page and the plugins in a group of their own. */
  arrange() {
    const { server } = this;
    const folds = server.watchers.reduce((sum, watcher) => sum + watcher.workers.length, 0) > MANY;
    const isOwn = (watcher) => isSystem(watcher) && !isTrouble({ line: lineOf(server, watcher.name) });
    const backends = server.watchers.filter((watcher) => !isOwn(watcher));
    const hasPulse = server.has_history && backends.length <= FEW;
    const asItem = (watcher) => ({ server, watcher, folds, opens: this.tools.opens, past: this.past.watchers[watcher.name], hasPulse: hasPulse && !isSystem(watcher) });
    this.items = this.tools.sorted(this.tools.filtered(backends), server).map(asItem);
    this.ownItems = server.watchers.filter(isOwn).sort((a, b) => rank(a) - rank(b)).map(asItem);
    show(this.none, backends.length > 0 && !this.items.length);
    this.system.update(this.ownItems, this.tools.opens);
    this.draw();
  }

  /** Once a second and with each state: everything that depends on how old the figures are. */
  draw() {
    const since = now() - this.heardAt;
    const age = this.server.age === null ? null : this.server.age + since;
    const stale = !this.server.reachable || age === null || age > STALE;
    set(this.node, "data-stale", stale ? "yes" : null);
    // Where the first line says that circusd is down, there is left to say how old the figures are.
    const isGone = lineOf(this.server, "")?.word === "circusd_lost";
    write(this.age, stale && !isGone ? "" : age === null ? text("server.never") : text(stale ? "server.as_of" : "server.fresh", { age: duration(age) }));
    set(this.age, "data-tone", stale ? "warn" : null);
    this.drawProcess(stale);
    show(this.problem, stale && !isGone);
    if (stale) write(this.problem, this.trouble(age));
    this.drawProbes(since, stale);
    // Nothing is known of a circusd that is silent: its ages and countdowns stand still.
    const elapsed = stale ? 0 : age;
    if (stale !== this.stale || this.items !== this.drawn) {
      this.watchers.update(this.items.map((item) => ({ ...item, stale, elapsed })));
      this.own.update(this.ownItems.map((item) => ({ ...item, stale, elapsed })));
      this.sockets.update(this.server, stale);
      for (const button of MAY_ACT ? [...this.all, this.reread, this.add] : []) allow(button, !stale);
      [this.stale, this.drawn] = [stale, this.items];
    } else {
      for (const list of [this.watchers, this.own]) for (const card of list.views.values()) card.tick(elapsed);
    }
    return stale;
  }

  drawProcess(stale) {
    const { pid, version, uptime, cpu, rss } = this.server.circusd ?? {};
    const words = [pid && text("server.pid", { pid }), uptime !== undefined && uptime !== null && text("server.up", { age: duration(uptime) }), version && text("server.version", { version }), percent(cpu) && text("server.cpu", { cpu: percent(cpu) }), bytes(rss)];
    write(this.process, stale ? pid && text("server.was", { pid }) : words.filter(Boolean).join(" · "));
  }

  drawProbes(since, stale) {
    const probers = this.server.probers ?? [];
    const age = probers.length ? Math.min(...probers.map((prober) => prober.round_age)) + since + (this.server.age ?? 0) : null;
    const isYoung = (this.server.circusd?.uptime ?? 0) < PROBES_STALE; // the plugin that probes is still starting
    const isMissing = age === null && !isYoung && this.server.watchers.some((watcher) => watcher.armed);
    set(this.probed, "data-tone", isMissing || age > PROBES_STALE ? "warn" : null);
    show(this.probed, !stale && (isMissing || age !== null));
    write(this.probed, isMissing ? text("server.not_probed") : text("server.probed", { age: duration(age) }));
  }

  trouble(age) {
    // Where circusd answered last, it is the page's own server that is silent.
    const error = this.server.error ? reasonIn(this.server, "error") : text(this.server.reachable ? "server.unheard" : "server.unreachable");
    return `${error} · ${age === null ? text("server.never") : text("server.as_of", { age: duration(age) })}`;
  }
}

class Sockets {
  constructor() {
    const body = el("tbody");
    const heads = ["name", "host", "port", "fd", "requests"].map((name) => el("th", { scope: "col" }, text(`socket.${name}`)));
    const table = el("table", { class: "sockets" }, el("thead", {}, el("tr", {}, ...heads)), body);
    this.node = el("details", { class: "card sockets-card" }, el("summary", {}, (this.title = el("span"))), el("div", { class: "scroll" }, table));
    this.rows = new Keyed(body, (socket) => socket.name, () => new SocketRow());
  }

  /** Circus counts the reads of a socket where its own process has it too, which of ours none has: so the requests. */
  update({ sockets = [], watchers, traffic }, stale) {
    const requests = (port) => watchers.filter((watcher) => watcher.port?.port === port).map(({ name }) => traffic?.[name]?.[0]);
    show(this.node, !stale && sockets.length > 0);
    write(this.title, `${text("sockets")} (${sockets.length})`);
    this.rows.update(sockets.map((socket) => ({ ...socket, requests: perSecond(requests(socket.port)[0]) })));
  }
}

class SocketRow {
  constructor() {
    this.cells = [el("th", { scope: "row" }), ...[1, 2, 3].map(() => el("td", { class: "mono" })), el("td")];
    this.node = el("tr", {}, ...this.cells);
  }

  update({ name, host, port, fd, requests }) {
    [name, host, port, fd, requests].forEach((value, at) => write(this.cells[at], String(value ?? "")));
  }
}

// What serves comes first, then what Circus alone looks after, then the page itself and the plugins.
const rank = (watcher) => (watcher.is_helper ? 3 : watcher.is_page ? 2 : watcher.armed ? 0 : 1);
const isSystem = (watcher) => rank(watcher) > 1;

/** The page, the plugins and the sockets: folded while all is well with them. */
class System {
  constructor(...parts) {
    this.title = el("span");
    this.node = el("details", { class: "system" }, el("summary", {}, this.title), ...parts);
  }

  update(items, opens) {
    show(this.node, items.length > 0);
    write(this.title, text("system", { names: items.map(({ watcher }) => watcher.name).join(", ") }));
    if (opens !== this.opens) this.node.open = this.opens = opens;
  }
}

/** What is shown of many watchers, and in which order. */
class Tools {
  constructor(id, redraw, reask) {
    this.filter = el("input", { type: "search", spellcheck: "false", autocomplete: "off" });
    this.order = el("select", { autocomplete: "off" });
    this.range = el("select", { autocomplete: "off" });
    this.all = el("button", { type: "button", class: "button button-quiet" });
    this.opens = localStorage.getItem(OPEN) === "all";
    offer(this.order, ["trouble", "name", "memory", "requests"].map((name) => [name, text(`sort.${name}`)]));
    offer(this.range, RANGES.map((seconds) => [String(seconds), rangeName(seconds)]));
    this.range.value = String(chosenRange());
    const field = (key, control) => el("label", { class: "field-inline" }, el("span", {}, text(key)), control);
    [this.filterField, this.orderField, this.rangeField] = [field("filter", this.filter), field("sort", this.order), field("history.range", this.range)];
    this.node = el("div", { class: "filters tools" }, this.filterField, this.orderField, this.rangeField, this.all);
    this.filter.addEventListener("input", redraw);
    this.order.addEventListener("change", redraw);
    this.range.addEventListener("change", () => (chooseRange(this.range.value), reask()));
    this.all.addEventListener("click", () => {
      this.opens = !this.opens;
      localStorage.setItem(OPEN, this.opens ? "all" : "");
      redraw();
    });
  }

  update(server) {
    const isLong = server.watchers.length > FEW;
    for (const field of [this.filterField, this.orderField]) show(field, isLong);
    show(this.rangeField, server.has_ledger);
    write(this.all, text(this.opens ? "open.none" : "open.all"));
  }

  filtered(watchers) {
    const wanted = this.filter.value.trim().toLowerCase();
    return watchers.filter((watcher) => `${watcher.name} ${word("verdict", verdictOf(watcher))}`.toLowerCase().includes(wanted));
  }

  sorted(watchers, server) {
    const by = { memory: (watcher) => -memoryOf(watcher), requests: (watcher) => -(server.traffic?.[watcher.name]?.[0] ?? 0) }[this.order.value];
    const name = this.order.value === "trouble" ? () => 0 : (a, b) => a.name.localeCompare(b.name);
    const trouble = (watcher) => severity(watcher) - (isTrouble({ line: lineOf(server, watcher.name) }) ? 0.5 : 0);
    return [...watchers].sort((a, b) => trouble(a) - trouble(b) || (by ? by(a) - by(b) : 0) || name(a, b) || rank(a) - rank(b));
  }
}
