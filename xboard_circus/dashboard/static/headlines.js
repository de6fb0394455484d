// The first lines of the page: for each trouble what is wrong, since when, why, what is next, what to do; or all is well.
// The server makes the sentences, which the terminal and the alerts share.

import { actionButton, allow } from "./actions.js";
import { Badge, toneOf } from "./badges.js";
import { copyButton } from "./copy.js";
import { Keyed, el, set, show, write, writeCode } from "./dom.js";
import { reasonIn } from "./reason.js";
import { MAY_ACT } from "./session.js";
import { text, word } from "./text.js";

const MOST = 4; // lines; the cards show the others

/** Whether a line is of something that a person should look at. */
export const isTrouble = ({ line }) => line !== undefined && ["bad", "warn"].includes(toneOf(line.word));

/** The identity of a line: its word may change, its buttons stay. */
export const placeOf = ({ server, line }) => `${server.id}/${line.watcher}`;

/** What a line has become whose trouble is over. */
export const overWords = ({ server, line }) => text("notify.over", { name: line.watcher || server.label });

export class Headlines {
  constructor(node) {
    this.node = node;
    this.lines = new Keyed(node, placeOf, (item) => new Line(item));
    this.all = [];
    this.shown = [];
  }

  /** Show the lines of all circusds; that all is well only where no circusd has trouble. */
  update(servers) {
    const all = servers.flatMap((server) => (server.headlines ?? []).map((line) => ({ server, line })));
    const troubled = all.filter(isTrouble);
    this.all = troubled;
    this.shown = this.inPlace((troubled.length ? all.filter(({ line }) => line.word !== "ok") : all).slice(0, MOST));
    for (const { line } of this.shown) line.isFirst = true;
    this.lines.update(this.shown);
    set(document.documentElement, "data-trouble", troubled.length > 0);
  }

  /** The lines in their places while the pointer is on one: a new one comes below, what is over leaves its own empty. */
  inPlace(lines) {
    const isPointedAt = this.node.matches(":hover");
    this.node.style.minHeight = isPointedAt ? `${this.node.offsetHeight}px` : "";
    if (!isPointedAt || !lines.some(isTrouble)) return lines;
    const fresh = new Map(lines.map((item) => [placeOf(item), item]));
    const kept = this.shown.filter((item) => item.isOver || isTrouble(item)).map((item) => fresh.get(placeOf(item)) ?? over(item));
    return [...new Set([...kept, ...lines])];
  }

  /** The part of the page's title that names the trouble; empty without any. */
  title() {
    if (this.all.length > 1) return text("title.trouble", { count: this.all.length });
    return this.all.map(({ server, line }) => text("title.one", { name: line.watcher || server.label, verdict: word("verdict", line.word) }))[0] ?? "";
  }

  /** The worst tone, for the icon of the page. */
  tone() {
    const tones = this.all.map(({ line }) => toneOf(line.word));
    return ["bad", "warn"].find((tone) => tones.includes(tone)) ?? "good";
  }
}

/** The line of one watcher; undefined where nothing is to be said of it. */
export const lineOf = (server, name) => server.headlines?.find(({ watcher }) => watcher === name);

/** All of a line, for a card whose watcher is not among the first. */
export const sentencesOf = ({ lines }) => lines.map((each) => reasonIn(each)).join(text("sentence.between"));

const over = (item) => ({ ...item, isOver: true, line: { ...item.line, word: "ok", lines: [{ reason: overWords(item) }], slot: null, command: "" } });

class Line {
  constructor(item) {
    this.item = item;
    this.badge = new Badge("verdict");
    this.head = el("strong");
    this.rest = el("span", { class: "headline-rest" });
    this.why = el("a", { class: "button" }, text("headline.why"));
    this.log = el("a", { class: "button" }, text("headline.log"));
    this.retry = actionButton({ words: text("do.retry"), look: "main", action: "retry_all", details: () => this.details() });
    this.start = actionButton({ words: text("do.start"), look: "main", action: "start", details: () => this.details() });
    this.copy = copyButton(() => this.item.line.command);
    this.node = el("div", { class: "headline", "data-part": "headline" }, el("p", {}, this.badge.icon, this.head, this.rest), el("span", { class: "actions" }, this.retry, this.start, this.copy, this.why, this.log));
  }

  details() {
    const { server, line } = this.item;
    return { server: server.id, watcher: line.watcher };
  }

  update(item) {
    this.item = item;
    this.node.style.minHeight = item.isOver ? `${this.node.offsetHeight}px` : "";
    const { server, line } = item;
    this.badge.update(line.word);
    set(this.node, "data-tone", toneOf(line.word));
    set(this.node, "data-verdict", line.word);
    const [head, ...rest] = line.lines.map((each) => reasonIn(each));
    write(this.head, head);
    writeCode(this.rest, rest.join(text("sentence.between")));
    const place = [server.id, line.watcher].map(encodeURIComponent).join("/");
    set(this.log, "href", `#logs/${place}`);
    set(this.why, "href", `#timeline/${place}`);
    show(this.why, server.has_ledger && line.word !== "ok" && line.watcher !== "");
    show(this.log, server.has_logs && line.word !== "ok" && line.watcher !== "");
    show(this.retry, MAY_ACT && line.slot !== null);
    allow(this.retry, line.slot !== null);
    show(this.start, MAY_ACT && ["stopped", "nothing_serves"].includes(line.word));
    show(this.copy, line.command !== "");
    set(this.copy, "title", line.command);
  }
}
