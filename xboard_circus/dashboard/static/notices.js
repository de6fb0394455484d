// Notifications of the browser on a change of a verdict: only where somebody asked for them by the button.

import { set, show } from "./dom.js";
import { overWords, placeOf } from "./headlines.js";
import { reasonIn } from "./reason.js";
import { text } from "./text.js";
import { toast } from "./toasts.js";

const KEY = "xboard_notify"; // where it is kept that this browser shows them
const button = document.getElementById("notify");

/** Whether they are wanted and allowed, so that a page in the background has to go on. */
export const areOn = () => localStorage.getItem(KEY) === "on" && globalThis.Notification?.permission === "granted";

/** Make the button work; browsers allow notifications only to pages of this host or behind TLS. */
export function offerNotices(changed) {
  show(button, isSecureContext && "Notification" in globalThis);
  button.addEventListener("click", async () => {
    if (areOn()) localStorage.removeItem(KEY);
    else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(KEY, "on");
    else toast(text("notify.refused"), "bad");
    draw();
    changed();
  });
  draw();
}

function draw() {
  set(button, "aria-pressed", String(areOn()));
}

/** Notify of each line of trouble that is new or has another word, and of what is well again. */
export class Notices {
  constructor() {
    this.known = null;
  }

  /** Take the lines of trouble, each with its server. */
  update(troubled) {
    const now = new Map(troubled.map((item) => [placeOf(item), item]));
    const before = this.known;
    this.known = now;
    if (before === null || !areOn()) return;
    for (const [place, item] of now) {
      if (before.get(place)?.line.word !== item.line.word) notify(item, item.line.lines.map((each) => reasonIn(each)));
    }
    for (const [place, item] of before) {
      if (!now.has(place)) notify(item, [overWords(item)]);
    }
  }
}

// The tag has a later one of the same watcher take the place of an earlier one.
function notify(item, [title, ...rest]) {
  new Notification(title, { body: rest.join(text("sentence.between")).replaceAll("`", ""), tag: placeOf(item), icon: "static/icon.svg" });
}
