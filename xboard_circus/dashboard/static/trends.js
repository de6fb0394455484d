// The history of a watcher, or of one of its slots: curves over minutes to a week, with what happened to its workers.

import { get, Refused } from "./api.js";
import { Chart } from "./charts.js";
import { offer, offerServers, WatcherView } from "./choices.js";
import { el, show, write } from "./dom.js";
import { text, word } from "./text.js";

const KINDS = ["requests", "errors", "p50", "p95", "active", "lag", "cpu", "rss"];
const RANGES = [300, 3600, 21600, 86400, 604800];
const SOON = 2000; // ms between two questions for the last minutes, and for more
const LATE = 10000;
const $ = (id) => document.getElementById(id);

export const rangeName = (seconds) => {
  if (seconds < 3600) return text("unit.min", { n: seconds / 60 });
  return seconds < 172800 ? text("unit.h", { n: seconds / 3600 }) : text("unit.d", { n: seconds / 86400 });
};

export class Trends extends WatcherView {
  constructor() {
    super();
    this.server = $("history-server");
    this.watcher = $("history-watcher");
    this.slot = $("history-slot");
    this.range = $("history-range");
    this.turn = 0;
    offer(this.range, RANGES.map((seconds) => [String(seconds), rangeName(seconds)]));
    this.charts = KINDS.map((kind) => new Chart(kind));
    $("history-charts").append(...this.charts.map((chart) => el("figure", {}, el("figcaption", {}, text(chart.name)), chart.node)));
    for (const select of [this.server, this.watcher, this.slot, this.range]) select.addEventListener("change", () => this.reload());
  }

  update(state) {
    const before = this.chosen();
    offerServers(this.server, $("history-server-field"), state.servers.filter((server) => server.has_history));
    const watchers = state.servers.find(({ id }) => id === this.server.value)?.watchers ?? [];
    offer(this.watcher, watchers.filter(({ probe }) => probe !== "none").map(({ name }) => [name, name]));
    const workers = watchers.find(({ name }) => name === this.watcher.value)?.workers ?? [];
    const slots = [...new Set(workers.map(({ slot }) => slot))].filter((slot) => slot > 0).sort((a, b) => a - b);
    offer(this.slot, [["0", text("history.all")], ...slots.map((slot) => [String(slot), `#${slot}`])]);
    if (this.isOpen && before !== this.chosen()) this.reload();
  }

  chosen() {
    return [this.server, this.watcher, this.slot].map(({ value }) => value).join("/");
  }

  reload() {
    this.turn += 1;
    if (this.isOpen && this.watcher.value) this.follow(this.turn);
    else this.notice(this.isOpen ? text("history.none") : "");
  }

  /** Ask for the figures again and again, until the view closes or something else is chosen. */
  async follow(turn) {
    while (turn === this.turn) {
      await this.ask(turn);
      await new Promise((resolve) => setTimeout(resolve, Number(this.range.value) === RANGES[0] ? SOON : LATE));
    }
  }

  async ask(turn) {
    if (document.hidden) return;
    const query = { server: this.server.value, watcher: this.watcher.value, slot: this.slot.value, span: this.range.value };
    try {
      const found = await get("api/traffic", query);
      if (turn === this.turn) this.draw(found);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (turn === this.turn) this.notice(text("history.failed", { message: refused.message }));
    }
  }

  draw({ series, span, until, marks }) {
    this.notice(series.t.length ? "" : text("history.none"));
    series.cpu = series.cpu.map((cores) => (cores === null ? null : 100 * cores));
    const lines = marks.map(({ time, kind }) => ({ time, words: word("kind", kind) }));
    for (const chart of this.charts) chart.update(series, { span, until, name: rangeName(span), marks: lines });
  }

  notice(words) {
    write($("history-notice"), words);
    show($("history-notice"), Boolean(words));
  }
}
