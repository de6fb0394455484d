// Events of the server, read by fetch: an EventSource cannot send the session.

import { signIn } from "./api.js";
import { PROOF } from "./session.js";

/**
 * Read the events of a path: `heard.NAME(data)` for each, and `heard.error()` when they break off.
 * Returns a function that closes the stream.
 */
export function listen(path, heard) {
  const closing = new AbortController();
  follow(path, heard, closing.signal)
    .catch(() => {})
    .then(() => closing.signal.aborted || heard.error());
  return () => closing.abort();
}

async function follow(path, heard, signal) {
  const response = await fetch(path, { headers: PROOF, cache: "no-store", signal });
  if (response.status === 401) signIn();
  if (!response.ok) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? [];
      if (name && !signal.aborted) call(heard[name], JSON.parse(data));
    }
  }
}

/** What fails in showing an event is an error of the page, and no end of the stream. */
function call(handler, data) {
  try {
    handler?.(data);
  } catch (error) {
    reportError(error);
  }
}
