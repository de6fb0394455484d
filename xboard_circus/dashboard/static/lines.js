// A list of up to 50,000 lines of a log, of which only those in view are in the page.
// All that changes is drawn once a frame, and no size is read for it: each reading would force a layout.

import { plain } from "./ansi.js";
import { el, Keyed, set } from "./dom.js";

export const MOST = 50000;
const MOST_CHARS = 20e6;
const ROW = 20; // pixels, as in page.css
const BEYOND = 30; // rows that are drawn above and below those in view
const NEAR = 300; // pixels from an end, at which more is wanted
const FAR = 1e9; // pixels: beyond any end
const MARGIN = 72; // pixels of a line beside its text, as in page.css

export class LineList {
  /** `make(line)` makes the node of a line `{text}`; `heard` has `top`, `bottom` and `moved`, called as one scrolls. */
  constructor(node, make, heard) {
    this.node = node;
    this.heard = heard;
    this.above = el("div");
    this.below = el("div");
    const body = el("div");
    const probe = el("div", { class: "log-probe", "aria-hidden": "true" }, "0".repeat(100));
    node.append(this.above, body, this.below, probe);
    this.nodes = new Keyed(body, (line) => line, (line) => ({ node: make(line), update() {} }));
    this.fits = () => true;
    this.wraps = true;
    this.follows = true;
    [this.width, this.height, this.letter] = [800, 600, 7.5];
    this.frame = null;
    this.reset();
    const sizes = new ResizeObserver((entries) => {
      for (const { target, contentRect } of entries) {
        if (target === probe) this.letter = contentRect.width / 100;
        else [this.width, this.height] = [contentRect.width, contentRect.height];
      }
      if (this.width && this.letter) this.arrange();
    });
    for (const each of [node, probe]) sizes.observe(each);
    node.addEventListener("scroll", () => this.hearScroll());
  }

  /** Begin with these lines. */
  reset(lines = []) {
    this.lines = [];
    this.shown = []; // those that fit, each with its `top` in rows
    [this.begin, this.end, this.chars, this.top, this.shift] = [0, 0, 0, 0, 0];
    this.nodes.update([]);
    this.append(lines);
  }

  append(lines) {
    for (const line of lines) {
      this.lines.push(line);
      this.chars += line.text.length;
      if (this.fits(line)) this.place(line);
    }
    this.drop();
    this.draw();
  }

  /** Put older lines in front; the ones in view stay where they are. */
  prepend(lines) {
    const before = this.begin;
    const fitting = lines.filter((line) => this.fits(line));
    for (const line of fitting.toReversed()) line.top = this.begin -= this.rowsOf(line);
    this.lines = [...lines, ...this.lines];
    this.shown = [...fitting, ...this.shown];
    this.chars += lines.reduce((sum, line) => sum + line.text.length, 0);
    this.shift += (before - this.begin) * ROW;
    this.draw();
  }

  lineOf(node) {
    return [...this.nodes.views].find(([, view]) => view.node === node)?.[0];
  }

  get isFull() {
    return this.lines.length >= MOST || this.chars >= MOST_CHARS;
  }

  /** Fewer lines fit than the view has room for. */
  get isShort() {
    return (this.end - this.begin) * ROW < this.height;
  }

  /** Show only the lines that fit; the first line in view stays there. */
  filter(fits) {
    this.fits = fits;
    this.arrange();
  }

  /** Make all nodes anew. */
  remake() {
    this.nodes.update([]);
    this.draw();
  }

  /** Give each line that fits its place anew, as the width or the filter is another. */
  arrange() {
    const first = this.firstInView();
    this.shown = [];
    [this.begin, this.end] = [0, 0];
    let [isPassed, next] = [false, null];
    for (const line of this.lines) {
      isPassed ||= line === first;
      if (!this.fits(line)) continue;
      this.place(line);
      if (isPassed) next ??= line;
    }
    if (next && !this.follows) this.bring(next, 0);
    else this.draw();
  }

  firstInView() {
    return this.shown[this.indexAt(this.begin + Math.ceil(this.top / ROW))];
  }

  toEnd() {
    this.follows = true;
    this.draw();
  }

  /** Bring a line to a part of the view's height; one that the filter hides has no place. */
  bring(line, part = 1 / 3) {
    this.follows = false;
    if (this.fits(line)) this.shift = (line.top - this.begin) * ROW - this.height * part - this.top;
    this.draw();
  }

  place(line) {
    line.top = this.end;
    this.end += this.rowsOf(line);
    this.shown.push(line);
  }

  rowsOf(line) {
    if (!this.wraps) return 1;
    const words = plain(line.text);
    const wide = /^[\x20-\x7e]*$/.test(words) ? 0 : words.replace(/[^\u1100-\uffdc]/g, "").length;
    return Math.max(1, Math.ceil((words.length + wide * 0.7) / Math.floor((this.width - MARGIN) / this.letter)));
  }

  /** Drop the oldest lines where there are too many. */
  drop() {
    let count = Math.max(0, this.lines.length - MOST);
    for (let at = 0; at < count || this.chars > MOST_CHARS; at += 1) {
      this.chars -= this.lines[at].text.length;
      this.lines[at].isGone = true;
      count = Math.max(count, at + 1);
    }
    if (!count) return;
    this.lines.splice(0, count);
    const kept = this.shown.findIndex((line) => !line.isGone);
    this.shown.splice(0, kept < 0 ? this.shown.length : kept);
    const begin = this.shown[0]?.top ?? this.end;
    this.shift -= (begin - this.begin) * ROW;
    this.begin = begin;
    this.heard.dropped();
  }

  indexAt(row) {
    let [low, high] = [0, this.shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].top < row) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { begin, end, shown } = this;
    const isMoved = this.shift !== 0;
    const last = Math.max(0, (end - begin) * ROW - this.height);
    this.top = this.follows ? last : Math.min(Math.max(0, this.top + this.shift), last);
    this.shift = 0;
    const from = begin + Math.floor(this.top / ROW) - BEYOND;
    const first = Math.max(0, this.indexAt(from) - 1);
    const behind = this.indexAt(from + this.height / ROW + 2 * BEYOND);
    this.nodes.update(shown.slice(first, behind));
    this.above.style.height = `${((shown[first]?.top ?? begin) - begin) * ROW}px`;
    this.below.style.height = `${(end - (shown[behind]?.top ?? end)) * ROW}px`;
    if (this.follows) this.node.scrollTop = FAR;
    else if (isMoved) this.node.scrollTop = this.top;
    this.heard.drawn();
  }

  hearScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.node;
    this.follows = this.heard.isLive() && scrollHeight - scrollTop - clientHeight < 24;
    this.top = scrollTop;
    this.draw();
    if (!this.follows && scrollTop < NEAR) this.heard.top();
    if (!this.heard.isLive() && scrollHeight - scrollTop - clientHeight < NEAR) this.heard.bottom();
    this.heard.moved();
  }
}
