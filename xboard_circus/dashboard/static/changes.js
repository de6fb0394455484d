// What has changed between two states, in sentences for those who do not see the colours.

import { conditionOf, nameOf } from "./condition.js";
import { isNews } from "./ghosts.js";
import { keyOf } from "./history.js";
import { reasonIn } from "./reason.js";
import { text, word } from "./text.js";
import { verdictOf } from "./verdict.js";

const REPORTED = new Set(["up", "busy", "failing", "sick", "hung", "held", "not_ready"]);

/** The sentences; none for the first state. */
export function changes(before, after) {
  if (!before) return [];
  return after.servers.flatMap((server) => {
    const old = before.servers.find(({ id }) => id === server.id);
    return old ? ofServer(old, server) : [];
  });
}

function ofServer(old, server) {
  if (old.reachable !== server.reachable) return [text(server.reachable ? "say.reachable" : "say.unreachable", server)];
  if (!server.reachable) return [];
  return server.watchers.flatMap((watcher) => {
    const was = old.watchers.find(({ name }) => name === watcher.name);
    return was ? ofWatcher(was, watcher) : [];
  });
}

function ofWatcher(was, watcher) {
  const names = { watcher: watcher.name };
  const alive = new Set(watcher.workers.map(keyOf));
  const ended = verdictOf(watcher) === "stopped" ? [] : was.workers.filter((worker) => !alive.has(keyOf(worker)) && isNews(worker));
  const conditions = new Map(was.workers.map((worker) => [keyOf(worker), conditionOf(worker)]));
  const changed = watcher.workers.filter((worker) => REPORTED.has(conditionOf(worker)) && conditions.get(keyOf(worker)) !== conditionOf(worker));
  return [
    ...(verdictOf(was) === verdictOf(watcher) ? [] : [sentence("say.watcher", { ...names, state: word("verdict", verdictOf(watcher)) }, reasonIn(watcher.verdict, "cause"))]),
    ...ended.map((worker) => text("say.ended", { ...names, worker: nameOf(worker) })),
    ...changed.map((worker) => sentence("say.state", { ...names, worker: nameOf(worker), state: word("state", conditionOf(worker)) }, reasonIn(worker))),
  ];
}

const sentence = (key, names, reason) => (reason ? text(`${key}.why`, { ...names, reason }) : text(key, names));
