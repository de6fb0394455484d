// Why something happened, as the ledger tells it: a headline, facts, and what was kept as evidence.

import { el } from "./dom.js";
import { say } from "./reasons.js";
import { word } from "./text.js";

const OURS = "last probes"; // the other blocks are what a process wrote, and are quoted

/** Show a story, the answer of `api/why`, in place of what a node has held. */
export function tell(node, { headline, facts, blocks }) {
  node.replaceChildren(
    el("p", { class: "story-head" }, say(headline)),
    ...(facts.length ? [el("dl", { class: "story-facts" }, ...facts.flatMap(fact))] : []),
    ...blocks.flatMap(([title, lines]) => [
      el("h3", {}, word("why", title)),
      el("pre", { class: "mono", tabindex: "0" }, lines.map((line) => (title === OURS ? say(line) : line)).join("\n")),
    ]),
  );
}

// What came next may be several things: named once.
function fact([title, sentence], at, all) {
  const isNew = !at || all[at - 1][0] !== title;
  return [el("dt", {}, isNew ? word("why", title) : ""), el("dd", {}, title === "cause" ? causeOf(sentence) : say(sentence))];
}

function causeOf(sentence) {
  const said = say(sentence);
  return said === sentence ? word("cause", sentence) : said;
}
