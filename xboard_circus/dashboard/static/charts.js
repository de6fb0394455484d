// Curves over time, drawn as SVG.

import { set, svg, write } from "./dom.js";
import { SPAN } from "./history.js";
import { bytes, count, milliseconds, perSecond, percent, text, timeOf } from "./text.js";

const YOUNG = 30; // seconds that a small curve shows at least: a young worker's would be a dot otherwise

/** How each figure is written, and the least height of its curve, so that noise does not look like a mountain. */
const KINDS = {
  cpu: { name: "chart.cpu", show: percent, least: 10, fromZero: true },
  rss: { name: "chart.memory", show: bytes, least: 8 * 1048576, fromZero: false },
  disk: { name: "chart.disk", show: bytes, least: 1048576, fromZero: true },
  latency: { name: "chart.latency", show: milliseconds, least: 0.005, fromZero: true },
  requests: { name: "chart.requests", show: perSecond, least: 1, fromZero: true },
  errors: { name: "chart.errors", show: perSecond, least: 1, fromZero: true },
  p50: { name: "chart.percentiles", show: milliseconds, least: 0.005, fromZero: true },
  p95: { show: milliseconds, least: 0.005, fromZero: true },
  p99: { show: milliseconds },
  active: { name: "chart.active", show: count, least: 1, fromZero: true },
  lag: { name: "chart.lag", show: milliseconds, least: 0.005, fromZero: true },
};

export const shown = (kind, value) => KINDS[kind].show(value);

/** Curves of one unit in a box of a drawing that is `wide`, and a cross that shows where a moment is. */
class Curves {
  constructor(kinds, box, wide) {
    [this.kinds, this.box, this.wide] = [kinds, box, wide];
    this.area = svg("path", { class: "chart-area" });
    this.lines = kinds.map((_, at) => svg("path", { class: "chart-line", "data-line": at }));
    this.cross = svg("path", { class: "chart-cross" });
  }

  /** Draw series over `span` seconds `until` then; return the known values, and the bounds of the scale. */
  draw(series, span, until) {
    [this.series, this.span, this.until] = [series, span, until];
    const { lines, area, ...scale } = pathsOf(series, this.kinds, this.box, span, until);
    this.lines.forEach((line, at) => set(line, "d", lines[at]));
    set(this.area, "d", this.lines.length === 1 ? area : null);
    return scale;
  }

  /** What the curves have at a place of the series, or where they end, in words; "" where nothing is known. */
  valuesAt(place = this.series.t.findLastIndex((_, at) => this.knownAt(at).length > 0)) {
    return this.knownAt(place).map((kind) => `${this.kinds.length > 1 ? `${kind} ` : ""}${KINDS[kind].show(this.series[kind][place])}`).join(", ");
  }

  knownAt(place) {
    return this.kinds.filter((kind) => (this.series[kind][place] ?? null) !== null);
  }

  /** Show where a moment is; null takes it away. */
  point(time) {
    set(this.cross, "d", time === null ? null : `M${this.place(time)} ${this.box.top}v${this.box.height}`);
  }

  place(time) {
    return round(this.box.left + this.box.width * (1 - (this.until - time) / this.span));
  }

  /** The moment below a pointer. */
  timeAt({ clientX }) {
    const { left, width } = this.node.getBoundingClientRect();
    const part = (((clientX - left) / width) * this.wide - this.box.left) / this.box.width;
    return this.until - this.span * (1 - Math.min(1, Math.max(0, part)));
  }
}

/** A small curve without axes, beside a figure that says the same. */
export class Sparkline extends Curves {
  constructor(kind, { width = 72, height = 20 } = {}) {
    super([kind], { left: 0, top: 1, width, height: height - 2 }, width);
    this.node = svg("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, this.area, ...this.lines, this.cross);
  }

  update(series) {
    const [first, last] = [series.t[0], series.t[series.t.length - 1]];
    this.draw(series, Math.min(SPAN, Math.max(YOUNG, last - first)), last);
  }
}

const MARKS = ["crash", "cooldown", "reload", "restart", "operator"];

/** One or several curves of one unit with axes, and a description for who does not see it. */
export class Chart extends Curves {
  constructor(kind, kinds = [kind]) {
    super(kinds, { left: 58, top: 10, width: 494, height: 84 }, 560);
    this.name = KINDS[kind].name;
    const { left, top, width, height } = this.box;
    this.marks = new Map(MARKS.map((mark) => [mark, svg("path", { class: "chart-mark", "data-mark": mark })]));
    this.most = svg("text", { class: "chart-label", x: 50, y: 14, "text-anchor": "end" });
    this.least = svg("text", { class: "chart-label", x: 50, y: 98, "text-anchor": "end" });
    this.first = svg("text", { class: "chart-label", x: left, y: 112 });
    this.node = svg(
      "svg",
      { class: "chart", viewBox: "0 0 560 116", role: "img", "aria-label": text("chart.none", { name: text(this.name) }) },
      ...[0, 0.5, 1].map((part) => svg("path", { class: "chart-grid", d: `M${left} ${top + height * part}h${width}` })),
      this.area,
      ...this.marks.values(),
      ...this.lines,
      this.cross,
      this.most,
      this.least,
      this.first,
      svg("text", { class: "chart-label", x: left + width, y: 112, "text-anchor": "end" }, text("now")),
    );
  }

