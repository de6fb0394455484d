// One word for a worker, made of its phase, role and health. Nobody else on the page puts these together.

import { text } from "./text.js";

const NOT_WELL = ["hung", "sick", "failing", "busy"];

/** The condition of a worker: held, starting, leaving, gone, hung, sick, failing, busy, not_ready or up. */
export function conditionOf(worker) {
  const { phase, role, health, ready, endedAt, was } = worker;
  if (endedAt !== undefined) return was;
  if (phase !== "up") return phase ?? "unknown";
  if (NOT_WELL.includes(health)) return health;
  return ready === false ? "not_ready" : "up";
}

/** Whether nothing about a worker needs a look. */
export const isHealthy = (worker) => conditionOf(worker) === "up";

/** Whether a worker answers requests, as circusd counts it in its verdict. */
export const serves = ({ phase, health }) => phase === "up" && health !== "hung";

/** How many workers of a watcher answer requests. */
export const serving = (watcher) => watcher.workers.filter(serves).length;

/** The place of a worker as people name it: #1, #2; empty where it has none. */
export const placeOf = ({ slot }) => (slot > 0 ? `#${slot}` : "");

/** The name of a worker in a sentence: its place and its pid. */
export const nameOf = (worker) =>
  placeOf(worker) ? text("worker.name", { slot: placeOf(worker), pid: worker.pid }) : `PID ${worker.pid}`;
