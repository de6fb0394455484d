// Choice boxes whose choices come and go with the state, without losing what is chosen.

import { el, show } from "./dom.js";

/** Put [value, words] into a select; the chosen one stays chosen while it is among them. */
export function offer(select, choices) {
  const wanted = JSON.stringify(choices);
  if (select.dataset.offered === wanted) return;
  select.dataset.offered = wanted;
  const chosen = select.dataset.wish ?? select.value;
  select.replaceChildren(...choices.map(([value, words]) => el("option", { value }, words)));
  if (choices.some(([value]) => value === chosen)) {
    select.value = chosen;
    delete select.dataset.wish;
  }
}

/** Choose a value, now or as soon as it is offered. */
export function choose(select, value) {
  if ([...select.options].some((option) => option.value === value)) select.value = value;
  else select.dataset.wish = value;
}

/** Keep in the address what is chosen, so that a page that is loaded anew, or a link to it, shows the same. */
export function keepAddress(...parts) {
  globalThis.history.replaceState(null, "", `#${parts.map(encodeURIComponent).join("/")}`.replace(/\/+$/, ""));
}

/** Offer the circusds; with only one there is nothing to choose. */
export function offerServers(select, field, servers) {
  offer(select, servers.map(({ id, label }) => [id, label]));
  show(field, servers.length > 1);
}

/** A view of one watcher, chosen by its selects `server` and `watcher`; `reload` fetches what it shows. */
export class WatcherView {
  /** Open the view, perhaps for one watcher of one circusd. */
  open(serverId, watcherName) {
    if (serverId) choose(this.server, serverId);
    if (watcherName) choose(this.watcher, watcherName);
    this.isOpen = true;
    this.reload();
  }

  close() {
    this.isOpen = false;
    this.turn += 1;
  }
}
