// Workers that have just ended. A hung one is gone within a tenth of a second of being found: without these nobody
// would ever see on the page what happened to it.

import { get, Refused } from "./api.js";
import { conditionOf } from "./condition.js";
import { now } from "./feed.js";
import { keyOf } from "./history.js";
import { keyOfReason } from "./reason.js";
import { LEDGER_WAIT, verdictOf } from "./verdict.js";

const SECONDS = 20;
const MOST = 3;
const ENDS = new Set(["end", "restart"]);
// The keys of the reasons for which circusd ends a worker by itself.
const FOUND = { HUNG: "hung", SICK: "sick" };
const COMMANDED = new Set(["COMMANDED", "COMMANDED_BY_SIGNAL"]);

/** Whether somebody who looks at the page should hear of this worker's end: not of one that was asked for. */
export const isNews = (worker) => worker.pid && (worker.phase !== "leaving" || keyOfReason(worker.say) in FOUND);

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
    if (!before || verdictOf(watcher) === "stopped") {
      this.ended.clear();
      return;
    }
    const alive = new Set(watcher.workers.map(keyOf));
    const gone = before.workers.filter((worker) => !alive.has(keyOf(worker)));
    const news = gone.filter(isNews);
    // The watcher's last reason is that of its last end: with two at once it is not known whose it is.
    const isKnown = gone.length === 1 && watcher.last_reason !== before.last_reason;
    for (const worker of news) {
      this.ended.set(keyOf(worker), ghostOf(worker));
      if (isKnown) this.explain(keyOf(worker), { reason: watcher.last_reason, say: watcher.last_reason_say });
    }
    while (this.ended.size > MOST) this.ended.delete(this.ended.keys().next().value);
    if (news.length && server.has_ledger) setTimeout(() => this.lookUp(server.id, watcher.name), LEDGER_WAIT);
  }

  // An end by command is no news; it can pass between two states.
  explain(key, { reason, say, cause }) {
    const ghost = this.ended.get(key);
    if (cause === "commanded" || COMMANDED.has(keyOfReason(say))) this.ended.delete(key);
    else Object.assign(ghost, { reason, say, was: FOUND[keyOfReason(say)] ?? ghost.was });
  }

  /** Take the reason of each end from the ledger, which has it by pid. */
  async lookUp(server, watcher) {
    try {
      const { events } = await get("api/events", { server, watcher, limit: 50 });
      for (const [key, ghost] of this.ended) {
        const found = events.findLast(({ kind, pid, reason }) => ENDS.has(kind) && pid === ghost.pid && reason);
        if (found) this.explain(key, found);
      }
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
    }
  }
}

function ghostOf(worker) {
  const { pid, started, slot, reason, say } = worker;
  const last = FOUND[keyOfReason(say)] ?? conditionOf(worker);
  return { pid, started, slot, reason, say, probe: {}, endedAt: now(), was: ["hung", "sick"].includes(last) ? last : "gone" };
}
