// A reload as a panel: what comes before, worker by worker, from which code to which, what serves on; and the last ones.

import { get, Refused } from "./api.js";
import { serving } from "./condition.js";
import { Keyed, el, set, show, write } from "./dom.js";
import { now } from "./feed.js";
import { lineOf } from "./headlines.js";
import { reasonIn } from "./reason.js";
import { duration, text, timeOf } from "./text.js";
import { isTroubled } from "./verdict.js";

const SEEN = 60; // seconds for which a reload that went well is shown, to those who saw it run
const FAILED = 3600; // the same for one that failed, to everybody, while the old code serves
const DISMISSED = "xboard_dismissed"; // by watcher, when the reload began that somebody put away
const DRIFT = 5;
const MOST_LINES = 8; // of the log of the worker that did not come up; `why` has more
const BROKEN = ["failed", "stopped"];
const STEPS = ["before", "import", "workers"];

export class Reload {
  /** `changed` is called when the panel comes or goes. */
  constructor(changed) {
    this.changed = changed;
    this.words = el("strong");
    this.code = el("span", { class: "mono" });
    this.close = el("button", { type: "button", class: "toast-close", "aria-label": text("reload.dismiss"), title: text("reload.dismiss"), onclick: () => this.dismiss() }, "×");
    this.progress = el("progress", { max: "1", value: "0", "aria-label": text("do.reload") });
    this.serves = el("p");
    const steps = el("ol", { class: "steps" });
    this.steps = new Keyed(steps, ({ key }) => key, () => new Step());
    this.log = el("pre", { class: "mono" });
    this.more = el("details", { open: true }, el("summary", {}, text("reload.log")), this.log);
    this.past = new Past();
    this.node = el("section", { class: "reload", hidden: true }, el("p", { class: "reload-head" }, this.words, this.code, this.progress, this.close), this.serves, steps, this.more, this.past.node);
    this.sawIt = false;
    this.slots = new Map(); // by pid, of workers that may have ended since
  }

  update(server, watcher, elapsed, stale) {
    const reload = watcher.reload ?? null;
    const isOver = this.reload?.state === "running" && reload?.state !== "running";
    [this.server, this.watcher, this.reload, this.stale] = [server, watcher, reload, stale];
    if (!reload) this.slots.clear();
    else for (const { pid, slot } of watcher.workers) if (pid) this.slots.set(pid, slot);
    if (reload?.state === "running") [this.sawIt, this.endedAt] = [true, null];
    else this.endedAt ??= now();
    const wasHidden = this.node.hidden;
    this.tick(elapsed);
    if (this.node.hidden) return;
    if (wasHidden || isOver) this.ask();
    const { state, done, total, log } = reload;
    set(this.node, "data-tone", { running: "info", done: "good" }[state] ?? "warn");
    set(this.node, "aria-label", text("reload.of", { name: watcher.name }));
    show(this.progress, state === "running");
    show(this.close, state !== "running");
    set(this.progress, "max", Math.max(1, total));
    set(this.progress, "value", done);
    this.steps.update(stepsOf(reload, watcher, this.slots));
    show(this.more, Boolean(log));
    write(this.log, (log ?? "").trimEnd().split("\n").slice(-MOST_LINES).join("\n"));
  }

  tick(elapsed) {
    const wasHidden = this.node.hidden;
    show(this.node, this.isNews(elapsed));
    if (!this.node.hidden) {
      const { state, age, old } = this.reload;
      const line = lineOf(this.server, this.watcher.name);
      const isTold = line?.word === "reload_failed" && line.isFirst; // the first line of the page has why
      const up = serving(this.watcher);
      const serves = text(up > old ? "reload.serves.both" : "reload.serves", { up, wanted: this.watcher.numprocesses, n: up - old });
      write(this.words, isTold ? serves : text(`reload.${state}`, { ...this.reload, age: duration(age + elapsed), reason: reasonIn(this.reload) }));
      write(this.serves, serves);
      show(this.serves, BROKEN.includes(state) && !isTold && this.reload.old > 0);
    }
    if (wasHidden !== this.node.hidden) this.changed();
  }

  isNews(elapsed) {
    if (!this.reload) return false;
    const { state, age } = this.reload;
    this.began = Date.now() / 1000 - age - elapsed;
    if (state === "running") return !this.stale; // nobody goes on with it
    // A page that was busy has taken a state for younger than it was: what was put away then seems to have begun later.
    if (this.began < (dismissed()[this.key()] ?? 0) + DRIFT) return false;
    if (state === "done") return this.sawIt && !isTroubled(this.watcher) && now() - this.endedAt < SEEN;
    return age + elapsed < (this.reload.old > 0 ? FAILED : SEEN);
  }

