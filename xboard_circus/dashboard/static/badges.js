// A state as a word with a shape and a colour: none of the three says anything alone.

import { el, set, svg, write } from "./dom.js";
import { text, word } from "./text.js";

const SHAPES = {
  dot: "M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8z",
  half: "M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8zm0 1.4v5.2a2.6 2.6 0 0 0 0-5.2z",
  ring: "M5 1a4 4 0 1 1 0 8a4 4 0 1 1 0-8zm0 1.4a2.6 2.6 0 1 0 0 5.2a2.6 2.6 0 1 0 0-5.2z",
  triangle: "M5 .8 9.6 9H.4z",
  square: "M1.4 1.4h7.2v7.2H1.4z",
  diamond: "M5 .4 9.6 5 5 9.6.4 5z",
  bars: "M2 1.5h2.2v7H2zM5.8 1.5H8v7H5.8z",
  arrow: "M1 4h4V1.2L9.6 5 5 8.8V6H1z",
  query: "M4.2 7.4h1.5v1.5H4.2zM2.4 3.3C2.5 1.9 3.5 1 5 1s2.6.9 2.6 2.2c0 1-.5 1.6-1.3 2.1-.5.3-.6.5-.6 1v.2H4.2v-.4c0-1 .3-1.4 1.1-1.9.5-.3.7-.6.7-1s-.4-.8-1-.8c-.7 0-1.1.4-1.1.9z",
};

// verdict, condition of a worker, state of a port, or kind of event -> [tone, shape]
const LOOKS = {
  ok: ["good", "dot"],
  degraded: ["warn", "half"],
  down: ["bad", "triangle"],
  looping: ["bad", "bars"],
  blocked: ["bad", "diamond"],
  dependency: ["bad", "ring"],
  deploying: ["info", "arrow"],
  stopped: ["idle", "square"],
  nothing_serves: ["bad", "square"],
  reload_failed: ["warn", "arrow"],
  // incidents
  open: ["bad", "triangle"],
  over: ["idle", "dot"],
  // workers
  up: ["good", "dot"],
  busy: ["warn", "half"],
  starting: ["info", "arrow"],
  held: ["warn", "bars"],
  not_ready: ["warn", "ring"],
  failing: ["warn", "triangle"],
  sick: ["bad", "triangle"],
  hung: ["bad", "square"],
  leaving: ["idle", "half"],
  gone: ["idle", "square"],
  // ports
  bound: ["good", "dot"],
  waiting: ["warn", "bars"],
  cleaning: ["info", "arrow"],
  refused: ["bad", "diamond"],
  none: ["idle", "ring"],
  // kinds of the ledger
  restart: ["warn", "arrow"],
  cooldown: ["bad", "bars"],
  recovered: ["good", "dot"],
  unhealthy: ["bad", "triangle"],
  port_freed: ["info", "dot"],
  port_refused: ["bad", "diamond"],
  port_shared: ["bad", "diamond"],
  port_shut: ["bad", "diamond"],
  circusd_lost: ["bad", "square"],
  circusd_back: ["good", "arrow"],
  host_restarted: ["info", "arrow"],
  spawn: ["idle", "arrow"],
  reap: ["idle", "square"],
  kill: ["idle", "diamond"],
  start: ["idle", "arrow"],
  stop: ["idle", "square"],
  command: ["info", "diamond"],
  ready: ["good", "dot"],
  end: ["idle", "square"],
  replace: ["warn", "arrow"],
  replaced: ["warn", "arrow"],
  kept: ["warn", "ring"],
  output_lost: ["warn", "square"],
  output_back: ["good", "dot"],
  poison: ["bad", "diamond"],
  slow_request: ["warn", "half"],
  before_done: ["info", "dot"],
  before_failed: ["bad", "ring"],
  preflight_failed: ["bad", "ring"],
  reload_begin: ["info", "arrow"],
  reload_end: ["info", "dot"],
};

/** The colour of a verdict, condition or kind: good, info, idle, warn or bad. */
export const toneOf = (state) => (LOOKS[state] ?? ["idle", "query"])[0];

export class Badge {
  constructor(family = "state") {
    this.family = family;
    this.shape = svg("path", { "fill-rule": "evenodd", fill: "currentColor" });
    this.words = el("span");
    this.icon = svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, this.shape);
    this.node = el("span", { class: "badge" }, this.icon, this.words);
  }

  /** Show a state; one that is too old is grey, with a question mark, and in the past. */
  update(state, stale = false) {
    const [tone, shape] = stale ? ["idle", "query"] : LOOKS[state] ?? ["idle", "query"];
    set(this.node, "data-tone", tone);
    set(this.node, "data-state", state);
    set(this.shape, "d", SHAPES[shape]);
    write(this.words, stale ? text("state.stale", { state: word(this.family, state) }) : word(this.family, state));
  }
}
