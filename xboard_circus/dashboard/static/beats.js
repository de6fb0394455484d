// The heart-beat strip of a watcher: 90 cells of the chosen range, coloured by the verdict, with the cause on hover.

import { get, Refused } from "./api.js";
import { Crosshair, Sparkline, shown } from "./charts.js";
import { el, set, show, svg, write } from "./dom.js";
import { now } from "./feed.js";
import { reasonIn } from "./reason.js";
import { bytes, duration, shareOf, text, timeOf, word } from "./text.js";
import { rangeName } from "./trends.js";

export const RANGES = [3600, 21600, 86400, 604800, 2592000];
const KEY = "xboard_range";
const EVERY = 15; // seconds
const RARELY = 60; // the same for more than a day, which takes longer to read
const TONES = { ok: "good", degraded: "warn", down: "bad", stopped: "stopped", none: "idle" };

/** The range that was chosen, in seconds. */
export const chosenRange = () => (RANGES.includes(Number(localStorage.getItem(KEY))) ? Number(localStorage.getItem(KEY)) : 86400);
export const chooseRange = (seconds) => localStorage.setItem(KEY, String(seconds));

/** What is known of the past of the watchers of one circusd; asked for now and then. */
export class Past {
  constructor(server) {
    this.server = server;
    this.watchers = {};
    this.askedAt = -Infinity;
  }

  /** Ask where it is time; `done()` when there is something new. */
  async ask(done, { soon = false } = {}) {
    if (!soon && now() - this.askedAt < (chosenRange() > 86400 ? RARELY : EVERY)) return;
    this.askedAt = now();
    try {
      this.watchers = (await get("api/beats", { server: this.server, span: chosenRange() })).watchers;
      done();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
    }
  }
}

export class Strip {
  constructor() {
    this.svg = svg("svg", { class: "beats", viewBox: "0 0 450 20", preserveAspectRatio: "none", role: "img" });
    this.share = el("span", { class: "muted" });
    this.node = el("div", { class: "beats-line", hidden: true }, this.svg, this.share);
    this.cells = [];
  }

  /** Draw the cells `{word, since, until, reason}` and how much of the time a worker served. */
  update(past) {
    this.node.hidden = !past;
    if (!past || past === this.drawn) return;
    this.drawn = past;
    while (this.cells.length < past.cells.length) this.cells.push(new Cell(this.svg, this.cells.length));
    past.cells.forEach((cell, at) => this.cells[at].update(cell));
    const shares = past.shares.map(([part, span, isWhole]) => [isWhole, { share: shareOf(part), span: isWhole ? rangeName(span) : duration(span) }]);
    const words = shares.map(([isWhole, share]) => text(isWhole ? "beats.share" : "beats.share.known", share));
    write(this.share, shares.map(([, share], at) => (at ? text("beats.share.also", share) : words[0])).join(" · "));
    set(this.share, "title", words.join(", "));
    set(this.svg, "aria-label", text("beats", { range: rangeName(spanOf(past)), shares: words.join(", ") }));
  }
}

/** The range that the cells cover, in seconds. */
const spanOf = ({ cells }) => Math.round(cells[cells.length - 1].until - cells[0].since);

/** Requests a second, those that failed, and the p95 over the range of the strip, as small curves with their last figures; and what is free on the disk, where that is news. */
export class Pulse {
  constructor(watcher) {
    const names = { requests: text("chart.requests"), errors: text("chart.errors"), p95: "p95", disk: text("chart.disk") };
    this.parts = Object.entries(names).map(([kind, name]) => ({ kind, name, title: el("span"), value: el("b"), curve: new Sparkline(kind, { width: 300, height: 32 }) }));
    const slider = el("input", { type: "range", class: "pulse-moment", min: "0", autocomplete: "off", "aria-label": `${watcher}: ${text("history.moment")}` });
    const nodes = this.parts.map(({ title, value, curve }) => el("div", { class: "pulse-part" }, el("span", { class: "muted" }, title, value), curve.node));
    [this.errors, , this.disk] = nodes.slice(1);
    this.pace = el("span", { class: "muted" });
    this.disk.append(this.pace);
    for (const { curve } of this.parts) set(curve.node, "preserveAspectRatio", "none");
    this.node = el("div", { class: "pulse" }, ...nodes, slider);
    this.crosshair = new Crosshair(this.node, this.parts.map(({ curve }) => curve), slider, (time, values) => this.say(time, values));
  }

  update(past, serves, output) {
    const series = past?.pulse;
    show(this.disk, Boolean(output?.reason || past?.filling));
    set(this.disk, "data-tone", output?.reason ? "bad" : null);
    write(this.pace, past?.filling ? paceOf(past.filling, Boolean(output?.reason)) : "");
    const folder = output?.file?.match(/^(.*)\/[^/]*$/)?.[1];
    if (folder) this.parts[3].name = text("chart.disk.of", { folder });
    if (!series || (series === this.drawn && serves === this.serves)) return;
    [this.drawn, this.serves, this.span, this.now] = [series, serves, spanOf(past), past.now];
    for (const { curve } of this.parts) curve.draw(series, this.span, past.cells[past.cells.length - 1].until);
    set(this.errors, "data-tone", series.errors.some((each) => each > 0) ? "bad" : null);
    this.crosshair.update(series.t);
  }

  say(time, values) {
    const shownParts = this.parts.filter(({ kind }) => kind !== "disk" || !this.disk.hidden);
    return shownParts.map(({ kind, name, title, value }, at) => {
      write(title, `${name} · ${time === null ? rangeName(this.span) : timeOf(time)}`);
      // The last point of a long range is the mean of minutes: beside "nothing serves" stands what is now.
      const isDisk = kind === "disk"; // which is full without workers, too
      const last = shown(kind, isDisk || this.serves ? this.now?.[kind] ?? null : null);
      write(value, (time === null ? last || (isDisk && values[at]) : values[at]) || "–");
      return `${name} ${value.textContent}`;
    });
  }
}

/** How a disk fills, in words. */
function paceOf({ lost, within, full_in: fullIn }, isFull) {
  const words = { lost: bytes(lost), within: duration(within), full_in: duration(fullIn) };
  return text(fullIn > 0 && !isFull ? "chart.disk.full" : "chart.disk.pace", words);
}

class Cell {
  constructor(parent, at) {
    this.title = svg("title");
    this.node = svg("rect", { x: at * 5 + 0.5, y: 0, width: 4, height: 20, rx: 1 }, this.title);
    parent.append(this.node);
  }

  update({ word: verdict, since, until, ...cause }) {
    set(this.node, "data-tone", TONES[verdict]);
    const why = verdict === "none" ? text("beats.unknown") : reasonIn(cause) || word("verdict", verdict);
    write(this.title, `${timeOf(since)} – ${timeOf(until)}: ${why}`);
  }
}
