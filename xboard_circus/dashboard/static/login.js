// The sign-in. A link of the command line carries `#token=`, which no server and no log ever sees. Any other part
// behind the # is a view of the page that somebody wanted: it is kept for after the sign-in.

import { offerSettings } from "./settings.js";
import { text } from "./text.js";

const TOKEN = "#token=";
const error = document.getElementById("sign-in-error");
const form = document.getElementById("sign-in");
offerSettings();

if (location.search === "?expired" && error.hidden) {
  error.textContent = text("login.expired");
  error.hidden = false;
}

function useLink() {
  const { hash } = location;
  if (!hash.startsWith(TOKEN)) {
    // A redirect without a # of its own leads to that of the request: the wanted view opens after the sign-in.
    form.action = `login${hash}`;
    return;
  }
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = decodeURIComponent(hash.slice(TOKEN.length));
  form.requestSubmit();
}

// A link that is opened in a tab which shows the sign-in already changes the part behind the # alone.
addEventListener("hashchange", useLink);
useLink();
