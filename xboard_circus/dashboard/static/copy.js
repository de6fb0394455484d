// A button that copies words, such as a command.

import { el, write } from "./dom.js";
import { text } from "./text.js";

/** The button; it copies what `words()` returns. */
export function copyButton(words) {
  const button = el("button", { type: "button", class: "button" }, text("copy"));
  button.addEventListener("click", async () => {
    await copied(words());
    write(button, text("copied"));
    setTimeout(() => write(button, text("copy")), 2000);
  });
  return button;
}

// Without https, and not on this host, a browser has no clipboard for a page: an old way is left.
async function copied(words) {
  if (navigator.clipboard) return navigator.clipboard.writeText(words);
  const field = el("textarea", { class: "hidden" });
  field.value = words;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
