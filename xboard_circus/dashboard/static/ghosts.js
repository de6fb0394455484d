// Workers that have just ended. A wedged one is gone within a tenth of a second of being found: without these nobody
// would ever see on the page what happened to it.

import { get, Refused } from "./api.js";
import { now } from "./feed.js";
import { keyOf } from "./history.js";

const SECONDS = 20;
const MOST = 5;
const LEDGER_WAIT = 1200; // ms: it is written half a second late
const ENDS = new Set(["end", "restart"]);
// These ends were asked for, and are no news.
const PLANNED = new Set(["stopping", "draining", "spare"]);

/** The state that a worker is shown in: one that is being ended for being wedged is wedged until it is gone. */
export function shownState(worker) {
  const isWedged = worker.state === "stopping" && /^wedged\b/.test(worker.reason);
  return isWedged ? "wedged" : worker.state;
}

/** Whether somebody who looks at the page should be told of this worker's end. */
export const isNews = (worker) => !PLANNED.has(shownState(worker));

/** Remembers for one watcher who has ended, for some seconds. */
export class Ghosts {
  constructor() {
    this.watcher = null;
    this.ended = new Map();
  }

  /** Take a new state of the watcher; return its workers and, after them, those that have just ended. */
  update(server, watcher) {
    for (const [key, ghost] of this.ended) if (now() - ghost.endedAt > SECONDS) this.ended.delete(key);
    if (this.watcher !== watcher) this.compare(this.watcher, watcher, server);
    this.watcher = watcher;
    return [...watcher.workers, ...this.ended.values()];
  }

  compare(before, watcher, server) {
    if (!before || watcher.status !== "active") {
      this.ended.clear();
      return;
    }
    const alive = new Set(watcher.workers.map(keyOf));
    const gone = before.workers.filter((worker) => !alive.has(keyOf(worker)));
    const news = gone.filter(isNews);
    // The watcher's last reason is that of its last end: with two at once it is not known whose it is.
    const reason = gone.length === 1 && watcher.last_reason !== before.last_reason ? watcher.last_reason : "";
    for (const worker of news) {
      const ghost = ghostOf(worker, reason || worker.reason);
      this.ended.set(keyOf(worker), ghost);
      this.explain(ghost, ghost);
    }
    while (this.ended.size > MOST) this.ended.delete(this.ended.keys().next().value);
    if (news.length && server.has_ledger) setTimeout(() => this.lookUp(server.id, watcher.name), LEDGER_WAIT);
  }

  // An end that was asked for may not have been seen as one: it can pass between two states.
  explain(ghost, { reason, cause }) {
    if (cause === "commanded" || reason.startsWith("commanded")) this.ended.delete(keyOf(ghost));
    else Object.assign(ghost, wordsOf(reason));
  }

  /** Take the reason of each end from the ledger, which knows it by pid. */
  async lookUp(server, watcher) {
    try {
      const { events } = await get("api/events", { server, watcher, limit: 50 });
      for (const ghost of this.ended.values()) {
        const told = events.filter(({ kind, pid, reason }) => ENDS.has(kind) && pid === ghost.pid && reason);
        if (told.length) this.explain(ghost, told[told.length - 1]);
      }
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
    }
  }
}

function ghostOf({ pid, started, wid }, reason) {
  return { pid, started, wid, ...wordsOf(reason), probe: {}, endedAt: now() };
}

function wordsOf(reason) {
  const found = /^(?:unhealthy: )?(wedged|sick)\b/.exec(reason);
  return { state: found ? found[1] : "ended", reason };
}
