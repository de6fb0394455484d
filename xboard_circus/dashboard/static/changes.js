// What has changed between two states, in sentences for who does not see the colours.

import { isNews } from "./ghosts.js";
import { keyOf } from "./history.js";
import { say } from "./reasons.js";
import { text, word } from "./text.js";

const TOLD = new Set(["ready", "busy", "sick", "wedged", "waiting", "not_ready"]);

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
  const own = was.status === watcher.status ? [] : [text("say.watcher", { ...names, state: word("state", watcher.status) })];
  const states = new Map(was.workers.map((worker) => [keyOf(worker), worker.state]));
  const workers = watcher.workers.filter((worker) => TOLD.has(worker.state) && states.get(keyOf(worker)) !== worker.state);
  const told = workers.map(({ pid, state, reason }) =>
    text(reason ? "say.state.why" : "say.state", { ...names, pid, state: word("state", state), reason: say(reason) }),
  );
  const alive = new Set(watcher.workers.map(keyOf));
  const ended = watcher.status === "active" ? was.workers.filter((worker) => !alive.has(keyOf(worker)) && isNews(worker)) : [];
  return [...own, ...ended.map(({ pid }) => text("say.ended", { ...names, pid, reason: say(watcher.last_reason) })), ...told];
}
