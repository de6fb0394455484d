// The sign-in. A link of the command line carries `#token=`, which no server and no log ever sees. Any other part
// behind the # (after the token it begins with &) is a view of the page that somebody wanted: it opens after the sign-in.

import { copyButton } from "./copy.js";
import { MAY_ACT, keep, session } from "./session.js";
import { offerSettings } from "./settings.js";
import { text } from "./text.js";

const TOKEN = "#token=";
const WRONG = { 401: text("login.wrong"), 429: text("login.limited") };
const error = document.getElementById("sign-in-error");
const form = document.getElementById("sign-in");
const token = document.getElementById("token");
let wanted = ""; // the view
offerSettings();
if (session && !MAY_ACT) document.getElementById("command").textContent = "xboard-circus dashboard --read-only --no-open";
document.getElementById("command").after(" ", copyButton(() => document.getElementById("command").textContent));

function complain(message) {
  error.textContent = message;
  error.hidden = false;
}

if (location.search === "?expired") complain(text("login.expired"));

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const response = await fetch("login", { method: "POST", body: JSON.stringify({ token: token.value }) });
    if (!response.ok) return complain(WRONG[response.status] ?? `${text("failed")} (HTTP ${response.status})`);
    keep((await response.json()).session);
    location.replace(`./${wanted}`);
  } catch {
    complain(text("failed.network"));
  }
});

function useLink() {
  const { hash } = location;
  if (!hash.startsWith(TOKEN)) {
    wanted = hash;
    return;
  }
  const [given, view] = hash.slice(TOKEN.length).split("&", 2);
  if (view) wanted = `#${view}`;
  history.replaceState(null, "", location.pathname + wanted);
  token.value = decodeURIComponent(given);
  form.requestSubmit();
}

// A link that is opened in a tab which shows the sign-in already changes the part behind the # alone.
addEventListener("hashchange", useLink);
useLink();
