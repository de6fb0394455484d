// The page: one live state, five views of it.

import { act, signIn, signOut } from "./api.js";
import { changes } from "./changes.js";
import { Details } from "./details.js";
import { closeable, formDialog } from "./dialogs.js";
import { Keyed, set, show, write } from "./dom.js";
import { Feed, now } from "./feed.js";
import { Headlines, lineOf } from "./headlines.js";
import { History } from "./history.js";
import { Logs } from "./logs.js";
import { Notices, areOn, offerNotices } from "./notices.js";
import { Requests } from "./requests.js";
import { ServerSection } from "./server.js";
import { MAY_ACT, session } from "./session.js";
import { offerSettings } from "./settings.js";
import { Stillness } from "./still.js";
import { duration, text } from "./text.js";
import { Timeline } from "./timeline.js";
import { announce, toast } from "./toasts.js";
import { Trends } from "./trends.js";

const QUIET = 6; // seconds without news after which the page says so
const $ = (id) => document.getElementById(id);

const figures = new History();
const details = new Details(figures);
const timeline = new Timeline();
const logs = new Logs();
const history = new Trends();
const requests = new Requests();
const headlines = new Headlines($("headlines"));
const notices = new Notices();
const feed = new Feed(onState, areOn);
const addWatcher = formDialog("watcher-dialog", "watcher-form", async (fields, server) => {
  toast(await act("add_watcher", { ...fields, server, numprocesses: Number(fields.numprocesses) }));
});
const addServer = formDialog("server-dialog", "server-form", async (fields) => {
  toast(await act("add_server", fields));
});
const servers = new Keyed(
  $("servers"),
  ({ server }) => server.id,
  ({ server }) => {
    figures.load(server.id);
    return new ServerSection({ server, history: figures, details, addWatcher });
  },
);
let state = null;

function onState(fresh) {
  announce(changes(state, fresh));
  state = fresh;
  figures.add(fresh);
  show($("loading"), false);
  headlines.update(fresh.servers);
  notices.update(headlines.all);
  const heardAt = now();
  servers.update(fresh.servers.map((server) => ({ server, state: fresh, heardAt })));
  timeline.update(fresh);
  logs.update(fresh);
  history.update(fresh);
  draw();
}

/** What changes by itself as time goes by. */
function draw() {
  const age = feed.heardAt === null ? null : now() - feed.heardAt;
  const isQuiet = age === null ? false : age > QUIET || (!feed.live && age > 2);
  const isGone = Boolean(state?.servers.some((server) => lineOf(server, "")?.word === "circusd_lost")); // what it said last is not live
  set($("link-state"), "data-link", age === null ? "none" : isQuiet || isGone ? "lost" : "live");
  write($("link-state"), age === null ? text("link.connecting") : isQuiet ? text("link.lost", { age: duration(age) }) : text(isGone ? "server.unreachable" : "link.live"));
  const stale = [...servers.views.values()].map((view) => view.draw());
  if (state) details.update(state, stale.some(Boolean));
  drawTitle(isQuiet);
}

// The title and the icon of the tab say what the verdicts say: whoever has the tab in the background sees no more.
function drawTitle(isQuiet) {
  if (!state) return;
  const trouble = isQuiet ? text("title.gone") : headlines.title();
  document.title = trouble ? `${trouble} · xboard-circus` : "xboard-circus";
  const look = isQuiet ? "-idle" : { bad: "-bad", warn: "-warn" }[headlines.tone()] ?? "";
  set($("icon"), "href", `static/icon${look}.svg`);
  set($("headlines"), "data-stale", isQuiet);
}

/** Decode a part of an address; one that nobody has encoded stays as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Show the view that the address names: #timeline, #history/SERVER/WATCHER. */
function route() {
  if (location.hash.startsWith("#token=")) return location.replace(`login${location.hash}`); // a link, pasted into a page that is open
  const [name, ...place] = location.hash.slice(1).split("/").map(decoded);
  const views = { overview: null, history, requests, timeline, logs };
  if (name && !Object.hasOwn(views, name)) return; // the skip link
  const chosen = name || "overview";
  for (const [each, view] of Object.entries(views)) {
    if (each !== chosen) view?.close();
    show($(each), each === chosen);
    set(document.querySelector(`[data-view=${each}]`), "aria-current", each === chosen ? "page" : null);
  }
  views[chosen]?.open(...place);
}

new Stillness($("headlines"), $("overview"));
offerSettings();
offerNotices(() => feed.see());
closeable();
show($("reader"), !MAY_ACT);
show($("below"), MAY_ACT);
$("add-server").addEventListener("click", () => addServer());
$("logout").addEventListener("click", signOut);
addEventListener("hashchange", route);
setInterval(draw, 1000);
if (session) {
  feed.open();
  route();
} else signIn();
