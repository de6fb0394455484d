// The sign-in. A link of the command line carries the token behind the #, which no server and no log ever sees.

import { offerSettings } from "./settings.js";
import { text } from "./text.js";

const error = document.getElementById("sign-in-error");
offerSettings();

if (location.search === "?expired" && error.hidden) {
  error.textContent = text("login.expired");
  error.hidden = false;
}

function useLink() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = decodeURIComponent(token);
  document.getElementById("sign-in").requestSubmit();
}

// A link that is opened in a tab which shows the sign-in already changes the part behind the # alone.
addEventListener("hashchange", useLink);
useLink();
