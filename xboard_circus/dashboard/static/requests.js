// What is in flight now, the oldest first: asked for again and again while the view is open.

import { get, poll, Refused } from "./api.js";
import { el, Keyed, set, show, write } from "./dom.js";
import { duration, text } from "./text.js";

const EVERY = 2000; // ms between two questions
const $ = (id) => document.getElementById(id);

export class Requests {
  constructor() {
    this.rows = new Keyed($("requests-rows"), ({ watcher, pid, id }) => `${watcher}/${pid}/${id}`, () => new Row());
    this.turn = 0;
  }

  open() {
    const turn = (this.turn += 1);
    poll(() => turn === this.turn, () => this.ask(turn), () => EVERY);
  }

  close() {
    this.turn += 1;
  }

  async ask(turn) {
    try {
      const { requests } = await get("api/requests");
      if (turn === this.turn) this.draw(requests);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (turn === this.turn) this.notice(text("requests.failed", { message: refused.message }));
    }
  }

  draw(requests) {
    this.notice(requests.length ? "" : text("requests.none"));
    show($("requests-table"), requests.length > 0);
    this.rows.update(requests);
  }

  notice(words) {
    write($("requests-notice"), words);
    show($("requests-notice"), Boolean(words));
  }
}

class Row {
  constructor() {
    this.cells = Array.from({ length: 4 }, () => el("td"));
    this.node = el("tr", {}, ...this.cells);
  }

  update({ watcher, slot, pid, method, route, id, age, state }) {
    const runs = state === "running";
    set(this.node, "data-running", runs);
    const named = `${method} ${route}`;
    const words = [duration(age), runs ? text("requests.runs", { request: named }) : named, `${watcher} #${slot} (${pid})`, id];
    this.cells.forEach((cell, at) => write(cell, words[at]));
  }
}
