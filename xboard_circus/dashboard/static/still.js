// What the pointer rests on stays where it is: nobody presses one button and hits another that has come in its place.

import { set } from "./dom.js";

const REST = 20000; // ms: a pointer that has stood still for longer is not about to press anything
const KEPT = ".watcher, .headline, .server :is(button, a, select, summary)";

/** Keep what the pointer is over in its place: the part of the page that has it is shifted by what comes or goes above. */
export class Stillness {
  constructor(...parts) {
    this.parts = parts;
    this.shift = 0;
    this.held = [];
    addEventListener("pointermove", (event) => event.pointerType === "mouse" && this.take(event));
    addEventListener("scroll", () => this.at && this.take(this.at), { passive: true });
    for (const kind of ["keydown", "resize"]) addEventListener(kind, () => this.release());
    document.documentElement.addEventListener("pointerleave", () => this.release());
    new MutationObserver(() => this.hold()).observe(parts[0].parentNode, { subtree: true, childList: true, attributes: true, characterData: true });
  }

  /** Note what is under the pointer, with all around it up to the card: a button may vanish, and its row stays. */
  take({ clientX, clientY }) {
    const found = document.elementFromPoint(clientX, clientY);
    const part = found?.closest(KEPT) && this.parts.find((each) => each.contains(found));
    if (!part || part !== this.part) this.release();
    if (!part) return;
    this.part = part;
    this.at = { clientX, clientY };
    this.held = [];
    for (let node = found; node.closest(KEPT); node = node.parentElement) this.held.push({ node, top: node.getBoundingClientRect().top });
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
    this.part.style.top = shift ? `${shift}px` : "";
    set(document.documentElement, "data-held", shift !== 0);
  }
}
