// A grid of pictures to choose from: by click, by range with Shift, by arrows and Space.

import { body, h, icon, images, percent, picture, say } from "./dom.js";

const TILE = 192;

// How many tiles fill the window, in whole rows, so that nobody confirms what was not seen.
export function batchSize(most = 60) {
  const least = parseFloat(getComputedStyle(body).getPropertyValue("--tile")) || 132, gap = 10;
  const room = document.getElementById("view").clientWidth;
  const wide = Math.max(2, Math.floor((room + gap) / (least + gap)));
  const high = Math.floor((innerHeight - 280) / ((room + gap) / wide + 26));
  return wide * Math.max(wide < 5 ? 4 : 2, Math.min(high, Math.floor(most / wide)));
}

export class Grid {
  // kind: what a marked tile is, "chosen" or "wrong"; its label says so, and that of the others says nothing. onopen: called with an image on a double click.
  constructor(label, kind, { onchange = () => {}, onopen = () => {} } = {}) {
    this.kind = kind;
    this.onchange = onchange;
    this.onopen = onopen;
    this.items = [];
    this.chosen = new Set();
    this.at = 0;
    this.anchor = 0;
    this.element = h("div", {
      class: `grid ${kind}`, role: "listbox", "aria-label": label,
      onkeydown: (event) => this.press(event),
    });
  }

  set(items) {
    const focused = this.element.contains(document.activeElement);
    this.items = items;
    const there = new Set(items.map((item) => item.image));
    this.chosen = new Set([...this.chosen].filter((image) => there.has(image)));
    this.at = Math.max(0, Math.min(this.at, items.length - 1));
    const tiles = this.element.children;
    // A tile that stays as it is keeps the focus: it is not read again.
    items.forEach((item, number) => {
      const made = this.tile(item, number), there = tiles[number];
      if (!there) this.element.append(made);
      else if (["data-image", "data-words", "aria-disabled"].some((name) => there.getAttribute(name) !== made.getAttribute(name))) there.replaceWith(made);
    });
    while (tiles.length > items.length) tiles[items.length].remove();
    this.draw();
    this.roam();
    if (focused && !this.element.contains(document.activeElement)) this.focus();
    this.onchange();
  }

  tile(item, number) {
    const words = [item.label ?? item.guess, item.probability === undefined || item.probability === null || item.label ? null : percent(item.probability)].filter(Boolean);
    const shown = h("div", {
      class: `tile${item.label ? " decided" : ""}`, role: "option", "data-image": item.image, "data-words": [item.name ?? `image ${item.image}`, ...words].join(", "),
      "aria-disabled": item.label ? "true" : null,
      onclick: (event) => { this.at = number; this.toggle(number, event.shiftKey); this.focus(); },
      ondblclick: () => this.onopen(item.image),
      onfocus: () => { this.at = number; this.roam(); },
    },
      h("span", { class: "frame" }, picture(item.image, TILE, "", { loading: number > 40 ? "lazy" : "eager" }), h("span", { class: "choice" }, icon(this.kind === "wrong" ? "cross" : "check"))),
      h("span", { class: "words" }, h("bdi", {}, words[0] ?? ""), words[1] ? h("small", {}, words[1]) : null));
    return shown;
  }

  toggle(number, range = false) {
    const numbers = range ? between(this.anchor, number) : [number];
    const choose = range ? true : !this.chosen.has(this.items[number]?.image);
    for (const one of numbers) {
      const item = this.items[one];
      if (!item || item.label) continue;
      if (choose) this.chosen.add(item.image);
      else this.chosen.delete(item.image);
    }
    this.anchor = number;
    this.mark();
  }

  choose(images) {
    this.chosen = new Set(images);
    this.mark();
  }

  mark() {
    this.draw();
    say(`${images(this.chosen.size)} ${this.kind}.`);
    this.onchange();
  }

  draw() {
    for (const tile of this.element.children) {
      const marked = this.chosen.has(Number(tile.dataset.image));
      tile.classList.toggle("marked", marked);
      tile.setAttribute("aria-label", marked ? `${tile.dataset.words}, ${this.kind}` : tile.dataset.words);
    }
  }

  roam() {
    [...this.element.children].forEach((tile, number) => (tile.tabIndex = number === this.at ? 0 : -1));
  }

  focus() {
    this.element.children[this.at]?.focus({ preventScroll: false });
  }

  get focused() {
    return this.element.contains(document.activeElement) ? (this.items[this.at]?.image ?? null) : null;
  }

  // What a class key means: the chosen images, else the one with the focus.
  get meant() {
    if (this.kind === "chosen" && this.chosen.size) return [...this.chosen];
    return this.focused === null || this.items[this.at].label ? [] : [this.focused];
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tiles = this.element.children, first = tiles[0]?.offsetTop;
    const wide = Math.max(1, [...tiles].findIndex((tile) => tile.offsetTop > first) === -1 ? tiles.length : [...tiles].findIndex((tile) => tile.offsetTop > first));
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
    if (step) {
      const to = this.at + step;
      if (to >= 0 && to < tiles.length) { this.at = to; if (event.shiftKey) this.toggle(to, true); this.roam(); this.focus(); }
    } else if (event.key === "Home" || event.key === "End") {
      this.at = event.key === "Home" ? 0 : tiles.length - 1; this.roam(); this.focus();
    } else if (event.key === " ") this.toggle(this.at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const between = (a, b) => Array.from({ length: Math.abs(a - b) + 1 }, (_, step) => Math.min(a, b) + step);
