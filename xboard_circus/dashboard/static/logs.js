// Logs: the end of a file or of a watcher's files with what is written to them, or the lines around a time.
// Lines are text, whatever they hold. The address has what is shown: #logs/SERVER/FILE/LINE/LEVEL/SLOT/FILTER.

import { coloured, plain } from "./ansi.js";
import { address, get, Refused } from "./api.js";
import { choose, keepAddress, offer, offerServers } from "./choices.js";
import { el, set, show, write } from "./dom.js";
import { LineList, MOST } from "./lines.js";
import { reasonIn } from "./reason.js";
import { listen } from "./stream.js";
import { bytes, count, text, timeOf } from "./text.js";

const FIRST = 500;
const PAGE = 1000; // lines of each further question
const MOST_AT_ONCE = 2000; // lines of a question while a log is saved
const MOST_SAVED = 256 << 20; // characters
const AGAIN = 2000;
const SOON = 300; // ms without scrolling until the address has the line
const HUES = 6; // of workers, by their slots
const LEVELS = [["", "logs.level.all"], ["20", "logs.level.info"], ["30", "logs.level.warning"], ["40", "logs.level.error"]];
const $ = (id) => document.getElementById(id);

export class Logs {
  constructor() {
    this.isLive = true;
    for (const name of ["server", "file", "level", "slot", "filter", "time", "wrap", "pause", "newest", "download"]) this[name] = $(`logs-${name}`);
    offer(this.level, LEVELS.map(([value, key]) => [value, text(key)]));
    this.slots = new Map(); // by pid
    this.turn = 0;
    this.waiting = [];
    this.when = ""; // the line that the address names: TIME, all of that second, or TIME~N, the one behind N of that time
    this.list = new LineList($("log"), (line) => this.lineNode(line), {
      top: () => this.older(),
      bottom: () => this.newer(),
      moved: () => this.keepPlace(),
      dropped: () => (this.begin = null), // what comes before the first line is no longer known
      drawn: () => {
        this.drawFoot();
        if (this.isOpen && this.list.isShort) this.older();
      },
      isLive: () => this.isLive,
    });
    this.setWrap(localStorage.getItem("xboard_wrap") !== "off");
    this.server.addEventListener("change", () => this.listFiles());
    this.file.addEventListener("change", () => this.choose(""));
    for (const each of [this.level, this.slot]) each.addEventListener("change", () => this.refilter());
    this.filter.addEventListener("input", () => {
      this.isLinked = false;
      this.refilter();
    });
    this.time.addEventListener("change", () => this.time.value && this.choose(String(new Date(this.time.value).getTime() / 1000)));
    this.wrap.addEventListener("click", () => this.setWrap(!this.list.wraps));
    this.pause.addEventListener("click", () => this.setPaused(!this.isPaused));
    this.newest.addEventListener("click", () => (this.isLive ? this.list.toEnd() : this.choose("")));
    this.download.addEventListener("click", () => this.save());
    $("log").addEventListener("click", ({ target }) => this.mark(target.closest(".line")));
    document.addEventListener("visibilitychange", () => this.isOpen && this.isLive && (document.hidden ? this.stop() : this.follow()));
  }

  /** Open the view, perhaps at one log, or that of a watcher, of one circusd; at a line; and filtered. */
  open(serverId, file, when = "", level = "", slot = "", filter = "") {
    if (serverId) {
      choose(this.server, serverId);
      choose(this.level, level);
      choose(this.slot, slot);
      if (this.filter.value !== filter) this.isLinked = true; // one that another made: an expression could take for ever
      this.filter.value = filter;
    }
    this.fileWished = file || null;
    this.when = when;
    this.isOpen = true;
    this.listFiles();
  }

  close() {
    this.isOpen = false;
    this.stop();
  }

  update({ servers }) {
    const before = this.server.value;
    this.servers = servers;
    offerServers(this.server, $("logs-server-field"), servers);
    this.learnWorkers();
    if (this.isOpen && before !== this.server.value) this.listFiles();
  }

