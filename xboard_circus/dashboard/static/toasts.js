// Short messages that come and go, and what a screen reader is told.

import { el, set } from "./dom.js";
import { text } from "./text.js";

const SECONDS = { good: 5, bad: 15 };
const MOST = 4;
const FEW = 2; // in a window that has no room for more
const LOW = 600; // pixels of its height

// Where a keyboard is at work, they are in the other half of the window, and cover nothing that it comes to.
addEventListener("focusin", ({ target }) =>
  requestAnimationFrame(() => {
    const list = document.getElementById("toasts");
    const { top, bottom } = target.getBoundingClientRect();
    if (!list.contains(target)) set(list, "data-top", target.matches(":focus-visible") && top + bottom > innerHeight);
  }),
);

/** Show what came of an action, perhaps with a button `{words, act}`. Bad news stay longer, and can be put away. */
export function toast(words, tone = "good", more = null) {
  const list = document.getElementById("toasts");
  const close = el("button", { type: "button", class: "toast-close", "aria-label": text("close"), onclick: () => box.remove() }, "×");
  const button = more && el("button", { type: "button", class: "button", onclick: () => (box.remove(), more.act()) }, more.words);
  const box = el("div", { class: "toast", "data-tone": tone, role: tone === "bad" ? "alert" : "status" }, el("p", {}, words), button, close);
  list.append(box);
  while (list.children.length > (innerHeight < LOW ? FEW : MOST)) list.firstElementChild.remove();
  setTimeout(() => box.remove(), SECONDS[tone] * 1000);
}

/** Tell a screen reader, in turn and not in the middle of a word. */
export function announce(sentences) {
  if (!sentences.length) return;
  document.getElementById("announcer").textContent = sentences.slice(0, 5).join(". ");
}
