// The ledger as a timeline, newest first; what happens while it is open comes in by itself.

import { get, poll, Refused } from "./api.js";
import { Badge } from "./badges.js";
import { choose, keepAddress, offer, offerServers, WatcherView } from "./choices.js";
import { Keyed, el, set, show, write, writeCode } from "./dom.js";
import { reasonIn } from "./reason.js";
import { tell } from "./story.js";
import { count, duration, fullTime, text, timeOf, word } from "./text.js";
import { rangeName } from "./trends.js";

const EVERY = 2000;
const FIRST = 100;
const MOST = 1000;
const RANGES = [3600, 86400, 604800];
const KINDS = ["restart", "cooldown", "recovered", "unhealthy", "port_freed", "port_refused", "port_shared", "port_shut", "replace", "kept", "reload_begin", "output_lost", "output_back", "slow_request", "poison", "before_done", "before_failed", "preflight_failed", "reload_end", "circusd_lost", "circusd_back", "host_restarted", "command", "ready", "end", "spawn", "reap", "kill", "start", "stop"];
const DEATHS = ["restart", "end", "unhealthy"]; // with a link to the log of that second
const $ = (id) => document.getElementById(id);

export class Timeline extends WatcherView {
  constructor() {
    super();
    this.server = $("timeline-server");
    this.watcher = $("timeline-watcher");
    this.kind = $("timeline-kind");
    this.range = $("timeline-range");
    this.events = [];
    this.limit = FIRST;
    this.turn = 0;
    this.text = $("timeline-text");
    this.incidents = [];
    this.list = keyed($("events"), this);
    this.older = el("button", { type: "button", class: "button", hidden: true }, text("timeline.older"));
    this.older.addEventListener("click", () => this.reload(Math.min(this.limit * 3, MOST)));
    $("events").after(el("p", { class: "below" }, this.older));
    offer(this.kind, [["", text("kind.all")], ...KINDS.map((kind) => [kind, word("kind", kind)])]);
    offer(this.range, [["", text("history.all")], ...RANGES.map((seconds) => [String(seconds), rangeName(seconds)])]);
    this.text.addEventListener("input", () => {
      this.keepAddress();
      if (this.text.value && this.limit < MOST) this.reload();
      else this.draw();
    });
    for (const select of [this.server, this.watcher, this.kind, this.range]) {
      select.addEventListener("change", () => {
        this.keepAddress();
        this.reload();
      });
    }
  }

  /** Open the view, perhaps for one watcher of one circusd, at one incident or event, or with a range, kind and text. */
  open(serverId, watcherName, wanted = "", range = "", kind = "", words = "") {
    this.wanted = wanted;
    this.isMissing = false;
    if (serverId) {
      choose(this.range, range);
      choose(this.kind, kind);
      this.text.value = words;
    }
    super.open(serverId, watcherName);
  }

  keepAddress() {
    keepAddress("timeline", this.server.value, this.watcher.value, "", this.range.value, this.kind.value, this.text.value);
  }

  update(state) {
    this.servers = state.servers;
    const before = this.server.value;
    offerServers(this.server, $("timeline-server-field"), state.servers);
    const server = state.servers.find(({ id }) => id === this.server.value);
    offer(this.watcher, [["", text("watcher.all")], ...(server?.watchers ?? []).map(({ name }) => [name, name])]);
    if (this.isOpen && before !== this.server.value) this.reload();
  }

  reload(limit = this.text.value ? MOST : FIRST) {
    this.limit = limit;
    this.events = [];
    const turn = (this.turn += 1);
    if (this.isOpen && this.server.value) poll(() => turn === this.turn, () => this.ask(turn), () => EVERY);
  }