  async listFiles() {
    if (!this.server.value) return;
    try {
      const { files } = await get("api/logs", { server: this.server.value });
      this.files = withTogether(files);
      offer(this.file, this.files.map((file) => [file.id, reasonIn(file, "title") || file.id]));
      const wished = this.files.find(({ id }) => id === this.fileWished) ?? this.files.find(({ watcher }) => watcher === this.fileWished);
      if (this.fileWished && wished) this.file.value = wished.id;
      this.fileWished = null;
      this.notify(files.length ? "" : text("logs.none"));
      this.restart();
    } catch (refused) {
      this.notify(this.failure(refused));
    }
  }

  /** Show another file, or another time of it; "" is its end. */
  choose(when) {
    this.when = when;
    this.restart();
    this.keepAddress();
  }

  restart() {
    this.stop();
    [this.waiting, this.leftOut, this.begin, this.end] = [[], 0, null, null];
    this.setPaused(false);
    [this.isLive, this.isMarked] = [!this.when, false];
    this.list.reset();
    this.list.follows = this.isLive;
    this.setFilter();
    this.learnWorkers();
    if (this.isOpen && this.file.value) this.isLive ? this.readEnd() : this.jump();
  }

  stop() {
    this.turn += 1;
    this.isAsking = false;
    this.source?.();
    this.source = null;
    set($("log"), "data-following", null);
    clearTimeout(this.timer);
  }

  get path() {
    return `api/logs/${encodeURIComponent(this.file.value)}`;
  }

  /** Ask for a page of lines and use it, unless something else was chosen meanwhile. */
  async ask(query, use, again) {
    if (this.isAsking) return;
    this.isAsking = true;
    const turn = this.turn;
    try {
      const page = await get(this.path, { server: this.server.value, lines: PAGE, ...query });
      if (turn !== this.turn) return;
      this.notify("");
      this.learn(page.slots);
      this.isAsking = false;
      use(page, linesOf(page.lines));
    } catch (refused) {
      if (turn !== this.turn) return;
      this.isAsking = false;
      this.notify(this.failure(refused));
      if (again) this.timer = setTimeout(again, AGAIN);
    }
  }

  readEnd() {
    this.ask({ lines: FIRST }, ({ begin, end }, lines) => {
      [this.begin, this.end] = [begin, end];
      this.list.reset(lines);
      this.follow();
    }, () => this.readEnd());
  }

  jump() {
    const [time, nth] = this.when.split("~").map(Number);
    const second = Math.floor(time) || 0;
    this.ask({ at: second }, ({ begin, end, older }, lines) => {
      [this.begin, this.end] = [begin, end];
      const wanted = nth === undefined ? lines.filter((line) => Math.floor(line.time) === second) : lines.filter((line) => line.time === time).slice(nth, nth + 1);
      for (const line of wanted) line.isMarked = true;
      this.isMarked = wanted.length > 0;
      this.list.reset(lines);
      if (lines.length) this.list.bring(wanted[0] ?? lines[Math.min(older, lines.length - 1)]);
    }, () => this.jump());
  }

  older() {
    if (!this.begin || this.list.isFull) return;
    this.ask({ before: this.begin }, ({ begin }, lines) => {
      this.begin = lines.length ? begin : null;
      this.list.prepend(lines);
    });
  }

  newer() {
    if (!this.end) return;
    this.ask({ after: this.end }, ({ end }, lines) => {
      this.end = end;
      this.list.append(lines);
    });
  }

  /** Read what is written behind the last line. */
  follow() {
    if (!this.end || this.source) return;
    this.source = listen(address(`${this.path}/stream`, { server: this.server.value, after: this.end }), {
      begun: () => {
        this.notify("");
        set($("log"), "data-following", "yes");
      },
      note: (note) => {
        this.leftOut += note.left_out ?? 0;
        this.hear([[null, 30, null, reasonIn(note)]]);
      },
      lines: ({ lines, end }) => {
        this.end = end;
        this.hear(lines);
      },
      error: () => {
        // Nothing is cleared before the server answers again: the old lines are worth more than an empty frame.
        this.stop();
        this.notify(text("logs.lost"));
        this.timer = setTimeout(() => this.follow(), AGAIN);
      },
    });
  }

