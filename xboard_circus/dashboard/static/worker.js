// One row of a watcher's table: a worker, its state and its curves.

import { MAY_ACT, actionButton, allow } from "./actions.js";
import { Badge } from "./badges.js";
import { Sparkline, shown } from "./charts.js";
import { el, set, show, write } from "./dom.js";
import { now } from "./feed.js";
import { shownState } from "./ghosts.js";
import { say } from "./reasons.js";
import { count, duration, text } from "./text.js";

/** Columns in their order, with the key of their heading. */
export const COLUMNS = ["pid", "wid", "state", "age", "latency", "cpu", "memory", "requests", "reason", "actions"];

export class WorkerRow {
  constructor({ server, watcher, worker, history, details }) {
    this.at = { server, watcher };
    this.history = history;
    this.worker = worker;
    this.badge = new Badge();
    this.unready = new Badge();
    this.age = el("span");
    this.figures = { latency: figure("latency"), cpu: figure("cpu"), rss: figure("rss") };
    this.requests = el("span");
    this.threads = el("span", { class: "muted" });
    this.reason = el("span", { class: "reason" });
    this.nextTry = el("span", { class: "muted next-try" });
    const more = text("do.more.of", { pid: worker.pid });
    const open = el("button", { type: "button", class: "button button-quiet", "aria-label": more, title: more }, text("do.more"));
    open.addEventListener("click", () => details.open(this.at.server.id, this.at.watcher.name, this.worker));
    this.replace = actionButton(this.action("replace", { look: "plain" }));
    this.kill = actionButton({ ...this.action("kill", { look: "danger" }), question: () => this.question() });
    const pid = el("th", { scope: "row", role: "rowheader", "data-label": "PID", class: "num" }, String(worker.pid));
    this.node = el(
      "tr",
      { role: "row", "data-pid": worker.pid },
      pid,
      cell("wid", "num", (this.wid = el("span"))),
      cell("state", "", this.badge.node, this.unready.node),
      cell("age", "num", this.age),
      cell("latency", "figure", ...this.figures.latency.nodes),
      cell("cpu", "figure", ...this.figures.cpu.nodes),
      cell("memory", "figure", ...this.figures.rss.nodes),
      cell("requests", "num", this.requests),
      cell("reason", "wide", this.reason, this.threads, this.nextTry),
      cell("actions", "row-actions", open, ...(MAY_ACT ? [this.replace, this.kill] : [])),
    );
  }

  update({ server, watcher, worker, stale, elapsed }) {
    this.at = { server, watcher };
    this.worker = worker;
    const hasEnded = worker.endedAt !== undefined;
    set(this.node, "data-ended", hasEnded);
    this.badge.update(shownState(worker), stale);
    show(this.unready.node, worker.ready === false && worker.state === "ready");
    this.unready.update("not_ready", stale);
    write(this.wid, worker.wid ?? "");
    // The countdown beside it goes on; the one in circusd's words stands still.
    const reason = say((worker.reason ?? "").replace(/,? next try in [\d.]+ s$/, ""));
    // Who holds it stands above, once for all.
    write(this.reason, worker.reason?.startsWith("waits for the port: ") ? text("worker.waits_for_port") : reason);
    set(this.reason, "title", reason || null);
    const series = this.history.of(server.id, worker);
    for (const [kind, view] of Object.entries(this.figures)) {
      write(view.value, shown(kind, worker[kind]));
      view.curve.update(series);
    }
    const { requests_active: active, requests_served: served, threads_used: used, threads_limit: limit } = worker.probe ?? {};
    write(this.requests, requestsOf(active, served));
    write(this.threads, used ? text("worker.threads", { used, limit }) : "");
    show(this.replace, watcher.armed && !hasEnded);
    show(this.kill, !hasEnded);
    for (const button of MAY_ACT ? [this.replace, this.kill] : []) allow(button, !stale);
    this.tick(elapsed);
  }

  /** Let the age and the countdown go on by `elapsed` seconds since circusd told them. */
  tick(elapsed) {
    const { age, next_try: nextTry, endedAt } = this.worker;
    if (endedAt !== undefined) {
      write(this.age, "");
      write(this.nextTry, text("worker.ended", { age: duration(now() - endedAt) }));
      return;
    }
    write(this.age, age === null || age === undefined ? "" : duration(age + elapsed));
    write(this.nextTry, countdown(nextTry, elapsed));
  }

  action(name, more) {
    const pid = this.worker.pid;
    const details = () => ({ server: this.at.server.id, watcher: this.at.watcher.name, pid, started: this.worker.started });
    return { words: text(`do.${name}`), label: text(`do.${name}.of`, { pid }), action: name, details, ...more };
  }

  question() {
    const names = { pid: this.worker.pid, name: this.at.watcher.name };
    return { title: text("do.kill.ask", names), what: text("do.kill.what"), yes: text("do.kill") };
  }
}

/** How long until the next try, as a person says it. */
export function countdown(nextTry, elapsed) {
  if (nextTry === null || nextTry === undefined) return "";
  const left = nextTry - elapsed;
  return left < 0.5 ? text("worker.next_try.now") : text("worker.next_try", { age: duration(Math.ceil(left)) });
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