  async ask(turn) {
    const after = this.events.length ? this.events[0].id : null;
    const query = { server: this.server.value, watcher: this.watcher.value, kind: this.kind.value, span: this.range.value, after, limit: after ? MOST : this.limit };
    try {
      const { events } = await get("api/events", query);
      if (turn !== this.turn) return;
      // The ledger tells the oldest first.
      const fresh = events.filter(({ id }) => after === null || id > after).sort((a, b) => b.id - a.id);
      show(this.older, after === null ? fresh.length >= this.limit && this.limit < MOST : !this.older.hidden);
      this.events = [...fresh, ...this.events].slice(0, MOST);
      if (fresh.length || this.incidents.some(({ until }) => until === null)) this.incidents = (await get("api/incidents", { server: this.server.value })).incidents;
      if (turn !== this.turn) return;
      this.draw();
      if (this.goTo()) this.draw();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (turn === this.turn) this.draw(refused.message);
    }
  }

  draw(problem = "") {
    const hasLedger = this.servers?.find(({ id }) => id === this.server.value)?.has_ledger ?? true;
    const lack = this.isMissing ? text("timeline.missing", { n: count(MOST) }) : "";
    const notice = hasLedger ? (problem ? text("timeline.failed", { message: problem }) : lack) : text("timeline.no_ledger");
    writeCode($("timeline-notice"), notice);
    show($("timeline-notice"), Boolean(notice));
    const shown = this.items();
    this.list.update(shown);
    show($("timeline-empty"), !shown.length && !notice);
  }

  get hasLogs() {
    return this.servers?.find(({ id }) => id === this.server.value)?.has_logs;
  }

  /** Incidents with their events, and the events that belong to none, the newest first. */
  items() {
    const text = this.text.value.trim().toLowerCase();
    const folds = this.kind.value ? [] : this.incidents.map((incident) => ({ incident, events: [] }));
    const items = [];
    for (const event of this.events) {
      const fold = folds.find(({ incident }) => incident.watcher === event.watcher && incident.id <= event.id && event.id <= incident.last);
      if (fold && !fold.events.length) items.push(fold);
      if (fold) fold.events.push(event);
      else items.push({ event });
    }
    if (!text) return items;
    const has = (words) => words.toLowerCase().includes(text);
    return items.filter((item) => (item.event ? has(wordsOf(item.event)) : has(reasonIn(item.incident)) || item.events.some((event) => has(wordsOf(event)))));
  }

  /** Show what the address names, once it has come; return whether it is not there. */
  goTo() {
    if (!this.wanted) return false;
    const inside = [...this.list.views.values()].find((view) => view.key === this.wanted || view.holds?.(this.wanted));
    if (!inside) {
      this.isMissing = this.limit >= MOST;
      if (this.isMissing) this.wanted = "";
      else this.reload(MOST);
      return this.isMissing;
    }
    const row = inside.key === this.wanted ? inside : inside.reveal(this.wanted);
    if (row === inside) inside.reveal?.();
    row.node.scrollIntoView({ block: inside === row ? "start" : "center" });
    set(row.node, "data-wanted", true);
    this.wanted = "";
    return false;
  }
}

const keyOf = ({ incident, event }) => (incident ? `i${incident.id}` : `e${event.id}`);
const keyed = (node, view) => new Keyed(node, keyOf, (item) => (item.incident ? new IncidentRow(item, view) : new EventRow(item.event, view)));

/** The kind of an event in the list: a planned end is no failure, and what circusd replaces by itself no reload. */
export function kindOf({ kind, cause }) {
  if (kind === "restart" && cause === "commanded") return "end";
  return kind === "replace" && cause !== "commanded" ? "replaced" : kind;
}

/** What a row says, for the search. */
const wordsOf = (event) => [event.watcher, word("kind", kindOf(event)), reasonIn(event) || event.data?.command || "", event.pid ?? "", event.cause ? word("cause", event.cause) : ""].join(" ");

/** When it was, as a link to it. */
function moment(view, watcher, key, time) {
  const place = [view.server.value, watcher, key].map(encodeURIComponent).join("/");
  return el("a", { class: "moment", href: `#timeline/${place}`, title: fullTime(time) }, el("time", { datetime: new Date(time * 1000).toISOString() }, timeOf(time)));
}