  hear(rows) {
    const above = this.waiting[this.waiting.length - 1] ?? this.list.lines[this.list.lines.length - 1];
    const lines = linesOf(rows, above?.time);
    if (!this.isPaused) return this.list.append(lines);
    this.waiting = [...this.waiting, ...lines].slice(-MOST);
    this.drawFoot();
  }

  /** Learn which slots pids have, and offer these. */
  learn(slots) {
    const before = this.slots.size;
    for (const [pid, slot] of Object.entries(slots)) this.slots.set(String(pid), slot);
    if (this.slots.size === before) return;
    const known = [...new Set(this.slots.values())].sort((a, b) => a - b);
    const chosen = this.slot.value;
    offer(this.slot, [["", text("history.all")], ...known.map((slot) => [String(slot), `#${slot}`])]);
    if (chosen !== this.slot.value) this.setFilter();
    this.list.remake();
  }

  learnWorkers() {
    const watchers = this.servers?.find(({ id }) => id === this.server.value)?.watchers ?? [];
    const writer = this.files?.find(({ id }) => id === this.file.value)?.watcher;
    const workers = watchers.find(({ name }) => name === writer)?.workers ?? [];
    this.learn(Object.fromEntries(workers.filter(({ pid, slot }) => pid && slot).map(({ pid, slot }) => [pid, slot])));
  }

  slotOf(line) {
    return this.slots.get(String(line.pid));
  }

  refilter() {
    this.setFilter();
    this.keepAddress();
  }

  setFilter() {
    const level = Number(this.level.value);
    const { value } = this.filter;
    const [pattern, isRight] = patternOf(value, this.isLinked);
    set(this.filter, "aria-invalid", isRight ? null : "true");
    this.list.filter((line) => line.level >= level && (!this.slot.value || this.slotOf(line) === Number(this.slot.value)) && (!value || pattern.test(plain(line.text))));
  }

  setWrap(wanted) {
    localStorage.setItem("xboard_wrap", wanted ? "on" : "off");
    set(this.wrap, "aria-pressed", String(wanted));
    set($("log"), "data-wraps", wanted);
    this.list.wraps = wanted;
    this.list.arrange();
  }

  setPaused(wanted) {
    this.isPaused = wanted;
    set(this.pause, "aria-pressed", String(wanted));
    write(this.pause, text(wanted ? "logs.resume" : "logs.pause"));
    if (!wanted) this.list.append(this.waiting.splice(0));
    this.drawFoot();
  }

  lineNode(line) {
    const slot = this.slotOf(line);
    const tone = line.level >= 40 ? "bad" : line.level >= 30 ? "warn" : null;
    const name = slot ? `#${slot}` : line.pid ? String(line.pid) : "";
    const look = { class: "line", "data-tone": tone, "data-hue": slot ? slot % HUES : null, "data-marked": line.isMarked };
    return el("div", look, el("span", { class: "line-slot" }, name), ...coloured(line.text));
  }

  /** Mark the line of a node, and have the address name it. */
  mark(node) {
    if (!node || !getSelection().isCollapsed) return;
    const line = this.list.lineOf(node);
    for (const each of this.list.lines) each.isMarked = each === line;
    this.isMarked = true;
    this.list.remake();
    if (line.time !== null) this.keepAddress((this.when = this.nameOf(line)));
  }

  nameOf(line) {
    const at = this.list.lines.indexOf(line);
    let first = at;
    while (first > 0 && this.list.lines[first - 1].time === line.time) first -= 1;
    return `${line.time}~${at - first}`;
  }

  /** Have the address name the first line in view, soon, where the end is not. */
  keepPlace() {
    clearTimeout(this.placeTimer);
    show(this.newest, !this.list.follows);
    this.placeTimer = setTimeout(() => {
      const line = this.list.firstInView();
      if (this.isOpen && !this.isMarked) this.keepAddress(this.list.follows || !line?.time ? "" : this.nameOf(line));
    }, SOON);
  }

