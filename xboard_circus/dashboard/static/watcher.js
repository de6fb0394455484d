// One watcher: its verdict, what can be done with it, and its workers.

import { Menu, actionButton, allow } from "./actions.js";
import { Badge, toneOf } from "./badges.js";
import { Pulse, Strip } from "./beats.js";
import { isHealthy, serving } from "./condition.js";
import { Keyed, el, linkButton, set, show, svg, write } from "./dom.js";
import { Ghosts } from "./ghosts.js";
import { lineOf, sentencesOf } from "./headlines.js";
import { keyOf } from "./history.js";
import { showOptions } from "./options.js";
import { keyOfReason, reasonIn } from "./reason.js";
import { Reload } from "./reload.js";
import { MAY_ACT } from "./session.js";
import { bytes, duration, milliseconds, perSecond, text, word } from "./text.js";
import { Evidence, isTroubled, verdictOf } from "./verdict.js";
import { COLUMNS, WorkerRow } from "./worker.js";

const FEW = 3; // healthy workers that are shown, however many there are in all
const LAST = 3600; // seconds for which the last event of a watcher is shown

let nextId = 0;

export class WatcherCard {
  constructor({ server, watcher, history, details }) {
    this.server = server;
    this.watcher = watcher;
    const id = `watcher-${(nextId += 1)}`;
    this.badge = new Badge("verdict");
    this.portBadge = new Badge();
    this.name = el("h3", { id, tabindex: "-1", "data-home": true });
    this.up = el("span", { class: "up-count" });
    this.unarmed = el("span", { class: "chip", title: text("watcher.unarmed.what") }, text("watcher.unarmed"));
    this.makeFacts();
    this.evidence = new Evidence();
    this.last = el("p", { class: "last" });
    this.portReason = el("p", { class: "last" });
    this.preload = el("p", { class: "last" }); // why its workers are not forked, or share less than configured
    this.reloading = new Reload(() => this.drawBody());
    this.ghosts = new Ghosts();
    this.empty = el("p", { class: "muted no-workers" });
    const body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { class: "workers", role: "table", "aria-labelledby": id }, head(), body);
    this.rows = new Keyed(body, ({ worker }) => keyOf(worker), (item) => new WorkerRow({ ...item, history, details }));
    this.fold = new Fold(() => this.drawRows());
    this.strip = new Strip();
    this.pulse = new Pulse(watcher.name);
    this.glance = el("span", { class: "glance muted" });
    this.opener = el("button", { type: "button", class: "icon-button opener", "aria-controls": `${id}-body` }, svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: "M5 3l6 5-6 5z", fill: "currentColor" })));
    this.opener.addEventListener("click", () => this.toggle());
    this.body = el("div", { class: "watcher-body", id: `${id}-body` });
    this.node = el(
      "article",
      { class: "card watcher", "data-part": "watcher", "aria-labelledby": id },
      el(
        "header",
        { class: "watcher-head" },
        el("div", { class: "watcher-title" }, this.opener, this.name, this.badge.node, this.up, this.unarmed),
        this.strip.node,
        this.glance,
        ...(MAY_ACT ? [this.makeActions()] : []),
      ),
      this.pulse.node,
      this.body,
    );
    this.body.append(this.facts, this.evidence.node, this.reloading.node, this.last, this.portReason, this.preload, this.empty, this.table, this.fold.node);
  }

  /** Open or close the card, for as long as the trouble of its watcher stays as it is. */
  toggle() {
    this.chosen = { open: this.body.hidden, tone: this.node.dataset.tone };
    this.drawBody();
  }

  drawBody() {
    const tone = this.node.dataset.tone;
    const { stale } = this.drawn; // what is not known any more folds nothing under the pointer
    if (this.chosen && this.chosen.tone !== tone && !stale) this.chosen = null;
    const isOpen = this.chosen?.open ?? ((stale && !this.body.hidden) || this.drawn.opens || tone !== undefined || !this.reloading.node.hidden);
    show(this.body, isOpen);
    set(this.node, "data-folded", !isOpen);
    set(this.opener, "aria-expanded", String(isOpen));
    set(this.opener, "aria-label", text(isOpen ? "watcher.close" : "watcher.open", { name: this.watcher.name }));
  }

  makeFacts() {
    this.port = fact(text("watcher.port"), (this.address = el("span", { class: "mono" })), this.portBadge.node);
    this.meter = el("meter", { min: "0" });
    this.used = el("span");
    this.budget = fact(text("watcher.budget"), this.used, this.meter);
    this.ends = fact(text("watcher.ends"), (this.endCounts = el("span")));
    this.wanted = fact(text("watcher.numprocesses"), (this.numprocesses = el("span")), ...(MAY_ACT ? this.makeStepper() : []));
    this.historyLink = el("a", {}, text("view.history"));
    this.timelineLink = el("a", {}, text("view.timeline"));
    this.logsLink = el("a", {}, text("view.logs"));
    const options = linkButton(text("options"), () => showOptions(this.server, this.watcher.name));
    const facts = [this.port, this.budget, this.ends, this.wanted].map(({ node }) => node);
    const links = el("p", { class: "watcher-links" }, this.historyLink, this.timelineLink, this.logsLink, options);
    this.facts = el("div", { class: "facts-row" }, el("dl", { class: "facts" }, ...facts), links);
  }

  makeStepper() {
    const button = (action, undo, sign) => actionButton({ ...this.action(action, { undo }), words: sign, label: `${text(`do.${action}`)}: ${this.watcher.name}` });
    this.decr = button("decr", "incr", "−");
    this.incr = button("incr", "decr", "+");
    return [el("span", { class: "stepper" }, this.decr, this.incr)];
  }

  makeActions() {
    this.start = actionButton(this.action("start", { look: "main" }));
    this.reload = actionButton(this.action("reload", { look: "main" }));
    this.restart = actionButton(this.action("restart", { question: () => this.question("restart") }));
    this.stop = actionButton(this.action("stop", { look: "danger", question: () => this.question("stop") }));
    const label = text("watcher.actions", { name: this.watcher.name });
    this.menu = new Menu(text("more.of", { name: this.watcher.name }), this.restart, this.stop);
    return el("div", { class: "actions", role: "group", "aria-label": label }, this.start, this.reload, this.menu.node);
  }

  action(name, more = {}) {
    const details = () => ({ server: this.server.id, watcher: this.watcher.name });
    return { words: text(`do.${name}`), action: name, details, ...more };
  }

  question(name) {
    const names = { name: this.watcher.name, up: serving(this.watcher), wanted: this.watcher.numprocesses };
    return { title: text(`do.${name}.ask`, names), what: text(`do.${name}.what`, names), yes: text(`do.${name}`) };
  }

  update({ server, watcher, stale, elapsed, folds, opens, past, hasPulse }) {
    this.server = server;
    this.watcher = watcher;
    const { armed, workers } = watcher;
    const verdict = verdictOf(watcher);
    set(this.node, "data-watcher", watcher.name);
    set(this.node, "data-armed", armed ? "yes" : "no");
    set(this.node, "data-plugin", watcher.is_helper);
    set(this.node, "data-verdict", verdict);
    const line = lineOf(server, watcher.name);
    const shown = verdict === "ok" ? line?.word ?? verdict : verdict; // a failed reload leaves the verdict as it was
    set(this.node, "data-tone", line && !stale && ["bad", "warn"].includes(toneOf(shown)) ? toneOf(shown) : null);
    write(this.name, watcher.name);
    this.badge.update(shown, stale);
    write(this.up, text(stale ? "watcher.was_up" : "watcher.up", { up: serving(watcher), wanted: watcher.numprocesses }));
    show(this.unarmed, !armed && !watcher.is_helper);
    this.updateFacts(stale);
    this.evidence.update(server, watcher, line && !line.isFirst ? sentencesOf(line) : "");
    const why = watcher.numprocesses === 0 ? "watcher.unmanned" : verdict === "stopped" ? "watcher.stopped" : "watcher.no_workers";
    write(this.empty, text(why));
    show(this.empty, !workers.length);
    this.drawn = { shown: this.ghosts.update(server, watcher), stale, elapsed, folds, opens };
    this.reloading.update(server, watcher, elapsed, stale); // may draw the body
    this.strip.update(past);
    this.pulse.update(past, serving(watcher) > 0, watcher.output);
    const isPulseShown = hasPulse && watcher.armed && !stale;
    show(this.pulse.node, isPulseShown);
    write(this.glance, stale ? "" : glanceOf(server, watcher, isPulseShown));
    this.drawBody();
    this.drawRows();
    if (MAY_ACT) this.updateActions(stale);
    this.tick(elapsed);
  }

  /** Put the rows: all by their slots, or where there are many of them those in trouble, and the rest on demand. */
  drawRows() {
    const { shown, stale, elapsed, folds } = this.drawn;
    const healthy = shown.filter(isHealthy);
    const manyAreWell = folds && healthy.length > FEW;
    const isFolded = this.fold.update(manyAreWell ? healthy.length : 0);
    const troubled = shown.filter((worker) => !isHealthy(worker));
    const bySlot = [...shown].sort((a, b) => a.slot - b.slot); // circusd lists a slot that holds its worker last
    const wanted = manyAreWell ? [...troubled, ...(isFolded ? [] : healthy)] : bySlot;
    show(this.table, wanted.length > 0);
    this.rows.update(wanted.map((worker) => ({ server: this.server, watcher: this.watcher, worker, stale, elapsed })));
  }

  updateFacts(stale) {
    const { watcher } = this;
    const { port, budget, ends } = watcher;
    show(this.port.node, Boolean(port) && port.state !== "none");
    if (port) {
      write(this.address, `${port.host.includes(":") ? `[${port.host}]` : port.host}:${port.port}`);
      this.portBadge.update(port.state, stale);
      show(this.portBadge.node, port.state !== "waiting" || verdictOf(watcher) !== "stopped"); // for what?
    }
    const why = port && !["bound", "waiting"].includes(port.state) && !isTroubled(watcher) ? reasonIn(port) : "";
    write(this.portReason, why ? text("watcher.port.why", { why }) : "");
    show(this.portReason, Boolean(why));
    show(this.budget.node, Boolean(budget));
    if (budget) {
      write(this.used, text("watcher.budget.of", budget));
      for (const [name, value] of [["max", budget.limit], ["high", Math.max(1, budget.limit * 0.6)], ["value", budget.used]]) set(this.meter, name, value);
      set(this.meter, "aria-label", `${text("watcher.budget")}: ${text("watcher.budget.of", budget)}`);
    }
    const counts = Object.entries(ends ?? {}).map(([cause, times]) => `${word("cause", cause)} ${times}`);
    write(this.endCounts, counts.join(", "));
    show(this.ends.node, counts.length > 0);
    write(this.numprocesses, watcher.numprocesses);
    const place = [this.server.id, watcher.name].map(encodeURIComponent).join("/");
    set(this.historyLink, "href", `#history/${place}`);
    set(this.timelineLink, "href", `#timeline/${place}`);
    set(this.logsLink, "href", `#logs/${place}`);
    show(this.historyLink, this.server.has_history && this.watcher.probe !== "none");
    show(this.timelineLink, this.server.has_ledger);
    show(this.logsLink, this.server.has_logs);
  }

  updateActions(stale) {
    const { armed, numprocesses, port } = this.watcher;
    const isStopped = this.watcher.status === "stopped";
    show(this.start, isStopped);
    for (const button of [this.restart, this.stop]) show(button, !isStopped);
    const isVain = verdictOf(this.watcher) === "blocked" && port?.state === "refused"; // no new worker gets the port either
    show(this.reload, !isStopped && armed && !isVain);
    for (const button of [this.start, this.restart, this.stop, this.incr]) allow(button, !stale);
    allow(this.reload, !stale && this.watcher.reload?.state !== "running");
    allow(this.decr, !stale && numprocesses > 1);
    this.menu.update();
  }

  tick(elapsed) {
    this.reloading.tick(elapsed);
    // What happened last is worth a line for a while, with its age; of an incident the first line has more.
    const { last_reason: last, last_reason_age: age } = this.watcher;
    const isOfReload = keyOfReason(this.watcher.last_reason_say) === "RELOAD_BROKEN_OFF"; // which its panel and the first line have
    const isNews = Boolean(last) && !this.drawn.stale && typeof age === "number" && age + elapsed < LAST && !isTroubled(this.watcher) && !isOfReload;
    write(this.last, isNews ? text("watcher.last", { age: duration(age + elapsed), why: reasonIn(this.watcher, "last_reason") }) : "");
    show(this.last, isNews);
    const { preload } = this.watcher;
    write(this.preload, preload?.reason && !(isNews && preload.reason === last) ? reasonIn(preload) : "");
    show(this.preload, this.preload.textContent !== "");
    for (const row of this.rows.views.values()) row.tick(elapsed);
  }
}

