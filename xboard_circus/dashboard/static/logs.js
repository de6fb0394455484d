// Live logs: the end of one file, and what is written to it while the view is open. Lines are text, whatever they hold.
// New lines are collected and drawn once a frame: drawn one by one, 500 of them cost 1,125 forced layouts.

import { address, get, Refused } from "./api.js";
import { choose, offer, offerServers } from "./choices.js";
import { el, set, show, write } from "./dom.js";
import { reasonIn } from "./reason.js";
import { listen } from "./stream.js";
import { count, text } from "./text.js";

const MOST = 2000; // lines kept
const FAR = 1e9; // pixels: beyond any end, so that the height need not be read
const FIRST = 300;
const AGAIN = 2000;
const $ = (id) => document.getElementById(id);
const BAD = /\b(ERROR|CRITICAL|FATAL|Traceback)\b/;
const ODD = /\b(WARNING|WARN)\b/;

export class Logs {
  constructor() {
    this.server = $("logs-server");
    this.file = $("logs-file");
    this.filter = $("logs-filter");
    this.pause = $("logs-pause");
    this.log = $("log");
    this.lines = [];
    this.waiting = [];
    this.fresh = [];
    this.frame = null;
    this.follows = true; // the end is in view: kept from the last scrolling, since to measure it forces a layout
    this.turn = 0;
    this.paused = false;
    this.server.addEventListener("change", () => this.listFiles());
    this.file.addEventListener("change", () => this.restart());
    this.filter.addEventListener("input", () => this.redraw());
    this.pause.addEventListener("click", () => this.setPaused(!this.paused));
    $("logs-newest").addEventListener("click", () => this.toNewest());
    this.log.addEventListener("scroll", () => this.setFollows(this.isAtEnd()));
    document.addEventListener("visibilitychange", () => this.isOpen && (document.hidden ? this.stop() : this.restart()));
  }

  /** Open the view, perhaps at the log of one watcher of one circusd. */
  open(serverId, watcherName) {
    if (serverId) choose(this.server, serverId);
    this.watcherWished = watcherName || null;
    this.isOpen = true;
    this.listFiles();
  }

  close() {
    this.isOpen = false;
    this.stop();
  }

  update(state) {
    const before = this.server.value;
    offerServers(this.server, $("logs-server-field"), state.servers);
    if (this.isOpen && before !== this.server.value) this.listFiles();
  }

  async listFiles() {
    if (!this.server.value) return;
    try {
      const { files } = await get("api/logs", { server: this.server.value });
      offer(this.file, files.map((file) => [file.id, reasonIn(file, "title") || file.id]));
      const wished = this.watcherWished && files.find(({ watcher }) => watcher === this.watcherWished);
      if (wished) this.file.value = wished.id;
      this.watcherWished = null;
      this.notify(files.length ? "" : text("logs.none"));
      this.restart();
    } catch (refused) {
      this.notify(this.failure(refused));
    }
  }

  /** Show the chosen file from its end on. */
  restart() {
    this.stop();
    this.waiting = [];
    this.setPaused(false);
    this.lines = [];
    this.redraw();
    if (this.isOpen && this.file.value) this.follow(this.turn);
  }

  stop() {
    this.turn += 1;
    this.source?.();
    this.source = null;
    set(this.log, "data-following", null);
    clearTimeout(this.timer);
    cancelAnimationFrame(this.frame);
    [this.frame, this.fresh] = [null, []];
  }

  follow(turn) {
    const path = `api/logs/${encodeURIComponent(this.file.value)}`;
    const server = this.server.value;
    // The stream first and the end of the file second: what is written in between comes twice, and is seen to.
    this.early = [];
    this.source = listen(address(`${path}/stream`, { server }), {
      note: (note) => this.hear([reasonIn(note)]),
      lines: (lines) => this.hear(lines),
      begun: () => this.fetchEnd(path, server, turn),
      error: () => this.againSoon(text("logs.lost")),
    });
  }

  // Nothing is cleared before the server answers again: the old lines are worth more than an empty frame.
  againSoon(why) {
    this.stop();
    this.notify(why);
    this.timer = setTimeout(() => this.follow(this.turn), AGAIN);
  }

  async fetchEnd(path, server, turn) {
    try {
      const { lines } = await get(path, { server, lines: FIRST });
      if (turn !== this.turn) return;
      this.notify("");
      this.lines = [];
      this.log.replaceChildren();
      const early = this.early;
      this.early = null;
      this.add([...lines, ...early.slice(overlap(lines, early))]);
      this.toNewest();
      set(this.log, "data-following", "yes");
    } catch (refused) {
      if (turn === this.turn) this.againSoon(this.failure(refused));
    }
  }

  hear(lines) {
    if (this.early) return void (this.early = newest([...this.early, ...lines]));
    if (this.paused) {
      this.waiting = newest([...this.waiting, ...lines]);
      return void this.drawFoot();
    }
    this.fresh = newest([...this.fresh, ...lines]);
    this.frame ??= requestAnimationFrame(() => this.flush());
  }

  flush() {
    const lines = this.fresh;
    [this.frame, this.fresh] = [null, []];
    this.add(lines);
  }

  add(lines) {
    this.lines = newest([...this.lines, ...lines]);
    this.log.append(...lines.filter((line) => this.fits(line)).map(lineNode));
    for (let excess = this.log.childElementCount - MOST; excess > 0; excess -= 1) this.log.firstElementChild.remove();
    if (this.follows) this.log.scrollTop = FAR;
    this.drawFoot();
  }

  redraw() {
    this.log.replaceChildren(...this.lines.filter((line) => this.fits(line)).map(lineNode));
    this.toNewest();
    this.drawFoot();
  }

  fits(line) {
    return line.toLowerCase().includes(this.filter.value.toLowerCase());
  }

  setPaused(wanted) {
    this.paused = wanted;
    set(this.pause, "aria-pressed", String(wanted));
    write(this.pause, text(wanted ? "logs.resume" : "logs.pause"));
    const waiting = this.waiting;
    this.waiting = [];
    if (!wanted && waiting.length) this.hear(waiting);
    this.drawFoot();
  }

  isAtEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 24;
  }

  toNewest() {
    this.log.scrollTop = FAR;
    this.setFollows(true);
  }

  setFollows(wanted) {
    this.follows = wanted;
    show($("logs-newest"), !wanted);
  }

  drawFoot() {
    const figures = { shown: count(this.log.childElementCount), kept: count(this.lines.length), limit: count(MOST) };
    const waits = this.paused ? ` · ${text("logs.paused", { count: count(this.waiting.length) })}` : "";
    write($("log-foot"), text("logs.lines", figures) + waits);
  }

  notify(words) {
    write($("logs-notice"), words);
    show($("logs-notice"), Boolean(words));
  }

  failure(refused) {
    if (!(refused instanceof Refused)) throw refused;
    return text("logs.failed", { message: refused.message });
  }
}

const newest = (lines) => (lines.length > MOST ? lines.slice(-MOST) : lines);

function lineNode(line) {
  return el("div", { class: "line", "data-tone": BAD.test(line) ? "bad" : ODD.test(line) ? "warn" : null }, line);
}

/** How many of the first `early` lines are the last ones of `lines`. */
function overlap(lines, early) {
  for (let size = Math.min(lines.length, early.length); size > 0; size -= 1) {
    const end = lines.slice(lines.length - size);
    if (end.every((line, at) => line === early[at])) return size;
  }
  return 0;
}
