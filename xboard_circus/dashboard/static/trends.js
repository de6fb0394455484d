// The history of a watcher, or of one of its slots: curves over minutes to a week, with what happened to its workers.

import { get, poll, Refused } from "./api.js";
import { Chart, Crosshair } from "./charts.js";
import { choose, keepAddress, offer, offerServers, WatcherView } from "./choices.js";
import { el, show, write } from "./dom.js";
import { reasonIn } from "./reason.js";
import { text, timeOf, word } from "./text.js";

const CHARTS = [["requests"], ["errors"], ["p50", "p95", "p99"], ["active"], ["lag"], ["cpu"], ["rss"], ["disk"]];
const NEAR = 0.015; // of the range: marks so near to the moment are named with it
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
    this.charts = CHARTS.map((kinds) => new Chart(kinds[0], kinds));
    this.readings = this.charts.map(() => el("span", { class: "reading" }));
    $("history-charts").append(...this.charts.map((chart, at) => el("figure", {}, el("figcaption", {}, text(chart.name), this.readings[at]), chart.node)));
    this.crosshair = new Crosshair($("history-charts"), this.charts, $("history-moment"), (time, values) => this.say(time, values));
    for (const select of [this.server, this.watcher, this.slot, this.range]) select.addEventListener("change", () => this.choose());
  }

  /** Open the view, perhaps for one watcher of one circusd, one slot, and a range in seconds. */
  open(serverId, watcherName, slot, range) {
    if (slot) choose(this.slot, slot);
    if (range) choose(this.range, range);
    super.open(serverId, watcherName);
  }

  choose() {
    keepAddress("history", this.server.value, this.watcher.value, this.slot.value, this.range.value);
    this.reload();
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
    const turn = (this.turn += 1);
    const every = () => (Number(this.range.value) === RANGES[0] ? SOON : LATE);
    if (this.isOpen && this.watcher.value) poll(() => turn === this.turn, () => this.ask(turn), every);
    else this.notice(this.isOpen ? text("history.none") : "");
  }

  async ask(turn) {
    const query = { server: this.server.value, watcher: this.watcher.value, slot: this.slot.value, span: this.range.value };
    try {
      const found = await get("api/traffic", query);
      if (turn === this.turn) this.draw(found);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (turn === this.turn) this.notice(text("history.failed", { message: refused.message }));
    }
  }

  draw(found) {
    const { series, span, until, marks } = found;
    this.notice(series.t.length ? "" : text("history.none"));
    series.cpu = series.cpu.map((cores) => (cores === null ? null : 100 * cores));
    this.found = found;
    for (const chart of this.charts) chart.update(series, { span, until, name: rangeName(span), marks });
    show(this.charts.at(-1).node.parentNode, this.slot.value === "0"); // no slot has a disk of its own
    this.crosshair.update(series.t);
  }

  /** Show what all charts have at a moment, and what happened then; null shows the last figures. */
  say(time, values) {
    this.readings.forEach((reading, at) => write(reading, values[at]));
    const near = time === null ? [] : this.found.marks.filter((each) => Math.abs(each.time - time) < NEAR * this.found.span);
    const words = near.slice(-3).map((each) => `${timeOf(each.time)} ${word("mark", each.mark)}: ${reasonIn(each)}`);
    write($("history-said"), time === null ? "" : [timeOf(time), ...words].join(" · "));
    return [...words, ...this.charts.map((chart, at) => `${text(chart.name)} ${values[at]}`)];
  }

  notice(words) {
    write($("history-notice"), words);
    show($("history-notice"), Boolean(words));
  }
}
