// Make and change elements. What comes from outside gets in by textContent and setAttribute alone, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; an attribute that is false or null is left out, `on...` are listeners, children nodes or texts. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for a part of an SVG drawing. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A button that looks like a link. */
export const linkButton = (words, onclick) => el("button", { type: "button", class: "link", onclick }, words);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else set(node, name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Set an attribute if it is not so already; null and false take it away, true sets it to nothing. */
export function set(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

/** Write a text if it is not there already, so that a screen reader and a selection are left in peace. */
export function write(node, words) {
  const wanted = words ?? "";
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** The same, with what stands between backticks as code. */
export function writeCode(node, words) {
  if (node.textContent === words.replaceAll("`", "")) return;
  node.replaceChildren(...words.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part)));
}

/** Show or hide. */
export function show(node, wanted) {
  if (node.hidden === wanted) node.hidden = !wanted;
}

/**
 * Keeps one view for each item of a list, in its order. A view has a `node` and an `update(item)`; those whose item
 * is gone are removed, the others stay, with their focus, scroll position and open menus.
 */
export class Keyed {
  constructor(parent, keyOf, make) {
    this.parent = parent;
    this.keyOf = keyOf;
    this.make = make;
    this.views = new Map();
  }

  update(items) {
    const wanted = new Map(items.map((item) => [this.keyOf(item), item]));
    // First, so that the others need not be moved.
    for (const [key, view] of this.views) {
      if (wanted.has(key)) continue;
      view.node.remove();
      this.views.delete(key);
    }
    let place = this.parent.firstElementChild;
    for (const [key, item] of wanted) {
      if (!this.views.has(key)) this.views.set(key, this.make(item));
      const view = this.views.get(key);
      if (view.node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(view.node, place);
      view.update(item);
    }
  }
}
