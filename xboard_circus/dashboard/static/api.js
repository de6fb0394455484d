// Ask the dashboard's server. Addresses are relative to the page, so that it works below any path prefix.

import { reasonIn } from "./reason.js";
import { PROOF, forget, session } from "./session.js";
import { text } from "./text.js";

const LONGEST = 15000; // a server that is frozen takes a request and never answers it

/** What the server answered in place of what was asked for; the message is for people. */
export class Refused extends Error {}

/** The path with its query; what is null or empty is left out. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Go to the sign-in, which says where a session has ended, and leads back to this view. */
export function signIn() {
  location.replace(`login${session ? "?expired" : ""}${location.hash}`);
}

export async function signOut() {
  await reach("logout", { method: "POST", body: "" }).catch(() => {});
  forget();
  location.assign("login");
}

export async function get(path, query) {
  return answer(await reach(address(path, query), {}));
}

/** Ask again and again, `every()` ms apart, for as long as `goesOn()`; not while the page is hidden. */
export async function poll(goesOn, ask, every) {
  while (goesOn()) {
    if (!document.hidden) await ask();
    await new Promise((resolve) => setTimeout(resolve, every()));
  }
}

/** Carry out an action; the answer is the message of the server. A no raises Refused with its words. */
export async function act(action, details) {
  const reply = await answer(
    await reach("api/actions", {
      method: "POST",
      body: JSON.stringify({ action, ...details }),
    }),
  );
  return reasonIn(reply, "message") || text("done");
}

async function reach(path, options) {
  try {
    const signal = AbortSignal.timeout(LONGEST);
    return await fetch(path, { headers: PROOF, cache: "no-store", signal, ...options });
  } catch {
    throw new Refused(text("failed.network"));
  }
}

async function answer(response) {
  if (response.status === 401) {
    signIn();
    throw new Refused(text("login.expired"));
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    if (response.ok) throw new Refused(text("failed.network"));
  }
  if (!response.ok) throw new Refused(reasonIn(body, "message") || `${text("failed")} (HTTP ${response.status})`);
  return body;
}
