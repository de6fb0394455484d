// Buttons that change something: asked first where it hurts, disabled while it runs, and told what came of it.

import { Refused, act } from "./api.js";
import { confirmed } from "./dialogs.js";
import { el, set } from "./dom.js";
import { toast } from "./toasts.js";

/**
 * A button for one action. `details()` are the fields that it sends, `question()` what is asked before, if anything.
 * Its look: "main", "danger" or "plain".
 */
export function actionButton({ words, label, action, details, question, look = "plain" }) {
  const button = el("button", { type: "button", class: `button button-${look}`, "aria-label": label, title: label }, words);
  button.addEventListener("click", () => run(button, action, details, question));
  return button;
}

/** Allow a button or not; one whose action runs stays disabled. */
export function allow(button, wanted) {
  button.dataset.wanted = wanted ? "yes" : "no";
  button.disabled = !wanted || button.getAttribute("aria-busy") === "true";
}

async function run(button, action, details, question) {
  if (question && !(await confirmed(question()))) return;
  set(button, "aria-busy", "true");
  button.disabled = true;
  try {
    toast(await act(action, details()));
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
