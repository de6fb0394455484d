// Why something happened, as the ledger tells it: a headline, facts, and what was kept as evidence.

import { el } from "./dom.js";
import { reasonIn } from "./reason.js";
import { word } from "./text.js";

/** Show a story, the answer of `api/why`, in place of what a node has held. */
export function tell(node, story) {
  const { facts, blocks } = story;
  node.replaceChildren(
    el("p", { class: "story-head" }, reasonIn(story, "headline")),
    ...(facts.length ? [el("dl", { class: "story-facts" }, ...facts.flatMap(fact))] : []),
    ...blocks.flatMap(({ title, lines }) => [
      el("h3", {}, word("why", title)),
      el("pre", { class: "mono", tabindex: "0" }, ...lines.map(frame)),
    ]),
  );
}

// The app's own frames are what one looks for.
const frame = (line) => el(line.is_app ? "b" : "span", {}, `${reasonIn(line, "text")}\n`);

// What came next may be several things: named once.
function fact(said, at, all) {
  const isNew = !at || all[at - 1].title !== said.title;
  return [el("dt", {}, isNew ? word("why", said.title) : ""), el("dd", {}, reasonIn(said, "text"))];
}
