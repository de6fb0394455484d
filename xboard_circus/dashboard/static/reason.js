// A reason in the language of the page: `say` is its key and its fields, `words` its English text.

import { timeOf } from "./text.js";

const sentences = new Map(Object.entries(JSON.parse(document.getElementById("sentences").textContent)));
const WRAPPERS = new Set(["COUNTED", "EVENT"]);
const FIELD = /\{\w+\}/g;
const LATEST = 8.64e12; // seconds that a Date can hold; what circusd says is a claim
const DEEPEST = 12; // the server bounds it, too

/** The reason of a message, by the name that it has there. */
export const reasonIn = (message, name = "reason") =>
  said(message?.[name], message?.[name === "reason" ? "say" : `${name}_say`]);

/** Which sentence a reason is, by its key; of one that is counted, what was counted. */
export const keyOfReason = (say) => (WRAPPERS.has(say?.key) ? say.fields?.why?.key : say?.key) ?? "";

const isMoment = (name, value) => name === "at" && typeof value === "number" && Math.abs(value) <= LATEST;

function said(words, say) {
  return (say?.key && rendered(say)) ?? words ?? "";
}

// As a shell reads it: the command is there to be copied.
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);

// null where any part is not of this catalogue: a circusd of another version may say more.
function rendered(value, depth = 0) {
  if (depth > DEEPEST) return null;
  if (Array.isArray(value)) {
    const items = value.map((each) => rendered(each, depth + 1));
    return items.includes(null) ? null : items.join(sentences.get("between"));
  }
  if (typeof value !== "object") return String(value);
  const values = new Map(Object.entries(value?.fields ?? {}).map(([name, each]) => [name, isMoment(name, each) ? timeOf(each) : rendered(each, depth + 1)]));
  const template = sentences.get(value?.key);
  const wanted = template?.match(FIELD)?.map((field) => field.slice(1, -1)) ?? [];
  if (!template || wanted.some((name) => (values.get(name) ?? null) === null)) return null;
  const shown = (field, isCommand) => (isCommand && field === "watcher" ? quoted : String)(values.get(field));
  return template.split("`").map((part, number) => part.replace(FIELD, (field) => shown(field.slice(1, -1), number % 2))).join("`");
}
