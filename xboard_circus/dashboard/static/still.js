// What the pointer rests on stays where it is: nobody presses one button and hits another that has come in its place.

import { set } from "./dom.js";

const REST = 20000; // ms: a pointer that has stood still for longer is not about to press anything
const CARD = ".watcher";

/** Keep what the pointer is over in a card in its place: `view` is shifted by what comes or goes above it. */
export class Stillness {
  constructor(view) {
    this.view = view;
    this.shift = 0;
    this.held = [];
    addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.take(event));
    addEventListener("scroll", () => this.at && this.take(this.at), { passive: true });
    for (const kind of ["keydown", "resize"]) addEventListener(kind, () => this.release());
    document.documentElement.addEventListener("pointerleave", () => this.release());
    new MutationObserver(() => this.hold()).observe(view.parentNode, { subtree: true, childList: true, attributes: true, characterData: true });
  }

  /** Note what is under the pointer, with all around it up to the card: a button may vanish, and its row stays. */
  take({ clientX, clientY }) {
    this.at = { clientX, clientY };
    const found = document.elementFromPoint(clientX, clientY);
    if (!found?.closest(CARD)) return this.release();
    this.held = [];
    for (let node = found; node.closest(CARD); node = node.parentElement) this.held.push({ node, top: node.getBoundingClientRect().top });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.release(), REST);
  }

  hold() {
    for (const { node, top } of this.held) {
      const moved = node.isConnected && node.getClientRects().length ? node.getBoundingClientRect().top - top : Infinity;
      if (Math.abs(moved) > innerHeight / 2) continue; // a row that went far away would take the whole page along
      if (Math.abs(moved) >= 1) this.move(this.shift - moved);
      return;
    }
  }

  release() {
    clearTimeout(this.timer);
    this.held = [];
    this.at = null;
    if (this.shift) this.move(0);
  }

  move(shift) {
    this.shift = shift;
    this.view.style.top = shift ? `${shift}px` : "";
    set(document.documentElement, "data-held", shift !== 0);
  }
}
