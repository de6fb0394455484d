// Curves over time, drawn as SVG.

import { set, svg, write } from "./dom.js";
import { SPAN } from "./history.js";
import { bytes, count, milliseconds, perSecond, percent, text } from "./text.js";

const YOUNG = 30; // seconds that a small curve shows at least: a young worker's would be a dot otherwise

/** How each figure is written, and the least height of its curve, so that noise does not look like a mountain. */
const KINDS = {
  cpu: { name: "chart.cpu", show: percent, least: 10, fromZero: true },
  rss: { name: "chart.memory", show: bytes, least: 8 * 1048576, fromZero: false },
  latency: { name: "chart.latency", show: milliseconds, least: 0.005, fromZero: true },
  requests: { name: "chart.requests", show: perSecond, least: 1, fromZero: true },
  errors: { name: "chart.errors", show: perSecond, least: 1, fromZero: true },
  p50: { name: "chart.p50", show: milliseconds, least: 0.005, fromZero: true },
  p95: { name: "chart.p95", show: milliseconds, least: 0.005, fromZero: true },
  active: { name: "chart.active", show: count, least: 1, fromZero: true },
  lag: { name: "chart.lag", show: milliseconds, least: 0.005, fromZero: true },
};

export const shown = (kind, value) => KINDS[kind].show(value);

/** A small curve without axes, beside a figure that says the same. */
export class Sparkline {
  constructor(kind, { width = 72, height = 20 } = {}) {
    this.kind = kind;
    this.box = { left: 0, top: 1, width, height: height - 2 };
    this.area = svg("path", { class: "chart-area" });
    this.line = svg("path", { class: "chart-line" });
    this.node = svg("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, this.area, this.line);
  }

  update(series) {
    const [first, last] = [series.t[0], series.t[series.t.length - 1]];
    const curve = draw(series, this.kind, this.box, Math.min(SPAN, Math.max(YOUNG, last - first)));
    set(this.line, "d", curve.line);
    set(this.area, "d", curve.area);
  }
}

/** A curve with axes, and a description for who does not see it. */
export class Chart {
  constructor(kind) {
    this.kind = kind;
    this.name = KINDS[kind].name;
    this.box = { left: 58, top: 10, width: 494, height: 84 };
    this.area = svg("path", { class: "chart-area" });
    this.line = svg("path", { class: "chart-line" });
    this.most = svg("text", { class: "chart-label", x: 50, y: 14, "text-anchor": "end" });
    this.least = svg("text", { class: "chart-label", x: 50, y: 98, "text-anchor": "end" });
    this.marks = svg("g", { class: "chart-marks" });
    const { left, top, width, height } = this.box;
    this.first = svg("text", { class: "chart-label", x: left, y: 112 });
    this.node = svg(
      "svg",
      { class: "chart", viewBox: "0 0 560 116", role: "img" },
      ...[0, 0.5, 1].map((part) => svg("path", { class: "chart-grid", d: `M${left} ${top + height * part}h${width}` })),
      this.area,
      this.marks,
      this.line,
      this.most,
      this.least,
      this.first,
      svg("text", { class: "chart-label", x: left + width, y: 112, "text-anchor": "end" }, text("now")),
    );
  }

  /** Draw a series over `span` seconds `until` then, the last five minutes until its end otherwise, with marks on it. */
  update(series, { span = SPAN, until = series.t[series.t.length - 1], name: ago = text("unit.min", { n: SPAN / 60 }), marks = [] } = {}) {
    const { show, name } = KINDS[this.kind];
    const curve = draw(series, this.kind, this.box, span, until);
    write(this.first, `−${ago}`);
    const { left, top, width, height } = this.box;
    const x = (time) => round(left + width * (1 - (until - time) / span));
    this.marks.replaceChildren(...marks.map(({ time, words }) => svg("path", { class: "chart-mark", d: `M${x(time)} ${top}v${height}` }, svg("title", {}, words))));
    set(this.line, "d", curve.line);
    set(this.area, "d", curve.area);
    this.most.textContent = curve.known.length ? show(curve.top) : "";
    this.least.textContent = curve.known.length ? show(curve.bottom) : "";
    const words = { name: text(name), value: show(curve.known[curve.known.length - 1]), most: show(Math.max(...curve.known)) };
    set(this.node, "aria-label", curve.known.length ? text("chart.now", words) : text("chart.none", words));
  }
}

/** The paths of a series in a box. A gap in the figures is a gap in the curve. */
function draw(series, kind, box, span, end = series.t[series.t.length - 1]) {
  const values = series[kind];
  const known = values.filter((value) => value !== null && value !== undefined);
  if (!known.length) return { line: null, area: null, known, top: 0, bottom: 0 };
  const { bottom, top } = bounds(known, KINDS[kind]);
  const x = (t) => round(box.left + box.width * (1 - (end - t) / span));
  const y = (value) => round(box.top + box.height * (1 - (value - bottom) / (top - bottom)));
  const floor = box.top + box.height;
  let line = "";
  let area = "";
  for (const run of runs(series.t, values)) {
    const points = run.map(([t, value]) => `${x(t)} ${y(value)}`);
    line += `M${points.join("L")}${run.length === 1 ? "h.5" : ""}`;
    area += `M${x(run[0][0])} ${floor}L${points.join("L")}L${x(run[run.length - 1][0])} ${floor}z`;
  }
  return { line, area, known, top, bottom };
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
