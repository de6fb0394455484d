// The ledger as a timeline, newest first; what happens while it is open comes in by itself.

import { get, Refused } from "./api.js";
import { Badge } from "./badges.js";
import { offer, offerServers, WatcherView } from "./choices.js";
import { Keyed, el, set, show, write } from "./dom.js";
import { reasonIn } from "./reason.js";
import { tell } from "./story.js";
import { fullTime, text, timeOf, word } from "./text.js";

const EVERY = 2000;
const FIRST = 100;
const MOST = 1000;
const KINDS = ["restart", "cooldown", "recovered", "unhealthy", "port_freed", "port_refused", "port_shut", "replace", "kept", "reload_begin", "output_lost", "output_back", "slow_request", "poison", "before_done", "before_failed", "reload_end", "circusd_lost", "circusd_back", "host_restarted", "command", "ready", "end", "spawn", "reap", "kill", "start", "stop"];
const $ = (id) => document.getElementById(id);

export class Timeline extends WatcherView {
  constructor() {
    super();
    this.server = $("timeline-server");
    this.watcher = $("timeline-watcher");
    this.kind = $("timeline-kind");
    this.events = [];
    this.limit = FIRST;
    this.turn = 0;
    this.list = new Keyed($("events"), ({ id }) => id, (event) => new EventRow(event, () => this.server.value));
    this.older = el("button", { type: "button", class: "button", hidden: true }, text("timeline.older"));
    this.older.addEventListener("click", () => this.reload(Math.min(this.limit * 3, MOST)));
    $("events").after(el("p", { class: "below" }, this.older));
    offer(this.kind, [["", text("kind.all")], ...KINDS.map((kind) => [kind, word("kind", kind)])]);
    for (const select of [this.server, this.watcher, this.kind]) select.addEventListener("change", () => this.reload());
  }

  update(state) {
    this.servers = state.servers;
    const before = this.server.value;
    offerServers(this.server, $("timeline-server-field"), state.servers);
    const server = state.servers.find(({ id }) => id === this.server.value);
    offer(this.watcher, [["", text("watcher.all")], ...(server?.watchers ?? []).map(({ name }) => [name, name])]);
    if (this.isOpen && before !== this.server.value) this.reload();
  }

  reload(limit = FIRST) {
    this.limit = limit;
    this.events = [];
    this.turn += 1;
    if (this.isOpen && this.server.value) this.follow(this.turn);
  }

  /** Ask for what is new, again and again, until the view closes or is filtered otherwise. */
  async follow(turn) {
    while (turn === this.turn) {
      await this.ask(turn);
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  }

  async ask(turn) {
    if (document.hidden) return;
    const after = this.events.length ? this.events[0].id : null;
    const query = { server: this.server.value, watcher: this.watcher.value, kind: this.kind.value, after, limit: after ? MOST : this.limit };
    try {
      const { events } = await get("api/events", query);
      if (turn !== this.turn) return;
      // The ledger tells the oldest first.
      const fresh = events.filter(({ id }) => after === null || id > after).sort((a, b) => b.id - a.id);
      show(this.older, after === null ? fresh.length >= this.limit && this.limit < MOST : !this.older.hidden);
      this.events = [...fresh, ...this.events].slice(0, MOST);
      this.draw();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (turn === this.turn) this.draw(refused.message);
    }
  }

  draw(problem = "") {
    const hasLedger = this.servers?.find(({ id }) => id === this.server.value)?.has_ledger ?? true;
    const notice = hasLedger ? problem && text("timeline.failed", { message: problem }) : text("timeline.no_ledger");
    write($("timeline-notice"), notice);
    show($("timeline-notice"), Boolean(notice));
    this.list.update(this.events);
    show($("timeline-empty"), !this.events.length && !notice);
  }
}

class EventRow {
  constructor(event, serverOf) {
    const badge = new Badge("kind");
    badge.update(event.kind);
    const time = timeOf(event.time);
    const label = text("timeline.why.of", { kind: word("kind", event.kind), watcher: event.watcher, time });
    this.text = el("div", { class: "why", hidden: true });
    const cause = event.cause ? word("cause", event.cause) : "";
    const who = [event.pid && `PID ${event.pid}`, cause, event.kind !== "command" && event.data?.by && (event.data.by_say ? reasonIn(event.data, "by") : word("by", event.data.by))].filter(Boolean).join(" · ");
    this.ask = el("button", { type: "button", class: "button button-quiet", "aria-expanded": "false", "aria-label": label }, text("timeline.why"));
    this.ask.addEventListener("click", () => this.toggle(serverOf(), event));
    this.node = el(
      "li",
      { class: "event", "data-kind": event.kind },
      el("time", { datetime: new Date(event.time * 1000).toISOString(), title: fullTime(event.time) }, time),
      badge.node,
      el("strong", { class: "event-watcher" }, event.watcher),
      el("div", { class: "event-words" }, el("span", {}, reasonIn(event) || event.data?.command || ""), el("span", { class: "muted" }, who)),
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
