// Workers that have just ended. A wedged one is gone within a tenth of a second of being found: without these nobody
// would ever see on the page what happened to it.

import { now } from "./feed.js";
import { keyOf } from "./history.js";

const SECONDS = 20;
const MOST = 5;
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
  update(watcher) {
    for (const [key, ghost] of this.ended) if (now() - ghost.endedAt > SECONDS) this.ended.delete(key);
    if (this.watcher !== watcher) this.compare(this.watcher, watcher);
    this.watcher = watcher;
    return [...watcher.workers, ...this.ended.values()];
  }

  compare(before, watcher) {
    if (!before || watcher.status !== "active") {
      this.ended.clear();
      return;
    }
    const alive = new Set(watcher.workers.map(keyOf));
    const gone = before.workers.filter((worker) => !alive.has(keyOf(worker)) && isNews(worker));
    for (const worker of gone) this.ended.set(keyOf(worker), ghostOf(worker, gone.length === 1 ? watcher.last_reason : ""));
    while (this.ended.size > MOST) this.ended.delete(this.ended.keys().next().value);
  }
}

// The watcher's last reason is that of its last end: with two at once it is not known whose it is.
function ghostOf(worker, lastReason) {
  const reason = lastReason || worker.reason;
  const found = /^(wedged|sick)\b/.exec(reason);
  return { pid: worker.pid, started: worker.started, wid: worker.wid, state: found ? found[1] : "ended", reason, probe: {}, endedAt: now() };
}
