// The last five minutes of each worker's figures: what the server kept, and then what comes in with each state.

import { get } from "./api.js";

export const SPAN = 300;
export const FIGURES = ["cpu", "rss", "latency"];

/** What names a worker for as long as it lives; a slot that is held has no process. */
export const keyOf = (worker) => (worker.pid ? `${worker.pid}:${worker.started ?? ""}` : `#${worker.slot}`);

export class History {
  constructor() {
    this.servers = new Map(); // server id -> worker key -> {t, cpu, rss, latency}
  }

  /** The series of a worker; empty ones where nothing is known. */
  of(server, worker) {
    return this.servers.get(server)?.get(keyOf(worker)) ?? empty();
  }

  /** Add the figures of a state, unless circusd gave none this time. */
  add(state) {
    for (const server of state.servers) {
      if (!server.reachable) continue;
      const known = this.servers.get(server.id) ?? new Map();
      this.servers.set(server.id, known);
      const alive = new Set();
      for (const worker of server.watchers.flatMap((watcher) => watcher.workers)) {
        const key = keyOf(worker);
        alive.add(key);
        if (!known.has(key)) known.set(key, empty());
        append(known.get(key), state.now - (server.age ?? 0), worker);
      }
      for (const key of known.keys()) if (!alive.has(key)) known.delete(key);
    }
  }

  /** Fetch what the server kept; it goes before what came in meanwhile. */
  async load(server) {
    let found;
    try {
      found = await get("api/history", { server });
    } catch {
      return; // the curves then begin now
    }
    const known = this.servers.get(server) ?? new Map();
    this.servers.set(server, known);
    for (const [key, series] of Object.entries(found.workers)) {
      const fresh = known.get(key) ?? empty();
      const first = fresh.t[0] ?? Infinity;
      const older = series.t.filter((t) => t < first).length;
      for (const name of ["t", ...FIGURES]) fresh[name] = [...(series[name] ?? []).slice(0, older), ...fresh[name]];
      known.set(key, fresh);
    }
  }
}

const empty = () => ({ t: [], cpu: [], rss: [], latency: [] });

function append(series, t, worker) {
  const last = series.t[series.t.length - 1] ?? -Infinity;
  if (t - last < 0.5) return;
  series.t.push(t);
  for (const name of FIGURES) series[name].push(worker[name] ?? null);
  while (series.t.length && series.t[0] < t - SPAN) for (const name of ["t", ...FIGURES]) series[name].shift();
}
