// The verdict of circusd on a watcher: the headline, the colour and the order of everything that the page shows.

import { toneOf } from "./badges.js";
import { el, set, show, write, writeCode } from "./dom.js";
import { reasonIn } from "./reason.js";
import { duration, text, timeOf, word } from "./text.js";

const WORST_FIRST = ["down", "blocked", "looping", "dependency", "degraded", "unknown"];
const DRIFT = 2; // seconds that the computed beginning of an incident may differ from the one shown

/** The word of the verdict; "unknown" where circusd gives none. */
export const verdictOf = (watcher) => watcher.verdict?.word ?? "unknown";

/** Whether a person should look at a watcher. Of one without a guard of ours circusd knows no incident. */
export const isTroubled = (watcher) => Boolean(watcher.incident) && WORST_FIRST.includes(verdictOf(watcher));

/** The rank of a watcher in a list with the worst first; all without trouble have the same. */
export function severity(watcher) {
  return isTroubled(watcher) ? WORST_FIRST.indexOf(verdictOf(watcher)) : WORST_FIRST.length;
}

/** An open incident: since when, cause, next step with its countdown, cure. Hidden as soon as the verdict is well. */
export class Incident {
  constructor() {
    this.head = el("strong");
    this.since = el("span");
    this.worst = el("span", { class: "muted" });
    this.lines = ["cause", "next", "cure"].map((name) => new Line(name));
    const facts = el("dl", { class: "incident-facts" }, ...this.lines.flatMap(({ nodes }) => nodes));
    this.node = el("section", { class: "incident", hidden: true }, el("p", { class: "incident-head" }, this.head, this.since, this.worst), facts);
    this.began = null;
  }

  /** Take a watcher, and the sentence that names its trouble. */
  update(watcher, head) {
    const { verdict, incident } = watcher;
    this.verdict = verdict;
    show(this.node, isTroubled(watcher));
    if (this.node.hidden) {
      this.began = null;
      return;
    }
    this.age = incident.age;
    set(this.node, "data-tone", toneOf(verdict.word));
    set(this.node, "data-verdict", verdict.word);
    set(this.node, "aria-label", text("incident", { name: watcher.name }));
    write(this.head, head);
    const { worst } = incident;
    write(this.worst, worst !== verdict.word ? text("incident.worst", { verdict: word("verdict", worst) }) : "");
    const [cause, , cure] = this.lines;
    cause.write(reasonIn(verdict, "cause"));
    cure.write(reasonIn(verdict, "cure"));
  }

  /** Let the age and the countdown go on by `elapsed` seconds since circusd sent them. */
  tick(elapsed) {
    if (this.node.hidden) return;
    const age = this.age + elapsed;
    const began = Date.now() / 1000 - age;
    if (this.began === null || Math.abs(began - this.began) > DRIFT) this.began = began;
    write(this.since, text("incident.since", { time: timeOf(this.began) }));
    this.lines[1].write([reasonIn(this.verdict, "next"), countdown(this.verdict.next_in, elapsed)].filter(Boolean).join(" · "));
  }
}

class Line {
  constructor(name) {
    this.value = el("dd");
    this.nodes = [el("dt", {}, text(`incident.${name}`)), this.value];
  }

  write(words) {
    writeCode(this.value, words);
    for (const node of this.nodes) show(node, Boolean(words));
  }
}

/** How long until the next step, as a person says it; empty where nothing is due. */
export function countdown(wait, elapsed, key = "wait.in") {
  if (wait === null || wait === undefined) return "";
  const left = wait - elapsed;
  return left < 0.5 ? text(`${key}.now`) : text(key, { age: duration(Math.ceil(left)) });
}
