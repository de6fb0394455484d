// Workers that have just ended. A hung one is gone within a tenth of a second of being found: without these nobody
// would ever see on the page what happened to it.

import { get, Refused } from "./api.js";
import { conditionOf } from "./condition.js";
import { now } from "./feed.js";
import { keyOf } from "./history.js";
import { keyOfReason } from "./reason.js";
import { LEDGER_WAIT, MOST_ASKED, SLACK, verdictOf } from "./verdict.js";

const SECONDS = 20;
const MOST = 3;
const CALM = 60; // seconds without a death, after which one is not counted with those before
const ENDS = new Set(["end", "restart"]);
// The keys of the reasons for which circusd ends a worker by itself.
const FOUND = { HUNG: "hung", SICK: "sick" };
const COMMANDED = new Set(["COMMANDED", "COMMANDED_BY_SIGNAL"]);

/** Whether somebody who looks at the page should hear of this worker's end: not of one that was asked for. */
export const isNews = (worker) => worker.pid && (worker.phase !== "leaving" || keyOfReason(worker.say) in FOUND);

/** Remembers for one watcher who has ended, for some seconds, or as long as its incident lasts. */
export class Ghosts {
  constructor() {
    this.watcher = null;
    this.ended = new Map();
  }

  /** Take a new state of the watcher; return its workers and, after them, those that have just ended. */
  update(server, watcher) {
    for (const [key, ghost] of this.ended) if (now() - ghost.endedAt > SECONDS && !watcher.incident) this.ended.delete(key);
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
    // Of a new worker that a reload has made its panel says why it ended.
    const isOfReload = ({ role }) => role === "successor" && before.reload?.state === "running";
    const news = gone.filter((worker) => isNews(worker) && !isOfReload(worker));
    for (const worker of news) {
      const former = [...this.ended].find(([, { slot }]) => slot > 0 && slot === worker.slot); // one line for each slot
      if (former) this.ended.delete(former[0]);
      this.ended.set(keyOf(worker), ghostOf(worker, former?.[1]));
    }
    while (this.ended.size > MOST) this.ended.delete(this.ended.keys().next().value);
    const isMissed = this.ended.size && watcher.restarts !== before.restarts; // it came and went between two states
    if ((news.length || isMissed) && server.has_ledger) this.lookUpSoon(server.id, watcher.name, MOST_ASKED);
  }

  // An end by command is no news; it can pass between two states.
  explain(key, { reason, say, cause }) {
    const ghost = this.ended.get(key);
    if (cause === "commanded" || COMMANDED.has(keyOfReason(say))) this.ended.delete(key);
    else Object.assign(ghost, { reason, say, was: FOUND[keyOfReason(say)] ?? ghost.was, isExplained: true });
  }

  /** Count the deaths of a slot in this incident, or of the last minute; the page does not see the quick ones. */
  count(ghost, ends) {
    const last = ends[ends.length - 1]?.time;
    const recent = ends.filter(({ time }) => time >= last - Math.max(CALM, (this.watcher.incident?.age ?? 0) + SLACK));
    if (recent.length) [ghost.deaths, ghost.firstAt] = [recent.length, ghost.endedAt - (last - recent[0].time)];
  }

  lookUpSoon(...asked) {
    setTimeout(() => this.lookUp(...asked), LEDGER_WAIT);
  }

  /** Take the reason of each end from the ledger, which has it by pid: that of the watcher may be another worker's. */
  async lookUp(server, watcher, tries) {
    try {
      const { events } = await get("api/events", { server, watcher, limit: 200, brief: true });
      const ends = events.filter(({ kind, cause }) => ENDS.has(kind) && cause !== "commanded");
      for (const [key, ghost] of this.ended) {
        const found = events.findLast(({ kind, pid }) => ENDS.has(kind) && pid === ghost.pid);
        if (!found) continue;
        const ofSlot = ends.filter(({ data }) => data.slot === ghost.slot);
        const last = ghost.slot > 0 ? ofSlot.findLast(({ time }) => time > found.time) : undefined;
        if (last) Object.assign(ghost, { pid: last.pid, started: null, endedAt: Math.min(now(), ghost.endedAt + last.time - found.time), was: "gone" });
        this.count(ghost, ofSlot);
        this.explain(key, last ?? found);
      }
      if (tries > 1 && [...this.ended.values()].some(({ isExplained }) => !isExplained)) this.lookUpSoon(server, watcher, tries - 1);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
    }
  }
}

// A former end of the slot is counted with it.
function ghostOf(worker, former) {
  const { pid, started, slot, reason, say } = worker;
  const found = FOUND[keyOfReason(say)];
  const last = found ?? conditionOf(worker);
  const [deaths, firstAt] = former ? [former.deaths + 1, former.firstAt] : [1, now()];
  // What was said of it before it ended is no reason of its end, unless it was ended for that.
  return { pid, started, slot, ...(found && { reason, say }), probe: {}, deaths, firstAt, endedAt: now(), was: ["hung", "sick"].includes(last) ? last : "gone" };
}