/** An incident in one line, which opens to its events. */
class IncidentRow {
  constructor({ incident }, view) {
    this.key = `i${incident.id}`;
    this.badge = new Badge("incident");
    this.words = el("span");
    this.more = el("span", { class: "muted" });
    const events = el("ol", { class: "events", hidden: true, id: `incident-${incident.id}` });
    this.list = keyed(events, view);
    this.ask = el("button", { type: "button", class: "button button-quiet", "aria-expanded": "false", "aria-controls": events.id });
    this.ask.addEventListener("click", () => this.toggle(events.hidden));
    this.node = el(
      "li",
      { class: "event event-incident", "data-kind": "incident" },
      moment(view, incident.watcher, this.key, incident.time),
      this.badge.node,
      el("strong", { class: "event-watcher" }, incident.watcher),
      el("div", { class: "event-words" }, this.words, this.more),
      this.ask,
      events,
    );
    this.events = events;
  }

  update({ incident, events }) {
    const { until, time, next_try: next } = incident;
    this.badge.update(until === null ? "open" : "over");
    write(this.words, reasonIn(incident));
    const isCooling = next !== null && next * 1000 > Date.now();
    write(this.more, until === null ? (isCooling ? text("incident.cooling", { time: timeOf(next) }) : "") : text("incident.lasted", { age: duration(until - time) }));
    write(this.ask, text("incident.events", { count: events.length }));
    this.list.update(events.map((event) => ({ event })));
  }

  toggle(wanted) {
    show(this.events, wanted);
    set(this.ask, "aria-expanded", String(wanted));
  }

  holds(key) {
    return this.list.views.has(key);
  }

  /** Open, and return the row of one event. */
  reveal(key) {
    this.toggle(true);
    return this.list.views.get(key);
  }
}

class EventRow {
  constructor(event, view) {
    this.key = `e${event.id}`;
    const badge = new Badge("kind");
    badge.update(kindOf(event));
    const time = timeOf(event.time);
    const label = text("timeline.why.of", { kind: word("kind", kindOf(event)), watcher: event.watcher, time });
    this.text = el("div", { class: "why", hidden: true });
    const cause = event.cause ? word("cause", event.cause) : "";
    const logs = DEATHS.includes(event.kind) && view.hasLogs ? el("a", { href: `#logs/${[view.server.value, event.watcher, event.time].map(encodeURIComponent).join("/")}` }, text("timeline.log")) : null;
    const who = [event.pid && `PID ${event.pid}`, cause, event.kind !== "command" && event.data?.by && (event.data.by_say ? reasonIn(event.data, "by") : word("by", event.data.by))].filter(Boolean).join(" · ");
    this.ask = el("button", { type: "button", class: "button button-quiet", "aria-expanded": "false", "aria-label": label }, text("timeline.why"));
    this.ask.addEventListener("click", () => this.toggle(view.server.value, event));
    this.node = el(
      "li",
      { class: "event", "data-kind": event.kind },
      moment(view, event.watcher, this.key, event.time),
      badge.node,
      el("strong", { class: "event-watcher" }, event.watcher),
      el("div", { class: "event-words" }, el("span", {}, reasonIn(event) || event.data?.command || ""), el("span", { class: "muted" }, who), logs),
      event.pid ? this.ask : null,
      this.text,
    );
  }

  update() {}

  async toggle(server, event) {
    const isOpen = this.ask.getAttribute("aria-expanded") === "true";
    set(this.ask, "aria-expanded", String(!isOpen));
    show(this.text, !isOpen);
    if (isOpen || this.text.textContent) return;
    write(this.text, "…");
    try {
      tell(this.text, await get("api/why", { server, watcher: event.watcher, pid: event.pid, id: event.id }));
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      write(this.text, refused.message);
    }
  }
}
