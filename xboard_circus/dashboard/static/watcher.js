// One watcher: what it is, what can be done with it, and its workers.

import { MAY_ACT, actionButton, allow } from "./actions.js";
import { Badge, toneOf } from "./badges.js";
import { Keyed, el, set, show, write } from "./dom.js";
import { Ghosts } from "./ghosts.js";
import { keyOf } from "./history.js";
import { say } from "./reasons.js";
import { text, word } from "./text.js";
import { COLUMNS, WorkerRow, countdown } from "./worker.js";

const SEEN_ROLL = 60; // seconds for which a roll that went well is still told

let nextId = 0;

export class WatcherCard {
  constructor({ server, watcher, history, details }) {
    this.server = server;
    this.watcher = watcher;
    const id = `watcher-${(nextId += 1)}`;
    this.badge = new Badge();
    this.portBadge = new Badge();
    this.name = el("h3", { id, tabindex: "-1", "data-home": true });
    this.ready = el("span", { class: "ready-count" });
    this.unarmed = el("span", { class: "chip", title: text("watcher.unarmed.what") }, text("watcher.unarmed"));
    this.makeFacts();
    this.last = el("p", { class: "last" });
    this.portReason = el("p", { class: "last" });
    this.roll = new Roll();
    this.ghosts = new Ghosts();
    this.empty = el("p", { class: "muted no-workers" });
    const body = el("tbody", { role: "rowgroup" });
    this.table = el("table", { class: "workers", role: "table", "aria-labelledby": id }, head(), body);
    this.rows = new Keyed(body, ({ worker }) => keyOf(worker), (item) => new WorkerRow({ ...item, history, details }));
    this.node = el(
      "article",
      { class: "card watcher", "data-part": "watcher", "aria-labelledby": id },
      el(
        "header",
        { class: "watcher-head" },
        el("div", { class: "watcher-title" }, this.name, this.badge.node, this.ready, this.countdown, this.unarmed),
        this.facts,
        ...(MAY_ACT ? [this.makeActions()] : []),
      ),
      this.last,
      this.portReason,
      this.roll.node,
      this.empty,
      this.table,
    );
  }

  makeFacts() {
    this.port = fact(text("watcher.port"), (this.address = el("span", { class: "mono" })), this.portBadge.node);
    this.meter = el("meter", { min: "0" });
    this.spent = el("span");
    this.budget = fact(text("watcher.budget"), this.spent, this.meter);
    this.restarts = fact(text("watcher.restarts"), (this.restartCount = el("span")), (this.ends = el("span", { class: "muted" })));
    this.countdown = el("span", { class: "watcher-next-try" });
    this.processes = fact(text("watcher.numprocesses"), (this.numprocesses = el("span")), ...(MAY_ACT ? this.makeStepper() : []));
    this.timelineLink = el("a", {}, text("view.timeline"));
    this.logsLink = el("a", {}, text("view.logs"));
    const facts = [this.port, this.budget, this.restarts, this.processes].map(({ node }) => node);
    const links = el("p", { class: "watcher-links" }, this.timelineLink, this.logsLink);
    this.facts = el("div", { class: "facts-row" }, el("dl", { class: "facts" }, ...facts), links);
  }

  makeStepper() {
    const button = (action, sign) => actionButton({ ...this.action(action), words: sign, label: `${text(`do.${action}`)}: ${this.watcher.name}` });
    this.decr = button("decr", "−");
    this.incr = button("incr", "+");
    return [el("span", { class: "stepper" }, this.decr, this.incr)];
  }

  makeActions() {
    this.start = actionButton(this.action("start", { look: "main" }));
    this.reload = actionButton(this.action("reload"));
    this.restart = actionButton(this.action("restart", { question: () => this.question("restart") }));
    this.stop = actionButton(this.action("stop", { look: "danger", question: () => this.question("stop") }));
    const label = text("watcher.actions", { name: this.watcher.name });
    return el("div", { class: "actions", role: "group", "aria-label": label }, this.start, this.reload, this.restart, this.stop);
  }

  action(name, more = {}) {
    const details = () => ({ server: this.server.id, watcher: this.watcher.name });
    return { words: text(`do.${name}`), action: name, details, ...more };
  }

  question(name) {
    return { title: text(`do.${name}.ask`, { name: this.watcher.name }), what: text(`do.${name}.what`), yes: text(`do.${name}`) };
  }

  update({ server, watcher, stale, elapsed }) {
    this.server = server;
    this.watcher = watcher;
    const { armed, workers } = watcher;
    set(this.node, "data-watcher", watcher.name);
    set(this.node, "data-armed", armed ? "yes" : "no");
    set(this.node, "data-plugin", isPlugin(watcher));
    write(this.name, watcher.name);
    this.badge.update(wantsNobody(watcher) ? "unmanned" : watcher.status, stale);
    write(this.ready, text(armed ? "watcher.ready" : "watcher.running", { ready: serving(watcher), wanted: watcher.numprocesses }));
    show(this.unarmed, !armed && !isPlugin(watcher));
    this.updateFacts(stale);
    write(this.last, watcher.last_reason ? text("watcher.last", { why: say(watcher.last_reason) }) : "");
    show(this.last, Boolean(watcher.last_reason) && !isOfPort(watcher));
    this.roll.update(watcher.reload ?? null);
    const why = wantsNobody(watcher) ? "watcher.unmanned" : watcher.status === "stopped" ? "watcher.stopped" : "watcher.no_workers";
    write(this.empty, text(why));
    show(this.empty, !workers.length);
    const shown = this.ghosts.update(server, watcher);
    show(this.table, shown.length > 0);
    this.rows.update(shown.map((worker) => ({ server, watcher, worker, stale, elapsed })));
    if (MAY_ACT) this.updateActions(stale);
    this.tick(elapsed);
  }

