// The sign-in. A link of the command line carries the token behind the #, which no server and no log ever sees.

import { offerSettings } from "./settings.js";
import { text } from "./text.js";

const error = document.getElementById("sign-in-error");
const token = location.hash.slice(1);

offerSettings();

if (location.search === "?expired" && error.hidden) {
  error.textContent = text("login.expired");
  error.hidden = false;
}
if (token) {
  history.replaceState(null, "", location.pathname);
  document.getElementById("token").value = decodeURIComponent(token);
  document.getElementById("sign-in").requestSubmit();
}
