// The classes: one button each, with its key and its labels, and a field to search hundreds.

import { cap, count, h, icon, say, toast } from "./dom.js";
import { classes, listen, rareNames } from "./store.js";

const MANY = 12;
const panel = document.getElementById("panel");
const list = h("ul", { class: "classes" });
const search = h("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class", "aria-keyshortcuts": "/", autocomplete: "off", spellcheck: false });
const told = h("p", { class: "note" });
const heading = h("h2", {}, "Classes");
let actions = { assign: () => {}, create: () => {}, back: () => {} };
let rows = new Map();
let guess = null, seen = null;

export function start(given) {
  actions = given;
  const find = h("label", { class: "find" }, icon("like"), search, h("kbd", { "aria-hidden": "true" }, "/"));
  const create = h("button", { type: "button", class: "wide", "aria-keyshortcuts": "+", onclick: () => actions.create() }, icon("plus"), "New class", cap("+"));
  panel.replaceChildren(h("div", { class: "head" }, heading, told), find, list, create);
  search.addEventListener("input", () => { filter(); say(told.textContent); });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { clear(); actions.back(); }
    else if (event.key === "Enter") {
      const first = [...list.children].find((row) => !row.hidden);
      if (first) { const name = first.dataset.name; clear(); search.blur(); actions.assign(name); actions.back(); }
      else if (search.value.trim()) actions.create(search.value.trim());
    } else if (event.key === "ArrowDown") list.querySelector("li:not([hidden]) button")?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  listen(update);
}

export function focusSearch() {
  if (!search.offsetParent) return toast(`A field to find a class appears with more than ${MANY} of them.`);
  search.focus();
  search.select();
}

function clear() {
  search.value = "";
  filter();
}

function filter() {
  const wanted = search.value.trim().toLocaleLowerCase();
  let shown = 0, firstShown = null, first = "";
  for (const [name, row] of rows) {
    row.item.hidden = !name.toLocaleLowerCase().includes(wanted);
    row.item.classList.remove("first");
    if (!row.item.hidden) { shown++; firstShown ??= row.item; first ||= name; }
  }
  if (wanted) firstShown?.classList.add("first");
  told.textContent = !wanted ? `${rows.size} in all` : shown ? `${shown} of ${rows.size}; Enter: ${first}` : "none; Enter makes it a new class";
}

function update() {
  const all = classes(), names = all.map((one) => one.name);
  if (names.length !== rows.size || names.some((name) => !rows.has(name))) build(all);
  const most = Math.max(1, ...all.map((one) => one.labels)), rare = rareNames();
  for (const one of all) {
    const row = rows.get(one.name);
    if (row.labels !== one.labels) {
      if (row.labels !== null && one.labels > row.labels) { row.item.classList.remove("bumped"); void row.item.offsetWidth; row.item.classList.add("bumped"); }
      row.labels = one.labels;
      row.count.textContent = count(one.labels);
    }
    row.item.style.setProperty("--share", Math.sqrt(one.labels / most).toFixed(3));
    row.item.classList.toggle("rare", all.length > 2 && rare.has(one.name));
    row.button.setAttribute("aria-label", `${one.name}, ${one.labels} labels${all.length > 2 && rare.has(one.name) ? ", rare" : ""}`);
  }
  panel.classList.toggle("many", all.length > MANY);
  filter();
  suggest(guess);
}

function build(all) {
  rows = new Map();
  list.replaceChildren(...all.map((one) => {
    const number = h("span", { class: "count" });
    const button = h("button", { type: "button", "aria-keyshortcuts": one.key, title: one.name, onclick: (event) => { if (event.detail) event.currentTarget.blur(); actions.assign(one.name); } },
      one.key ? cap(one.key) : h("kbd", { class: "no", "aria-hidden": "true" }), h("bdi", { class: "name" }, one.name), h("span", { class: "mark-rare", "aria-hidden": "true", title: "rare: among the third of the classes with fewest labels" }, icon("rare")), number);
    const item = h("li", { "data-name": one.name }, button);
    rows.set(one.name, { item, button, count: number, labels: null });
    return item;
  }));
}

// Marks the class that Enter would confirm.
export function suggest(name) {
  guess = name;
  for (const [other, row] of rows) row.item.classList.toggle("guess", other === name);
  const item = rows.get(name)?.item;
  if (!item || name === seen) return;
  seen = name;
  list.scrollTo({ left: item.offsetLeft - list.offsetLeft - list.clientWidth / 3, top: item.offsetTop - list.offsetTop - list.clientHeight / 3 });
}
