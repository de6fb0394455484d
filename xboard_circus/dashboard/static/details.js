// The dialog of one worker: its curves at full width, and all that its last probe reported.

import { get, Refused } from "./api.js";
import { Badge } from "./badges.js";
import { Chart } from "./charts.js";
import { conditionOf, nameOf, placeOf } from "./condition.js";
import { el, show, write } from "./dom.js";
import { FIGURES, keyOf } from "./history.js";
import { reasonIn } from "./reason.js";
import { tell } from "./story.js";
import { bytes, count, duration, milliseconds, percent, text } from "./text.js";

export class Details {
  constructor(history) {
    this.history = history;
    this.dialog = document.getElementById("worker-dialog");
    this.title = document.getElementById("worker-dialog-title");
    this.badge = new Badge();
    this.reason = el("span");
    this.charts = FIGURES.map((kind) => new Chart(kind));
    this.facts = el("dl", { class: "facts facts-many" });
    this.why = el("div", { class: "why" });
    this.ask = el("button", { type: "button", class: "button button-plain" }, text("worker.why"));
    this.ask.addEventListener("click", () => this.explain());
    const figures = this.charts.map((chart) => el("figure", {}, el("figcaption", {}, text(chart.name), el("span", { class: "muted" }, ` ${text("worker.last5")}`)), chart.node));
    const body = document.getElementById("worker-dialog-body");
    body.append(el("p", { class: "details-state" }, this.badge.node, this.reason), this.facts, el("div", { class: "figures" }, ...figures), el("p", {}, this.ask), this.why);
  }

  open(serverId, watcherName, worker) {
    this.at = { serverId, watcherName, worker };
    write(this.title, text("worker", { worker: nameOf(worker), name: watcherName }));
    show(this.why, false);
    this.draw(worker, false);
    this.dialog.showModal();
  }

  /** Follow the worker while the dialog is open; one that has gone keeps its last figures, in grey. */
  update(state, stale) {
    if (!this.dialog.open) return;
    const server = state.servers.find(({ id }) => id === this.at.serverId);
    const watcher = server?.watchers.find(({ name }) => name === this.at.watcherName);
    const worker = watcher?.workers.find((each) => keyOf(each) === keyOf(this.at.worker));
    show(this.ask, Boolean(server?.has_ledger) && !worker);
    if (worker) this.at.worker = worker;
    this.draw(this.at.worker, stale || !worker, !worker);
  }

  draw(worker, stale, gone = false) {
    this.badge.update(gone ? "gone" : conditionOf(worker), stale && !gone);
    write(this.reason, gone ? "" : reasonIn(worker));
    const probe = worker.probe ?? {};
    const facts = [
      ["column.slot", placeOf(worker)],
      ["column.age", duration(worker.age)],
      ["worker.ready_for", duration(worker.ready_for)],
      ["worker.probed", milliseconds(worker.latency)],
      ["worker.lag", milliseconds(probe.lag)],
      ["worker.threads.name", probe.threads_limit ? text("worker.threads", { used: probe.threads_used, limit: probe.threads_limit }) : ""],
      ["worker.requests.name", (probe.requests_served ?? null) === null ? "" : text("worker.requests", { active: count(probe.requests_active ?? 0), served: count(probe.requests_served) })],
      ["chart.cpu", percent(worker.cpu)],
      ["chart.memory", bytes(worker.rss)],
      ["worker.socket", worker.socket],
    ];
    const shown = facts.filter(([, value]) => value !== "" && value !== null && value !== undefined);
    this.facts.replaceChildren(...shown.map(([key, value]) => el("div", {}, el("dt", {}, text(key)), el("dd", {}, String(value)))));
    const series = this.history.of(this.at.serverId, worker);
    if (series.t.length) for (const chart of this.charts) chart.update(series);
  }

  async explain() {
    const { serverId, watcherName, worker } = this.at;
    try {
      tell(this.why, await get("api/why", { server: serverId, watcher: watcherName, pid: worker.pid }));
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      write(this.why, refused.message);
    }
    show(this.why, true);
  }
}
