// The verdict of circusd on a watcher: the headline, the colour and the order of everything that the page shows.

import { Refused, get } from "./api.js";
import { toneOf } from "./badges.js";
import { el, set, show, write, writeCode } from "./dom.js";
import { now } from "./feed.js";
import { tell } from "./story.js";
import { duration, text, word } from "./text.js";

const LOG = "last lines of its log"; // titles of parts of `why`
const WORDS = new Set([LOG, "its stacks when it was ended"]);
const MOST = 8; // lines of it
export const MOST_ASKED = 4; // times, where the ledger is later than usual
export const SLACK = 30; // seconds by which a death may come before the incident that it begins
export const LEDGER_WAIT = 1200; // ms: it is written half a second late

/** The word of the verdict; "unknown" where circusd gives none. */
export const verdictOf = (watcher) => watcher.verdict?.word ?? "unknown";

/** Whether a person should look at a watcher. Of one without a guard of ours circusd knows no incident. */
export const isTroubled = (watcher) => Boolean(watcher.incident);

/** The rank of a watcher in a list with the worst first; all without trouble have the same. */
export const severity = (watcher) => (isTroubled(watcher) ? -watcher.badness : 0);

/** What the first lines of the page have not: how bad it was at worst, and the last words of the worker that ended. */
export class Evidence {
  constructor() {
    this.line = el("p");
    this.worst = el("p", { class: "muted" });
    this.story = el("div", { class: "why" });
    this.timer = null;
    this.node = el("section", { class: "incident", hidden: true }, this.line, this.worst, this.story);
  }

  /** Take a watcher, and the sentences on it that stand nowhere else. */
  update(server, watcher, sentences) {
    const { verdict, incident, last_reason: last } = watcher;
    if (!isTroubled(watcher)) {
      this.known = null;
      this.story.replaceChildren();
    } else {
      this.began = now() - incident.age;
      set(this.node, "data-tone", toneOf(verdict.word));
      set(this.node, "aria-label", text("incident", { name: watcher.name }));
      writeCode(this.line, sentences);
      write(this.worst, incident.worst !== verdict.word ? text("incident.worst", { verdict: word("verdict", incident.worst) }) : "");
      if (server.has_ledger && this.known !== last) this.askSoon(server.id, watcher.name, MOST_ASKED);
      this.known = last;
    }
    this.draw();
  }

  draw() {
    const parts = [this.line, this.worst, this.story];
    for (const part of parts) show(part, part.textContent !== "");
    show(this.node, this.known !== null && parts.some((part) => !part.hidden));
  }

  askSoon(...asked) {
    this.timer ??= setTimeout(() => this.ask(...asked), LEDGER_WAIT);
  }

  /** Take from the ledger the last lines of the log of a worker that ended in this incident, or its stacks. */
  async ask(server, watcher, tries) {
    this.timer = null;
    try {
      const { headline, headline_say, age, blocks } = await get("api/why", { server, watcher });
      const words = blocks.findLast(({ title }) => WORDS.has(title));
      if (this.known === null) return;
      if (!words || now() - age < this.began - SLACK) return void (tries > 1 && this.askSoon(server, watcher, tries - 1));
      const lines = words.title === LOG ? words.lines.slice(-MOST) : words.lines.slice(0, MOST);
      tell(this.story, { headline, headline_say, facts: [], blocks: [{ ...words, lines }] });
      this.draw();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
    }
  }
}

/** How long until the next step, as a person says it; empty where nothing is due. */
export function countdown(wait, elapsed) {
  if (wait === null || wait === undefined) return "";
  const left = wait - elapsed;
  return left < 1 ? text("wait.next_try.now") : text("wait.next_try", { age: duration(Math.floor(left)) }); // as the first line
}
