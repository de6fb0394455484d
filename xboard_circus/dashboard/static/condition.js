// The condition of a worker, as core/verdict.py judges it, and its name.

import { text } from "./text.js";

/** The condition of a worker: held, starting, leaving, gone, hung, sick, failing, busy, not_ready or up. */
export const conditionOf = ({ condition, endedAt, was }) => (endedAt === undefined ? condition : was);

/** Whether nothing about a worker needs a look. */
export const isHealthy = (worker) => conditionOf(worker) === "up";

/** How many workers of a watcher answer requests. */
export const serving = (watcher) => watcher.workers.filter((worker) => worker.serves).length;

/** The place of a worker as people name it: #1, #2; empty where it has none. */
export const placeOf = ({ slot }) => (slot > 0 ? `#${slot}` : "");

/** The name of a worker in a sentence: its place and its pid. */
export const nameOf = (worker) =>
  placeOf(worker) ? text("worker.name", { slot: placeOf(worker), pid: worker.pid }) : `PID ${worker.pid}`;
