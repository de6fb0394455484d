// Buttons that change something: asked first where it hurts, disabled while it runs, and told what came of it.

import { Refused, act } from "./api.js";
import { confirmed } from "./dialogs.js";
import { el, set, show } from "./dom.js";
import { text } from "./text.js";
import { toast } from "./toasts.js";

/**
 * A button for one action. `details()` are the fields that it sends, `question()` what is asked before, if anything;
 * `undo` is the action that takes it back, offered for some seconds. Its look: "main", "danger" or "plain".
 */
export function actionButton({ words, label, action, details, question, undo, look = "plain" }) {
  const button = el("button", { type: "button", class: `button button-${look}`, "aria-label": label, title: label }, words);
  button.addEventListener("click", () => run(button, { action, details, question, undo }));
  return button;
}

/** Buttons behind "…": what harms, so that nobody presses it by mistake. */
export class Menu {
  constructor(label, ...buttons) {
    this.buttons = buttons;
    this.summary = el("summary", { class: "button", "aria-label": label, title: label }, "…");
    this.node = el("details", { class: "menu" }, this.summary, el("div", { class: "menu-items card" }, ...buttons));
    this.node.addEventListener("keydown", ({ key }) => key === "Escape" && this.close(true));
    // Before the button's own: a question gives the focus back to what had it, and the button is hidden by then.
    this.node.addEventListener("click", ({ target }) => target.closest("button") && this.close(true), true);
    this.node.addEventListener("focusout", ({ relatedTarget }) => relatedTarget && !this.node.contains(relatedTarget) && this.close());
  }

  close(takesFocus = false) {
    if (takesFocus && this.node.open) this.summary.focus({ preventScroll: true });
    this.node.open = false;
  }

  /** Show it where it has a button that can be pressed in this state. */
  update() {
    show(this.node, this.buttons.some((button) => !button.hidden));
  }
}

// One listener for all: one of each menu would keep those of rows that are gone.
document.addEventListener("click", ({ target }) => {
  for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(target)) menu.open = false;
});

/** Allow a button or not; one whose action runs stays disabled. */
export function allow(button, wanted) {
  button.dataset.wanted = wanted ? "yes" : "no";
  button.disabled = !wanted || button.getAttribute("aria-busy") === "true";
}

async function run(button, { action, details, question, undo }) {
  if (question && !(await confirmed(question()))) return;
  set(button, "aria-busy", "true");
  button.disabled = true;
  try {
    const given = details();
    toast(await act(action, given), "good", undo && { words: text("undo"), act: () => run(button, { action: undo, details: () => given }) });
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    toast(refused.message, "bad");
  } finally {
    set(button, "aria-busy", null);
    button.disabled = button.dataset.wanted === "no";
    keepFocus(button);
  }
}

// A disabled button loses the focus, and the keyboard would begin at the top of the page again.
function keepFocus(button) {
  if (document.activeElement !== document.body) return;
  const home = button.disabled || button.hidden ? button.closest("[data-part]")?.querySelector("[data-home]") : button;
  home?.focus({ preventScroll: true });
}
