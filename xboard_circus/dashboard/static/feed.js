// The live state: an event stream that comes back by itself, and what is known of its age meanwhile.

import { get } from "./api.js";
import { listen } from "./stream.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 5000;
const SILENCE = 12; // seconds without an event after which a stream counts as broken, whatever the browser thinks

/** Seconds on a clock that nobody sets. */
export const now = () => performance.now() / 1000;

/**
 * Gives each state to `onState(state)`. `heardAt` is when the last one came, on the clock of `now`, or null;
 * `live` whether the stream stands. `goesOn()` says whether it goes on in a page that nobody sees.
 */
export class Feed {
  constructor(onState, goesOn) {
    this.onState = onState;
    this.goesOn = goesOn;
    this.heardAt = null;
    this.live = false;
    this.source = null;
    this.timer = null;
    this.wait = FIRST_WAIT;
    // Browsers hold six connections to one host: a page that nobody sees gives its own back.
    document.addEventListener("visibilitychange", () => this.see());
    setInterval(() => this.checkSilence(), 1000);
  }

  get isIdle() {
    return document.hidden && !this.goesOn();
  }

  /** Open the stream, or close it, as the page is seen or not. */
  see() {
    if (this.isIdle) this.close();
    else if (!this.source) this.open();
  }

  open() {
    this.close();
    this.openedAt = now();
    this.source = listen("api/stream", { state: (state) => this.hear(state), error: () => this.lose() });
  }

  close() {
    clearTimeout(this.timer);
    this.source?.();
    this.source = null;
    this.live = false;
  }

  hear(state) {
    this.heardAt = now();
    this.live = true;
    this.wait = FIRST_WAIT;
    this.onState(state);
  }

  lose() {
    this.close();
    this.timer = setTimeout(() => this.again(), this.wait);
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  async again() {
    // Where too many pages are open for another stream, this one asks now and then.
    try {
      const state = await get("api/state");
      this.heardAt = now();
      this.onState(state);
    } catch {
      if (!this.isIdle) this.lose();
      return;
    }
    if (!this.isIdle) this.open();
  }

  checkSilence() {
    if (this.source && now() - Math.max(this.openedAt, this.heardAt ?? 0) > SILENCE) this.lose();
  }
}

