// The words of the page in the language it was rendered in, and figures as people read them.

const catalogue = JSON.parse(document.getElementById("catalogue").textContent);
const language = document.documentElement.lang;

/** The text of a key, with {name} replaced by the value of that name. */
export function text(key, values = {}) {
  const found = catalogue[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** The word for a state or kind that circusd names; one that is not in the catalogue stands for itself. */
export function word(family, name) {
  return catalogue[`${family}.${name}`] ?? String(name ?? "");
}

const number = (digits) => new Intl.NumberFormat(language, { maximumFractionDigits: digits });
const whole = number(0);
const tenths = number(1);

export const count = (value) => whole.format(value);

/** Seconds, in the largest unit that still tells something. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const s = Math.max(0, seconds);
  if (s < 99.5) return text("unit.s", { n: whole.format(Math.floor(s)) });
  if (s < 99.5 * 60) return text("unit.min", { n: whole.format(Math.floor(s / 60)) });
  if (s < 48 * 3600) return text("unit.h", { n: whole.format(Math.floor(s / 3600)) });
  return text("unit.d", { n: whole.format(Math.floor(s / 86400)) });
}

export function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const ms = seconds * 1000;
  return `${(ms < 10 ? tenths : whole).format(ms)} ms`;
}

export function percent(value) {
  if (value === null || value === undefined) return "";
  return `${(value < 10 ? tenths : whole).format(value)} %`;
}

/** A part of the whole in per cent; no outage is rounded away. */
export const shareOf = (part) => (part === null ? "–" : `${number(2).format(part === 1 ? 100 : Math.min(99.99, 100 * part))} %`);

export function perSecond(value) {
  return value === null || value === undefined ? "" : text("unit.per_s", { n: (value < 10 ? tenths : whole).format(value) });
}

export function bytes(value) {
  if (value === null || value === undefined) return "";
  const mib = value / 1048576;
  return mib < 1000 ? `${whole.format(mib)} MiB` : `${tenths.format(mib / 1024)} GiB`;
}

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium", hour12: false });

/** Wall-clock seconds since 1970: the time of day, with the date in front when it is not today's. */
export function timeOf(seconds) {
  const at = new Date(seconds * 1000);
  const today = at.toDateString() === new Date().toDateString();
  return today ? clock.format(at) : `${day.format(at)} ${clock.format(at)}`;
}

export const fullTime = (seconds) => full.format(new Date(seconds * 1000));