  /** Draw series over `span` seconds `until` then, the last five minutes until their end otherwise, with `{time, mark}` on them. */
  update(series, { span = SPAN, until = series.t[series.t.length - 1], name: ago = text("unit.min", { n: SPAN / 60 }), marks = [] } = {}) {
    const { show } = KINDS[this.kinds[0]];
    const { known, top: most, bottom } = this.draw(series, span, until);
    write(this.first, `−${ago}`);
    const { top, height } = this.box;
    for (const [kind, node] of this.marks) {
      const places = new Set(marks.filter(({ mark }) => mark === kind).map(({ time }) => this.place(time)));
      set(node, "d", [...places].map((x) => `M${x} ${top}v${height}`).join("") || null);
    }
    write(this.most, known.length ? show(most) : "");
    write(this.least, known.length ? show(bottom) : "");
    const words = { name: text(this.name), value: this.valuesAt(), most: show(Math.max(...known)) };
    set(this.node, "aria-label", known.length ? text("chart.now", words) : text("chart.none", words));
  }
}

/** One moment of several charts, which the pointer or a slider chooses, and that all of them show. */
export class Crosshair {
  /** `say(time, values)` shows what the charts have then, or last where that is null, and returns it in words. */
  constructor(area, charts, slider, say) {
    [this.charts, this.slider, this.say, this.times, this.time] = [charts, slider, say, [], null];
    for (const chart of charts) chart.node.addEventListener("pointermove", (event) => this.times.length && this.point(chart.timeAt(event)));
    area.addEventListener("pointerleave", () => this.point(null));
    slider.addEventListener("input", () => this.point(this.times[Number(slider.value)] ?? null));
    slider.addEventListener("blur", () => this.point(null));
  }

  /** Take the times of new series. */
  update(times) {
    this.times = times;
    this.point(this.time);
  }

  point(time) {
    if (!this.charts[0].series) return;
    this.time = time;
    const place = time === null ? this.times.length - 1 : nearest(this.times, time);
    const values = this.charts.map((chart) => chart.valuesAt(time === null ? undefined : place));
    for (const chart of this.charts) chart.point(time);
    set(this.slider, "max", Math.max(0, this.times.length - 1));
    this.slider.value = String(place);
    set(this.slider, "aria-valuetext", [time === null ? text("now") : timeOf(time), ...this.say(time, values)].join(", "));
  }
}

/** The place of the time next to a moment. */
function nearest(times, moment) {
  const next = times.findIndex((time) => time >= moment);
  if (next <= 0) return next < 0 ? times.length - 1 : 0;
  return moment - times[next - 1] < times[next] - moment ? next - 1 : next;
}

/** The paths of some series in a box, on one scale, and the area below the first. A gap in the figures is a gap in the curve. */
function pathsOf(series, kinds, box, span, end) {
  const known = kinds.flatMap((kind) => series[kind].filter((value) => value !== null && value !== undefined));
  if (!known.length) return { lines: [], area: null, known, top: 0, bottom: 0 };
  const { bottom, top } = bounds(known, KINDS[kinds[0]]);
  const x = (t) => round(box.left + box.width * (1 - (end - t) / span));
  const y = (value) => round(box.top + box.height * (1 - (value - bottom) / (top - bottom)));
  const floor = box.top + box.height;
  let area = "";
  const lines = kinds.map((kind, nth) => {
    let line = "";
    for (const run of runs(series.t, series[kind])) {
      const points = run.map(([t, value]) => `${x(t)} ${y(value)}`).join("L");
      line += `M${points}${run.length === 1 ? "h.5" : ""}`;
      if (nth === 0) area += `M${x(run[0][0])} ${floor}L${points}L${x(run[run.length - 1][0])} ${floor}z`;
    }
    return line || null;
  });
  return { lines, area, known, top, bottom };
}

function bounds(known, { least, fromZero }) {
  const most = Math.max(...known);
  if (fromZero) return { bottom: 0, top: Math.max(most, least) };
  const middle = (most + Math.min(...known)) / 2;
  const half = Math.max((most - Math.min(...known)) / 2, least / 2) * 1.1;
  return { bottom: Math.max(0, middle - half), top: middle + half };
}

function runs(times, values) {
  const found = [];
  let current = null;
  for (let at = 0; at < times.length; at += 1) {
    if (values[at] === null || values[at] === undefined) current = null;
    else if (current) current.push([times[at], values[at]]);
    else found.push((current = [[times[at], values[at]]]));
  }
  return found;
}

const round = (value) => Math.round(value * 10) / 10;