  keepAddress(when = this.when) {
    keepAddress("logs", this.server.value, this.file.value, when, this.level.value, this.slot.value, this.filter.value);
  }

  /** Save all lines of the file that fit, its rotated ones too, from the chosen time on; pressed again, give it up. */
  async save() {
    if (this.isSaving) return void (this.isSaving = false);
    this.isSaving = true;
    const { path, list: { fits } } = this;
    const [begun, from] = [Date.now() / 1000, this.isLive ? 0 : Math.floor(Number(this.when.split("~")[0])) || 0];
    const name = this.nameOfSaved(begun, from);
    let [parts, size, isEnd, query] = [[], 0, false, from ? { at: from } : { after: "begin" }];
    try {
      while (this.isSaving && !isEnd) {
        write(this.download, text("logs.saving", { size: bytes(size) }));
        const page = await get(path, { server: this.server.value, lines: MOST_AT_ONCE, ...query });
        this.learn(page.slots);
        const lines = linesOf(page.lines).slice(page.older ?? 0);
        isEnd = !lines.length || lines[lines.length - 1].time > begun || size > MOST_SAVED;
        const words = lines.filter(fits).map((line) => `${plain(line.text)}\n`).join("");
        parts.push(new Blob([size > MOST_SAVED ? text("logs.cut", { size: bytes(size) }) : words]));
        [size, query] = [size + words.length, { after: page.end }];
      }
      if (isEnd) saveAs(name, new Blob(parts, { type: "text/plain" }));
    } catch (refused) {
      this.notify(this.failure(refused));
    }
    this.isSaving = false;
    write(this.download, text("logs.download"));
  }

  /** A name that says which log it is, from when on, filtered by what, and when it was saved. */
  nameOfSaved(begun, from) {
    const { level, slot, filter } = this;
    const chosen = [from && `from-${stampOf(from)}`, level.value && `level-${level.value}`, slot.value && `slot-${slot.value}`, filter.value && "filtered"];
    return [this.file.value.replaceAll(",", "-"), ...chosen, stampOf(begun), "log"].filter(Boolean).join(".");
  }

  drawFoot() {
    const { shown, lines } = this.list;
    const said = [text("logs.lines", { shown: count(shown.length), kept: count(lines.length), limit: count(MOST) })];
    if (this.leftOut) said.push(text("logs.left_out", { count: count(this.leftOut) }));
    if (this.isPaused) said.push(text("logs.paused", { count: count(this.waiting.length) }));
    if (!this.isLive && this.when) said.push(text("logs.at", { time: timeOf(Number(this.when.split("~")[0])) }));
    write($("log-foot"), said.join(" · "));
    show(this.newest, !this.list.follows);
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

/** The lines of what the server sends; one without a time has that of the line above. */
const linesOf = (rows, above = null) => rows.map(([time, level, pid, words]) => ({ time: (above = time ?? above), level, pid, text: words.replaceAll("\t", "    ") }));

/** A local time as it may stand in the name of a file. */
const stampOf = (seconds) => new Date((seconds - 60 * new Date(seconds * 1000).getTimezoneOffset()) * 1000).toISOString().slice(0, 19).replaceAll(":", "-");

function saveAs(name, blob) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), AGAIN);
}

/** The files, and for each watcher that writes several one entry for all of them. */
function withTogether(files) {
  const names = [...new Set(files.map(({ watcher }) => watcher))].filter((name) => name && files.filter(({ watcher }) => watcher === name).length > 1);
  const together = names.map((name) => ({ id: files.filter(({ watcher }) => watcher === name).map(({ id }) => id).join(","), watcher: name, title: text("logs.together", { name }) }));
  return [...files, ...together];
}

/** What finds a text, and where the reader has typed a regular expression that too; and whether it is one. */
function patternOf(value, isPlain) {
  const literal = value.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  if (isPlain) return [new RegExp(literal, "i"), true];
  try {
    return [new RegExp(`${literal}|${new RegExp(value).source}`, "i"), true];
  } catch {
    return [new RegExp(literal, "i"), false];
  }
}