/** The button that shows healthy workers, where they are so many that they would hide the others. */
class Fold {
  constructor(redraw) {
    this.node = el("button", { type: "button", class: "button button-quiet fold", "aria-expanded": "false", hidden: true });
    this.isOpen = false;
    this.node.addEventListener("click", () => {
      this.isOpen = !this.isOpen;
      redraw();
    });
  }

  /** Offer to show or fold that many; return whether they are folded. */
  update(count) {
    show(this.node, count > 0);
    set(this.node, "aria-expanded", String(this.isOpen));
    write(this.node, text(this.isOpen ? "fold.close" : "fold.open", { count }));
    return count > 0 && !this.isOpen;
  }
}

/** The memory of a watcher's workers. */
export const memoryOf = (watcher) => watcher.workers.reduce((sum, { rss }) => sum + (rss ?? 0), 0);

/** The figures of a watcher in a line, but those that the curves below it have. */
function glanceOf(server, watcher, isPulseShown) {
  const [rate, p95] = (!isPulseShown && server.traffic?.[watcher.name]) || [];
  const memory = memoryOf(watcher);
  return [perSecond(rate), p95 ? text("glance.p95", { p95: milliseconds(p95) }) : "", memory ? bytes(memory) : ""].filter(Boolean).join(" · ");
}

function head() {
  const cells = COLUMNS.map((column) => el("th", { scope: "col", role: "columnheader", class: `cell-${column}` }, text(`column.${column}`)));
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells));
}

function fact(name, ...children) {
  return { node: el("div", {}, el("dt", {}, name), el("dd", {}, ...children)) };
}