  key() {
    return `${this.server.id}/${this.watcher.name}`;
  }

  /** Put the panel away in this browser, until the next reload. */
  dismiss() {
    localStorage.setItem(DISMISSED, JSON.stringify({ ...dismissed(), [this.key()]: this.began }));
    show(this.node, false);
    this.changed();
  }

  async ask() {
    if (!this.server.has_ledger) return;
    const reloads = await lastReloads(this.server, this.watcher);
    // The first is the one of the panel, once the ledger has it; not one that failed a moment before this one began.
    const [{ began, state } = {}] = reloads;
    const isThis = Math.abs(began - this.began) < DRIFT && (state === "running" || this.reload.state !== "running");
    write(this.code, isThis ? codeOf(reloads[0]) : "");
    this.past.update(isThis ? reloads.slice(1) : reloads);
    if (!isThis) setTimeout(() => this.node.isConnected && !this.node.hidden && this.ask(), 2000);
  }
}

function dismissed() {
  try {
    return JSON.parse(localStorage.getItem(DISMISSED)) ?? {};
  } catch {
    return {};
  }
}

async function lastReloads(server, watcher) {
  try {
    return (await get("api/reloads", { server: server.id, watcher: watcher.name })).reloads;
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    return [];
  }
}

/** From which code to which: commits of git, or where these do not tell them apart, when a file was changed last. */
function codeOf({ old, new: fresh }) {
  if (!fresh) return "";
  const isMove = fresh.commit && fresh.commit !== old.commit;
  const name = ({ commit, changed }) => (isMove || !changed ? commit : text("reload.files", { time: timeOf(changed) })) || "?";
  const names = [name(old), name(fresh)];
  if (names[0] !== names[1]) return names.join(" → ");
  return fresh.commit || fresh.changed ? text("reload.same", { code: fresh.commit ?? names[1] }) : "";
}

/** What a reload does before it touches a worker, then each worker: {key, state, words}; "wait" are those to come. */
export function stepsOf({ state, step, slot, replaced = [], done, total }, watcher, slots) {
  const at = STEPS.indexOf(step);
  const broken = state === "running" ? "runs" : state === "done" ? "done" : "failed";
  const swap = (old, pid) => text(old === pid ? "worker.name" : "reload.step.pair", { slot: slots.has(pid) ? `#${slots.get(pid)}` : "", old, pid }).trim();
  const before = STEPS.slice(0, 2).map((name, number) => ({
    key: name,
    state: number < at || state === "done" ? "done" : number === at ? broken : "wait",
    words: text(`reload.step.${name}`),
  }));
  // One that came up meanwhile for another reason has the new code, and no predecessor.
  const pairs = replaced.map(([old, pid]) => ({ key: String(pid), state: "done", words: swap(old, pid) }));
  if (at < 2 || state === "done") return [...before, ...pairs];
  const fresh = watcher.workers.find(({ role, phase }) => role === "successor" && phase === "starting");
  const words = state !== "running" ? text("reload.step.broken", { slot: `#${slot ?? "?"}` }) : fresh ? text("reload.step.new", { slot: `#${fresh.slot}`, pid: fresh.pid }) : text("reload.step.drain");
  const left = total - done - 1;
  const rest = left > 0 ? [{ key: "rest", state: "wait", words: text(state === "running" ? "reload.step.rest" : "reload.step.kept", { n: left }) }] : [];
  return [...before, ...pairs, { key: "now", state: broken, words }, ...rest];
}

class Step {
  constructor() {
    this.node = el("li");
  }

  update({ state, words }) {
    set(this.node, "data-step", state);
    write(this.node, words);
  }
}

/** The reloads before this one, from the ledger. */
class Past {
  constructor() {
    this.list = el("ol");
    this.node = el("details", { class: "reload-past", hidden: true }, el("summary", {}, text("reload.past")), this.list);
  }

  update(reloads) {
    show(this.node, reloads.length > 0);
    this.list.replaceChildren(...reloads.map((each) => el("li", {}, `${timeOf(each.began)}: ${[reasonIn(each), codeOf(each), took(each), reasonIn(each, "by")].filter(Boolean).join(" · ")}`)));
  }
}

const took = (reload) => (reload.took === undefined ? "" : duration(reload.took));
