// The dialogs: a question before what hurts, and the forms.

import { Refused } from "./api.js";
import { show, write } from "./dom.js";
import { text } from "./text.js";

const $ = (id) => document.getElementById(id);

/** Ask before something is done; true for yes. With `typed` only after that word was typed. */
export function confirmed({ title, what, yes, typed = "" }) {
  const dialog = $("confirm");
  const input = $("confirm-typed");
  input.value = "";
  show($("confirm-field"), typed !== "");
  write($("confirm-label"), text("confirm.type", { typed }));
  const check = () => ($("confirm-yes").disabled = typed !== "" && input.value.trim() !== typed);
  input.oninput = check;
  check();
  write($("confirm-title"), title);
  write($("confirm-text"), what);
  write($("confirm-yes"), yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Make the form of a dialog send its fields to `send(fields)`; a no of the server stands in the dialog. */
export function formDialog(dialogId, formId, send) {
  const [dialog, form] = [$(dialogId), $(formId)];
  const error = form.querySelector("[data-error]");
  const button = form.querySelector("[type=submit]");
  let context = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    show(error, false);
    try {
      await send(Object.fromEntries(new FormData(form)), context);
      dialog.close();
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      write(error, refused.message);
      show(error, true);
    } finally {
      button.disabled = false;
    }
  });
  return (about) => {
    context = about;
    form.reset();
    show(error, false);
    dialog.showModal();
  };
}

/** Close buttons, and a click beside a dialog. */
export function closeable() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
}