  updateFacts(stale) {
    const { watcher } = this;
    const { port, budget } = watcher;
    show(this.port.node, Boolean(port) && port.state !== "none");
    if (port) {
      write(this.address, `${port.host.includes(":") ? `[${port.host}]` : port.host}:${port.port}`);
      this.portBadge.update(port.state, stale);
    }
    const why = port && port.state !== "bound" && (isOfPort(watcher) || !watcher.last_reason.includes(port.reason)) ? port.reason : "";
    write(this.portReason, why ? text("watcher.port.why", { why: say(why) }) : "");
    show(this.portReason, Boolean(why));
    show(this.budget.node, Boolean(budget));
    if (budget) {
      write(this.spent, text(watcher.cooldown_until === null ? "watcher.budget.of" : "watcher.budget.cooling", budget));
      for (const [name, value] of [["max", budget.limit], ["high", Math.max(1, budget.limit * 0.6)], ["value", budget.spent]]) set(this.meter, name, value);
      set(this.meter, "aria-label", `${text("watcher.budget")} ${text("watcher.budget.of", budget)}`);
    }
    show(this.restarts.node, watcher.armed);
    write(this.restartCount, watcher.restarts);
    write(this.ends, Object.entries(watcher.ends ?? {}).map(([cause, times]) => `${word("cause", cause)} ${times}`).join(", "));
    write(this.numprocesses, watcher.numprocesses);
    const place = [this.server.id, watcher.name].map(encodeURIComponent).join("/");
    set(this.timelineLink, "href", `#timeline/${place}`);
    set(this.logsLink, "href", `#logs/${place}`);
    show(this.timelineLink, this.server.has_ledger);
    show(this.logsLink, this.server.has_logs);
  }

  updateActions(stale) {
    const { status, armed, numprocesses } = this.watcher;
    const isStopped = status === "stopped";
    show(this.start, isStopped);
    for (const button of [this.restart, this.stop]) show(button, !isStopped);
    show(this.reload, !isStopped && armed);
    for (const button of [this.start, this.restart, this.stop, this.incr]) allow(button, !stale);
    allow(this.reload, !stale && this.watcher.reload?.state !== "running");
    allow(this.decr, !stale && numprocesses > 1);
  }

  tick(elapsed) {
    const words = countdown(this.watcher.next_try ?? this.watcher.cooldown_until, elapsed);
    show(this.countdown, Boolean(words));
    write(this.countdown, words);
    for (const row of this.rows.views.values()) row.tick(elapsed);
  }
}

/** How a rolling reload gets on; one that went well is told for a minute, and only to who saw it run. */
class Roll {
  constructor() {
    this.words = el("span");
    this.progress = el("progress", { max: "1", value: "0", "aria-label": text("do.reload") });
    this.log = el("pre", { class: "mono" });
    this.more = el("details", {}, el("summary", {}, text("roll.log")), this.log);
    this.node = el("div", { class: "roll", hidden: true }, this.words, this.progress, this.more);
    this.sawIt = false;
    this.endedAt = null;
  }

  update(reload) {
    const state = reload?.state ?? null;
    if (state === "running") [this.sawIt, this.endedAt] = [true, null];
    else if (this.sawIt) this.endedAt ??= performance.now() / 1000;
    const isNews = state === "done" && this.endedAt !== null && performance.now() / 1000 - this.endedAt < SEEN_ROLL;
    show(this.node, state === "running" || state === "failed" || state === "stopped" || isNews);
    if (this.node.hidden) return;
    set(this.node, "data-tone", { running: "info", done: "good" }[state] ?? "bad");
    write(this.words, text(`roll.${state}`, { ...reload, reason: say(reload.reason) }));
    show(this.progress, state === "running");
    set(this.progress, "max", Math.max(1, reload.total));
    set(this.progress, "value", reload.done);
    show(this.more, Boolean(reload.log));
    write(this.log, reload.log);
  }
}

export const isPlugin = (watcher) => watcher.name.startsWith("plugin:") || watcher.name.startsWith("circusd-");

// The port's own line says the same, and for how long it has been held by now.
const isOfPort = ({ port, last_reason: last }) => port?.state === "refused" && last.startsWith("port refused: ");

/** How many workers serve. */
export const serving = (watcher) => watcher.workers.filter(({ state }) => ["ready", "busy", "running"].includes(state)).length;

/** Whether somebody has set it to no workers: Circus calls it active, and it serves nobody. */
const wantsNobody = (watcher) => watcher.status === "active" && watcher.numprocesses === 0;

/** Whether something is wrong that a person should look at. */
export const isTroubled = (watcher) =>
  wantsNobody(watcher) ||
  watcher.workers.some(({ state }) => toneOf(state) === "bad" || state === "waiting") || watcher.port?.state === "refused";

function head() {
  const cells = COLUMNS.map((column) => el("th", { scope: "col", role: "columnheader", class: `cell-${column}` }, text(`column.${column}`)));
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...cells));
}

function fact(name, ...children) {
  return { node: el("div", {}, el("dt", {}, name), el("dd", {}, ...children)) };
}
