// The colours of a terminal in a line of a log, as spans that the theme colours.

import { el } from "./dom.js";

const CODE = /\x1b\[([\d;:]*)m/;
const CODES = new RegExp(CODE, "g");
const HUES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]; // by their bits: red, green, blue
const STYLES = { 1: "bold", 3: "italic", 4: "underline" };
const ENDS = { 22: "bold", 23: "italic", 24: "underline" };

/** A line without its colours. */
export const plain = (line) => (line.includes("\x1b") ? line.replace(CODES, "") : line);

/** The texts and spans of a line. */
export function coloured(line) {
  const nodes = [];
  let look = {};
  line.split(CODE).forEach((part, at) => {
    if (at % 2) look = after(look, part.split(/[;:]/).map(Number));
    else if (part) nodes.push(Object.keys(look).length ? el("span", { class: Object.values(look).map((each) => `ansi-${each}`).join(" ") }, part) : part);
  });
  return nodes;
}

/** A look after the numbers of a code; what is unknown changes nothing. */
function after(look, numbers) {
  const next = { ...look };
  for (let at = 0; at < numbers.length; at += 1) {
    const number = numbers[at];
    if (number === 0) for (const name of Object.keys(next)) delete next[name];
    else if (STYLES[number]) next[STYLES[number]] = STYLES[number];
    else if (ENDS[number]) delete next[ENDS[number]];
    else if ((number >= 30 && number <= 37) || (number >= 90 && number <= 97)) next.hue = HUES[number % 10];
    else if (number === 39) delete next.hue;
    else if (number === 38 || number === 48) {
      const size = numbers[at + 1] === 5 ? 2 : 4;
      if (number === 38) next.hue = size === 2 ? hueOf(numbers[at + 2]) : nearest(numbers.slice(at + 2, at + 5));
      at += size;
    }
  }
  return next;
}

/** The hue of one of 256 colours: 16 of the terminal, a cube of 6 x 6 x 6, and greys. */
function hueOf(number) {
  if (number < 16) return HUES[number % 8];
  if (number > 231) return "white";
  const cube = number - 16;
  return nearest([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6]);
}

function nearest(parts) {
  const middle = (Math.max(...parts) + Math.min(...parts)) / 2;
  return HUES[parts.reduce((bits, part, at) => bits + (part > middle ? 1 << at : 0), 0)];
}
