// Confirm a class: images believed to be of one class, surest first; what is wrong is clicked away.

import { get } from "./api.js";
import { actionbar, blank, count, decided, h, images, preload, say, toSuggested, tool } from "./dom.js";
import { notYet } from "./compare.js";
import { Grid, batchSize } from "./grid.js";
import { suggest } from "./panel.js";
import { classes, decide, rareNames, store } from "./store.js";

export class Confirm {
  constructor(app) {
    this.app = app;
    this.label = null;
    this.total = 0;
    this.loaded = false;
    this.grid = new Grid("Images believed to be of the class", "wrong", { onchange: () => this.bar(), onopen: (image) => this.app.like(image) });
  }

  show(root, argument) {
    this.root = root;
    if (argument && classes().some((one) => one.name === argument)) this.label = argument;
    if (!this.label || !classes().some((one) => one.name === this.label)) this.label = this.order()[0]?.name ?? null;
    this.load();
  }

  // Rare classes first, among them those of which the most images are expected.
  order() {
    return [...classes()].sort((a, b) => a.labels - b.labels || (b.expected ?? 0) - (a.expected ?? 0));
  }

  get like() {
    return this.grid.focused ?? this.grid.items[0]?.image;
  }

  rejected() {
    if (!store.rejected.has(this.label)) store.rejected.set(this.label, new Set());
    return store.rejected.get(this.label);
  }

  async load() {
    const label = this.label;
    this.since = performance.now();
    if (label === null) return this.draw([]);
    try {
      const size = batchSize(), out = this.rejected();
      const told = await get("believed", { label, start: 0, count: Math.min(500, 2 * size + out.size) });
      if (label !== this.label || !this.root?.isConnected) return;
      const left = told.images.filter((one) => !out.has(one.image) && !store.decided.has(one.image));
      this.total = Math.max(0, told.total - out.size);
      this.loaded = true;
      this.version = store.state?.version;
      preload(left.slice(size).map((one) => one.image), 192);
      this.draw(left.slice(0, size).map((one) => ({ ...one, guess: label })));
    } catch (error) {
      this.app.failed(error);
    }
  }

  update(state, before) {
    if (!before) return this.load();
    // What is on the screen stays until it is confirmed; only an empty page looks again.
    if (state.version !== this.version && !this.grid.items.length) this.load();
    else this.chips();
  }

  draw(items) {
    suggest(this.label);
    if (!this.label || !this.loaded) {
      const cold = classes().length === 0;
      return this.root.replaceChildren(cold ? blank("plus", "There is no class yet", "Name the first class with +, and label some suggested images. Then whole classes can be confirmed here.", toSuggested()) : blank("wait", "Looking for images", "A moment."));
    }
    // What was clicked away stays so when images of the same class come again, as after an undo.
    const same = this.drawn === this.label, marks = this.grid.chosen;
    this.grid.chosen = new Set(items.map((one) => one.image).filter((image) => same && marks.has(image)));
    this.drawn = this.label;
    const rest = items.length ? [this.grid.element, (this.actions = actionbar())] : [this.nothing()];
    this.root.replaceChildren(
      h("div", { class: "viewhead" }, h("h2", {}, "Is this all ", h("bdi", { class: "name" }, this.label), "?"), h("p", { class: "note" }, items.length ? `${count(this.total)} believed, surest first. Click what is something else; Enter confirms the rest.` : "")),
      (this.picker = h("div", { class: "picker", role: "group", "aria-label": "Class to confirm" })), ...rest);
    this.chips();
    this.grid.at = 0;
    this.grid.element.setAttribute("aria-label", `Believed to be ${this.label}; select what is something else`);
    this.grid.set(items);
    if (items.length) this.grid.focus();
    if (items.length) say(`${images(this.total)} believed to be ${this.label}.`);
  }

  chips() {
    if (!this.picker) return;
    const rare = rareNames(), focused = this.picker.contains(document.activeElement);
    this.picker.replaceChildren(...this.order().map((one) => h("button", { type: "button", class: `pill${rare.has(one.name) ? " rare" : ""}`, "aria-pressed": String(one.name === this.label), onclick: () => this.choose(one.name) },
      h("bdi", {}, one.name), h("small", {}, one.expected === null ? `${count(one.labels)} labeled` : `${count(one.labels)} labeled, ~${count(one.expected)} expected`))));
    const now = this.picker.querySelector("[aria-pressed=true]");
    if (focused) now?.focus();
    now?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  nothing() {
    const waiting = notYet();
    if (waiting) return waiting;
    const cold = store.state && classes().filter((one) => one.labels).length < 2;
    const next = this.next();
    return cold
      ? blank("typical", "The model knows too little yet", "It guesses once two classes have a label each. Label some suggested images first.", toSuggested())
      : blank("check", "Nothing more to confirm", `No undecided image is believed to be of this class${this.rejected().size ? "; the ones you clicked away are left for the other views" : ""}.`, next ? h("button", { type: "button", class: "primary", onclick: () => this.choose(next) }, "Next class: ", h("bdi", {}, next)) : null);
  }

  next() {
    const order = this.order().filter((one) => (one.expected ?? 1) >= 0.5);
    const at = order.findIndex((one) => one.name === this.label);
    return order.find((one, place) => place > at)?.name ?? order.find((one) => one.name !== this.label)?.name ?? null;
  }

  choose(label) {
    this.label = label;
    this.load();
  }

  bar() {
    if (!this.actions) return;
    const wrong = this.grid.chosen.size, right = this.grid.items.length - wrong, next = this.next();
    this.actions.replaceChildren(
      tool("check", [right ? `Confirm ${right} as ` : "None of them is ", h("bdi", {}, this.label)], "Enter", () => this.enter(), { class: "primary" }),
      h("span", { class: "note" }, wrong ? `${count(wrong)} clicked away; they stay undecided` : ""),
      tool("like", "More like this", "F", () => this.app.like()),
      tool("undo", "Undo", "U", () => this.app.undo(), { disabled: !store.state?.undoable }),
      ...(next ? [tool("skip", ["Next: ", h("bdi", {}, next)], "S", () => this.skip())] : []));
  }

  enter() {
    const wrong = this.grid.items.filter((one) => this.grid.chosen.has(one.image));
    const right = this.grid.items.filter((one) => !this.grid.chosen.has(one.image)).map((one) => one.image);
    if (!this.grid.items.length) return;
    for (const one of wrong) this.rejected().add(one.image);
    const label = this.label;
    this.settle("assign", right, label, (performance.now() - this.since) / 1000, () => this.app.note(`${images(right.length)} labeled ${label}.`, "good"));
    this.load();
  }

  // ondone: called when the decision is on disk.
  settle(path, chosen, label, seconds = null, ondone = () => {}) {
    if (!chosen.length) return;
    decide(path, chosen, label, seconds).then(ondone, (error) => { this.app.failed(error); this.load(); });
    this.grid.set(this.grid.items.filter((one) => !chosen.includes(one.image)));
    if (!this.grid.items.length) this.load();
    else this.grid.focus();
    say(decided(path, chosen.length, label));
  }

  assign(label) {
    this.settleFocused("assign", label);
  }

  none() {
    this.settleFocused("none");
  }

  settleFocused(path, label = null) {
    if (this.grid.meant.length) this.settle(path, this.grid.meant, label);
    else this.app.note("Move to an image first, with the arrows; then a class key labels it, and N says that it is of none.");
  }

  skip() {
    const next = this.next();
    if (next) this.choose(next);
    else this.app.note("There is no other class to confirm.");
  }

  undone() {
    this.load();
  }
}
