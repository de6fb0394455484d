// Reasons and answers come in English. Here they are said in the language of the page: taken apart by the templates that
// they were made of, which the page brings with it, so there is no second list of English sentences to keep in step.
// What was made of none of them, a log line or another program's message, is quoted as it is.

import { text, word } from "./text.js";

const given = JSON.parse(document.getElementById("sentences").textContent);
const FIELD = /\{(\w+)\}/;
const SPAN = "[\\d.]+ (?:s|min|h|d)";
const DEEPEST = 6; // sentences within each other; whoever writes more has written them himself
const MOST = 1000; // sentences remembered: most come again with each state
const remembered = new Map();

const sets = Object.fromEntries(["numbers", "spans", "families"].map((name) => [name, new Set(given[name])]));
const all = given.sentences.map(([kind, name, english, other]) => ({ kind, name, english, other }));
const family = (name) => all.filter((each) => each.name.startsWith(`${name.toUpperCase()}_`));

const sentences = all.map((each) => ({
  ...each,
  fields: each.english.split(FIELD).filter((_, at) => at % 2),
  pattern: new RegExp(`^${source(each.english, true)}$`, "s"),
}));
const facts = sentences.filter(({ name }) => name.startsWith("FACT_"));
const whole = sentences.filter((each) => !facts.includes(each));
const within = whole.filter(({ kind }) => kind === "Say");
const holder = sentences.filter(({ name }) => name === "HOLDER");
const andMore = sentences.filter(({ name }) => name === "HOLDERS_AND_MORE");
const holders = new RegExp(holder.map(({ english }) => source(english, false)).join(""), "gs");

/** A reason, or an answer of the server, in the language of the page. */
export function say(words) {
  if (!words || !all.length) return words ?? "";
  if (!remembered.has(words)) {
    if (remembered.size >= MOST) remembered.delete(remembered.keys().next().value);
    remembered.set(words, said(words, whole).words);
  }
  return remembered.get(words);
}

/** Who asked for something. */
export const asker = (by) => field("by", by, 0).words;

const quote = (words) => ({ words, quoted: words.length });

/** The words by the sentence that leaves the least of them to be quoted; as they are where none fits. */
function said(words, among, depth = 0) {
  let best = quote(words);
  if (depth > DEEPEST) return best;
  for (const { pattern, fields, other } of among) {
    const found = pattern.exec(words);
    if (!found) continue;
    const values = Object.fromEntries(fields.map((name, at) => [name, field(name, found[at + 1], depth + 1)]));
    const quoted = Object.values(values).reduce((sum, value) => sum + value.quoted, 0);
    if (quoted < best.quoted) best = { words: other.replace(/\{(\w+)\}/g, (_, name) => values[name].words), quoted };
  }
  return best;
}

function field(name, value, depth) {
  if (name === "why" || name === "failure") return said(value, within, depth);
  if (name === "by") return named("by", value) ?? said(value, within, depth);
  if (name === "cause") return named("cause", value) ?? quote(value);
  if (name === "kind") return named("kind", value.replaceAll(" ", "_")) ?? quote(value);
  if (name === "holders" || name === "others") return ofHolders(value, depth);
  if (name === "facts") return joined(value.split(", ").map((fact) => ofFact(fact, depth)), ", ");
  if (sets.numbers.has(name)) return { words: value, quoted: 0 };
  if (sets.spans.has(name)) return { words: span(value), quoted: 0 };
  return sets.families.has(name) ? said(value, sentences, depth) : quote(value);
}

function named(family, name) {
  const found = word(family, name);
  return found === name ? null : { words: found, quoted: 0 };
}

/** Some lengths of time, such as "1 min 15 s". */
const span = (words) => words.replace(/([\d.]+) (s|min|h|d)\b/g, (_, n, unit) => text(`unit.${unit}`, { n }));

function ofHolders(value, depth) {
  const more = said(value, andMore, depth);
  if (more.quoted < value.length) return more;
  return joined((value.match(holders) ?? [value]).map((one) => said(one, holder, depth)), ", ");
}

function ofFact(fact, depth) {
  const known = said(fact, facts, depth);
  return known.quoted < fact.length ? known : said(fact, within, depth);
}

function joined(parts, mark) {
  return { words: parts.map(({ words }) => words).join(mark), quoted: parts.reduce((sum, { quoted }) => sum + quoted, 0) };
}

/** The source of a pattern that a sentence fits; its fields are groups where they are wanted. */
function source(template, wanted) {
  return template
    .split(FIELD)
    .map((part, at) => (at % 2 ? `(${wanted ? "" : "?:"}${ofField(part)})` : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")))
    .join("");
}

function ofField(name) {
  if (sets.numbers.has(name)) return "-?[\\d.]+";
  if (sets.spans.has(name)) return `${SPAN}(?: ${SPAN})?`;
  return sets.families.has(name) ? family(name).map(({ english }) => source(english, false)).join("|") : ".+?";
}
