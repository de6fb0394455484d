// One row of a watcher's table: a worker, its condition and its curves.

import { Menu, actionButton, allow } from "./actions.js";
import { Badge } from "./badges.js";
import { Sparkline, shown } from "./charts.js";
import { conditionOf, nameOf, placeOf, serving } from "./condition.js";
import { el, set, show, write } from "./dom.js";
import { now } from "./feed.js";
import { reasonIn } from "./reason.js";
import { MAY_ACT } from "./session.js";
import { count, duration, text } from "./text.js";
import { countdown, verdictOf } from "./verdict.js";

/** Columns in their order, with the key of their heading. */
export const COLUMNS = ["slot", "pid", "state", "age", "latency", "cpu", "memory", "requests", "reason", "actions"];

export class WorkerRow {
  constructor({ server, watcher, worker, history, details }) {
    this.at = { server, watcher };
    this.history = history;
    this.worker = worker;
    this.badge = new Badge();
    this.role = el("span", { class: "muted role" });
    this.age = el("span");
    this.figures = { latency: figure("latency"), cpu: figure("cpu"), rss: figure("rss") };
    this.requests = el("span");
    this.threads = el("span", { class: "muted" });
    this.reason = el("span", { class: "reason" });
    this.nextTry = el("span", { class: "muted next-try" });
    const more = text("do.more.of", this.names());
    const open = el("button", { type: "button", class: "button button-quiet", "aria-label": more, title: more }, text("do.more"));
    open.addEventListener("click", () => details.open(this.at.server.id, this.at.watcher.name, this.worker));
    this.retry = actionButton(this.action("retry", { look: "main", details: () => ({ ...this.place(), slot: this.worker.slot }) }));
    this.replace = actionButton(this.action("replace"));
    this.kill = actionButton(this.action("kill", { look: "danger", question: () => this.question() }));
    this.buttons = MAY_ACT ? [this.retry, this.replace, this.kill] : [];
    this.menu = new Menu(text("more.of", { name: nameOf(worker) }), this.kill);
    const shown = MAY_ACT ? [this.retry, this.replace, this.menu.node] : [];
    this.slot = el("th", { scope: "row", role: "rowheader", class: "cell-slot" });
    this.reasonCell = cell("reason", "wide", this.reason, this.threads, this.nextTry);
    this.node = el(
      "tr",
      { role: "row", "data-pid": worker.pid },
      this.slot,
      cell("pid", "num mono", el("span", {}, String(worker.pid || "–"))),
      cell("state", "", this.badge.node, this.role),
      cell("age", "num", this.age),
      cell("latency", "figure", ...this.figures.latency.nodes),
      cell("cpu", "figure", ...this.figures.cpu.nodes),
      cell("memory", "figure", ...this.figures.rss.nodes),
      cell("requests", "num", this.requests),
      this.reasonCell,
      cell("actions", "row-actions", open, ...shown),
    );
  }

  update({ server, watcher, worker, stale, elapsed }) {
    this.at = { server, watcher };
    [this.worker, this.stale] = [worker, stale];
    const { phase, role } = worker;
    const hasEnded = worker.endedAt !== undefined;
    set(this.node, "data-ended", hasEnded);
    set(this.node, "data-slot", worker.slot);
    // Without a process there are no figures: the reason takes their place.
    const hasFigures = !watcher.armed || !(hasEnded || phase === "held");
    set(this.node, "data-bare", !hasFigures);
    this.reasonCell.colSpan = hasFigures ? 1 : 5;
    write(this.slot, placeOf(worker));
    this.badge.update(conditionOf(worker), stale);
    const isKnown = !hasEnded && phase !== "leaving" && ["successor", "retiring"].includes(role);
    write(this.role, isKnown ? text(`role.${role}`) : "");
    // What a held one waits for is said in one word, with a countdown that goes on; the incident has the rest.
    const why = phase === "held" && worker.held_by ? text(`held.${worker.held_by}`) : reasonIn(worker);
    const { deaths, firstAt, endedAt } = worker;
    const reason = deaths > 1 && why ? text("worker.deaths", { n: deaths, age: duration(Math.round(endedAt - firstAt)), why }) : why;
    write(this.reason, reason);
    set(this.reason, "title", reason || null);
    const series = this.history.of(server.id, worker);
    for (const [kind, view] of Object.entries(this.figures)) {
      write(view.value, shown(kind, worker[kind]));
      view.curve.update(series);
    }
    const { requests_active: active, requests_served: served, threads_used: used, threads_limit: limit } = worker.probe ?? {};
    write(this.requests, requestsOf(active, served));
    write(this.threads, used ? text("worker.threads", { used, limit }) : "");
    if (MAY_ACT) this.updateActions(stale, hasEnded);
    this.tick(elapsed);
  }

  updateActions(stale, hasEnded) {
    const { phase, role, held_by: heldBy } = this.worker;
    const { armed } = this.at.watcher;
    // Another worker would fail like this one while what they depend on is down.
    const isInVain = verdictOf(this.at.watcher) === "dependency";
    // What holds the port, or fails before the start, is there at the next try, too.
    show(this.retry, armed && phase === "held" && !["port", "before"].includes(heldBy));
    show(this.replace, armed && !hasEnded && phase === "up" && role === "serving" && !isInVain);
    show(this.kill, !hasEnded && ["up", "starting"].includes(phase) && !isInVain);
    this.menu.update();
    for (const button of this.buttons) allow(button, !stale);
  }

  /** Let the age and the countdown go on by `elapsed` seconds since circusd sent them. */
  tick(elapsed) {
    const { age, next_try: nextTry, endedAt, phase } = this.worker;
    if (endedAt !== undefined) {
      write(this.age, "");
      write(this.nextTry, text("worker.ended", { age: duration(now() - endedAt) }));
      return;
    }
    write(this.age, age === null || age === undefined ? "" : duration(age + elapsed));
    write(this.nextTry, phase === "held" && !this.stale ? countdown(nextTry, elapsed) : ""); // nobody tries it then
  }

  names() {
    return { worker: nameOf(this.worker), name: this.at.watcher.name };
  }

  place() {
    return { server: this.at.server.id, watcher: this.at.watcher.name };
  }

  action(name, more) {
    const details = () => ({ ...this.place(), pid: this.worker.pid, started: this.worker.started });
    return { words: text(`do.${name}`), label: text(`do.${name}.of`, this.names()), action: name, details, ...more };
  }

  question() {
    const { watcher } = this.at;
    const left = { left: serving(watcher) - 1, wanted: watcher.numprocesses };
    const what = this.worker.serves ? text("do.kill.what.serving", left) : text("do.kill.what");
    return { title: text("do.kill.ask", this.names()), what, yes: text("do.kill.yes") };
  }
}

// Served so far, and those in flight only where there are any.
function requestsOf(active, served) {
  if (served === undefined || served === null) return "";
  return active ? text("worker.requests", { active: count(active), served: count(served) }) : count(served);
}

function cell(column, kind, ...children) {
  // The label stands beside the value where the table is folded for a narrow screen.
  return el("td", { role: "cell", class: `cell-${column} ${kind}`.trim(), "data-label": text(`column.${column}`) }, ...children);
}

function figure(kind) {
  const value = el("span", { class: "value" });
  const curve = new Sparkline(kind);
  return { value, curve, nodes: [value, curve.node] };
}
