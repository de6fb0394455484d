// One circusd: how old its figures are, its watchers, its sockets.

import { actionButton, allow } from "./actions.js";
import { serving } from "./condition.js";
import { Keyed, el, set, show, write } from "./dom.js";
import { now } from "./feed.js";
import { reasonIn } from "./reason.js";
import { MAY_ACT } from "./session.js";
import { duration, text } from "./text.js";
import { severity } from "./verdict.js";
import { WatcherCard, isPlugin } from "./watcher.js";

const STALE = 8; // seconds after which figures are shown in grey
const PROBES_STALE = 30;
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
    const cards = el("div", { class: "watchers" });
    this.watchers = new Keyed(cards, ({ watcher }) => watcher.name, (item) => new WatcherCard({ ...item, history, details }));
    this.empty = el("div", { class: "empty" }, el("p", {}, text("server.no_watchers")));
    this.sockets = new Sockets();
    const facts = el("p", { class: "server-facts" }, this.endpoint, this.process, this.age, this.probed);
    this.node = el(
      "section",
      { class: "server", "data-part": "server", "data-server": server.id, "aria-labelledby": id },
      el("header", { class: "server-head" }, el("div", {}, this.label, facts), ...(MAY_ACT ? [this.makeActions()] : [])),
      this.problem,
      cards,
      this.empty,
      this.sockets.node,
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
    this.add = el("button", { type: "button", class: "button button-plain" }, text("watcher.add"));
    this.add.addEventListener("click", () => this.addWatcher(this.server.id));
    this.remove = actionButton({
      words: text("server.remove"),
      action: "remove_server",
      details: () => ({ server: this.server.id, id: this.server.id }),
      question: () => this.question("server.remove"),
    });
    const label = text("server.actions", { label: this.server.label });
    return el("div", { class: "actions", role: "group", "aria-label": label }, ...this.all, this.add, this.remove);
  }

  question(key) {
    const up = this.server.watchers.reduce((sum, watcher) => sum + serving(watcher), 0);
    return { title: text(`${key}.ask`, { label: this.server.label }), what: text(`${key}.what`, { up }), yes: text(key) };
  }

  update({ server, state, heardAt }) {
    this.server = server;
    this.heardAt = heardAt;
    write(this.label, server.label);
    write(this.endpoint, server.endpoint);
    const { pid, version, uptime } = server.circusd ?? {};
    const words = [pid && text("server.pid", { pid }), uptime !== undefined && uptime !== null && text("server.up", { age: duration(uptime) }), version && text("server.version", { version })];
    write(this.process, words.filter(Boolean).join(" · "));
    const folds = server.watchers.reduce((sum, watcher) => sum + watcher.workers.length, 0) > MANY;
    const watchers = [...server.watchers].sort((a, b) => severity(a) - severity(b) || rank(a) - rank(b));
    this.items = watchers.map((watcher) => ({ server, watcher, folds }));
    show(this.empty, server.reachable && !server.watchers.length);
    this.sockets.update(server.sockets ?? []);
    if (MAY_ACT) {
      show(this.add, state.allow_add);
      show(this.remove, server.removable);
    }
    this.draw();
  }

  /** Once a second and with each state: everything that depends on how old the figures are. */
  draw() {
    const since = now() - this.heardAt;
    const age = this.server.age === null ? null : this.server.age + since;
    const stale = !this.server.reachable || age === null || age > STALE;
    set(this.node, "data-stale", stale ? "yes" : null);
    write(this.age, stale ? "" : text("server.fresh", { age: duration(age) }));
    show(this.problem, stale);
    if (stale) write(this.problem, this.trouble(age));
    this.drawProbes(since, stale);
    // Nothing is known of a circusd that is silent: its ages and countdowns stand still.
    const elapsed = stale ? 0 : age;
    if (stale !== this.stale || this.items !== this.drawn) {
      this.watchers.update(this.items.map((item) => ({ ...item, stale, elapsed })));
      for (const button of MAY_ACT ? [...this.all, this.add] : []) allow(button, !stale);
      [this.stale, this.drawn] = [stale, this.items];
    } else {
      for (const card of this.watchers.views.values()) card.tick(elapsed);
    }
    return stale;
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
    const heads = ["name", "host", "port", "fd"].map((name) => el("th", { scope: "col" }, text(`socket.${name}`)));
    const table = el("table", { class: "sockets" }, el("thead", {}, el("tr", {}, ...heads)), body);
    this.node = el("details", { class: "card sockets-card" }, el("summary", {}, (this.title = el("span"))), el("div", { class: "scroll" }, table));
    this.rows = new Keyed(body, (socket) => socket.name, () => new SocketRow());
  }

  update(sockets) {
    show(this.node, sockets.length > 0);
    write(this.title, `${text("sockets")} (${sockets.length})`);
    this.rows.update(sockets);
  }
}

class SocketRow {
  constructor() {
    this.cells = [el("th", { scope: "row" }), el("td", { class: "mono" }), el("td", { class: "mono" }), el("td", { class: "mono" })];
    this.node = el("tr", {}, ...this.cells);
  }

  update({ name, host, port, fd }) {
    [name, host, port, fd].forEach((value, at) => write(this.cells[at], String(value ?? "")));
  }
}

// Without trouble, what serves comes first, then what Circus alone looks after, then the page itself and the plugins.
const rank = (watcher) => (isPlugin(watcher) ? 3 : watcher.name === "dashboard" ? 2 : watcher.armed ? 0 : 1);
