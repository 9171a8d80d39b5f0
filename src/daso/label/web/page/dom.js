// Elements, pictures and small formats. Text always becomes text nodes, never markup.

export const body = document.body;
const SVG = "http://www.w3.org/2000/svg";

export function h(kind, values = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
    else if (name in made && !name.startsWith("aria") && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function svg(kind, values = {}, ...children) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  made.append(...children.flat());
  return made;
}

const ICONS = {
  check: "M5 12.500 10 17.500 19.500 7",
  cross: "M6.500 6.500l11 11M17.500 6.500l-11 11",
  grid: "M4.500 4.500h6v6h-6zM13.500 4.500h6v6h-6zM4.500 13.500h6v6h-6zM13.500 13.500h6v6h-6z",
  one: "M4.500 4.500h15v15h-15z",
  skip: "M6 6l7 6-7 6zM17.500 6v12",
  none: "M12 4.500a7.500 7.500 0 1 0 0 15 7.500 7.500 0 0 0 0-15zM6.700 6.700l10.600 10.600",
  undo: "M8.500 5 4.500 9l4 4M4.500 9h9.500a5 5 0 0 1 0 10h-5",
  like: "M10.500 4.500a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15 15l5 5",
  plus: "M12 5v14M5 12h14",
  doubt: "M8.500 9a3.500 3.500 0 1 1 5 3.200c-1 .500-1.500 1.200-1.500 2.300M12 18v.500",
  rare: "M12 4.500l2.300 5 5.200.600-3.900 3.600 1.100 5.300-4.700-2.700L7.300 19l1.100-5.300L4.500 10.100l5.200-.600z",
  discovery: "M12 3.500v3M12 17.500v3M3.500 12h3M17.500 12h3M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  any: "M5 5h14v14H5zM9 9v.100M15 9v.100M12 12v.100M9 15v.100M15 15v.100",
  typical: "M12 5a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  offline: "M5 5l14 14M8 16.500a5.500 5.500 0 0 1 6-1M4.500 12a11 11 0 0 1 4-2.700M13 8.200a11 11 0 0 1 6.500 3.800M12 19.500v.100",
  train: "M4.500 12a7.500 7.500 0 0 1 13-5.100L19.500 9M19.500 4.500V9H15M19.500 12a7.500 7.500 0 0 1-13 5.100L4.500 15M4.500 19.500V15H9",
};

export const icon = (name) =>
  svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] }));

export const cap = (key) => (key ? h("kbd", { "aria-hidden": "true" }, key) : null);

// A button of the bar below a view, with the key that does the same.
export const tool = (mark, words, key, onclick, more = {}) =>
  h("button", { type: "button", "aria-keyshortcuts": key, onclick, ...more }, icon(mark), h("span", {}, words), cap(key));

export const actionbar = (...tools) => h("div", { class: "actionbar", role: "toolbar", "aria-label": "What to do" }, tools);

export const toSuggested = (words = "Suggested images") => h("a", { class: "button primary", href: "#suggested" }, words);

const stamp = body.dataset.stamp;
export const address = (image, side) => `/thumb/${image}?side=${Math.round(side * Math.min(2, devicePixelRatio || 1))}&v=${stamp}`;

// A picture of an image; one that could not be fetched is left blank, and fetched again by "renew".
export const picture = (image, side, text, values = {}) =>
  h("img", { src: address(image, side), alt: text, decoding: "async", draggable: "false", onerror: (event) => event.currentTarget.classList.add("lost"), ...values });

export function renew() {
  for (const lost of document.querySelectorAll("img.lost")) {
    lost.classList.remove("lost");
    lost.src = lost.getAttribute("src");
  }
}

const warmed = new Map();
export function preload(images, side) {
  for (const image of images) {
    const at = address(image, side);
    if (warmed.has(at)) continue;
    const ahead = new Image();
    ahead.src = at;
    warmed.set(at, ahead);
    if (warmed.size > 80) warmed.delete(warmed.keys().next().value);
  }
}

export { fixed, percent } from "./numbers.js";
export const count = (value) => Math.round(value).toLocaleString("en-US");
export const images = (value) => `${count(value)} ${value === 1 ? "image" : "images"}`;

// Says something to those who do not see the page; of several words within a moment, the last.
let saying = null;
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => (document.getElementById("said").textContent = text), 100);
}

// What to do where a key would decide about images, but none is meant.
export const CHOOSE = "Choose images first: click them, or move with the arrows and press Space.";

// What was decided about some images, in words.
export const decided = (path, many, label) => `${images(many)} ${{ assign: `labeled ${label}`, none: "of none of these classes", skip: "skipped", keep: "kept as labeled" }[path]}.`;

export function toast(text, kind = "note", seconds = 6) {
  const made = h("div", { class: `toast ${kind}` }, text, h("button", { type: "button", class: "plain", "aria-label": "Close this note", onclick: () => made.remove() }, icon("cross")));
  document.getElementById("toasts").append(made);
  while (document.getElementById("toasts").children.length > 3) document.getElementById("toasts").firstChild.remove();
  setTimeout(() => made.remove(), 1000 * seconds);
}

// A state of a whole view: a mark, a title, a sentence, and what to do. It is said, too, unless it passes.
export function blank(mark, title, text, ...actions) {
  if (mark !== "wait") say(`${title}. ${text}`);
  return h("section", { class: "state" }, h("div", { class: `mark ${mark}`, "aria-hidden": "true" }, mark === "wait" ? h("span", { class: "spinner" }) : icon(mark)), h("h2", {}, title), h("p", {}, text), actions.length ? h("div", { class: "actions" }, actions) : null);
}
