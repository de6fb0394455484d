// The options in force of a watcher or of circusd itself, to read only; the server masks what is secret.

import { get, Refused } from "./api.js";
import { el, show, write } from "./dom.js";
import { text } from "./text.js";

const $ = (id) => document.getElementById(id);

/** Show them in a dialog: those of the file first, each with its place. */
export async function showOptions(server, name = "") {
  write($("options-title"), text("options.of", { name: name || "circusd" }));
  $("options-rows").replaceChildren();
  show($("options-notice"), false);
  $("options-dialog").showModal();
  try {
    const { options } = await get("api/options", { server: server.id, watcher: name });
    const rows = [...options.filter(({ place }) => place), ...options.filter(({ place }) => !place)];
    $("options-rows").replaceChildren(...rows.map(row));
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    write($("options-notice"), refused.message);
    show($("options-notice"), true);
  }
}

const row = ({ name, value, place }) => el("tr", {}, el("th", { scope: "row", class: "mono" }, name), el("td", { class: "mono" }, value), el("td", { class: "muted" }, place || text("options.default")));
