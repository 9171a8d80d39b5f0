// Suggested: the images whose labels help most, one after another or as a grid.

import { get } from "./api.js";
import { CHOOSE, actionbar, blank, body, cap, count, decided, h, icon, images, percent, picture, preload, say, tool } from "./dom.js";
import { Grid, batchSize } from "./grid.js";
import { suggest } from "./panel.js";
import { Stage } from "./stage.js";
import { classes, decide, store } from "./store.js";

const AHEAD = 24, FEW = 10, BIG = 640, SMALL = 96;
const KINDS = { any: "At random", doubt: "In doubt", rare: "Rare class", discovery: "Unlike the rest", typical: "Typical", back: "Back again" };

export class Suggested {
  constructor(app) {
    this.app = app;
    this.queue = [];
    this.history = [];
    this.asGrid = false;
    this.version = -1;
    this.loading = false;
    this.grid = new Grid("Suggested images", "chosen", { onchange: () => this.bar(), onopen: (image) => this.open(image) });
    this.stage = new Stage("Image to label");
    this.since = 0;
    this.unusable = new Set();
  }

  show(root) {
    this.root = root;
    this.draw();
    this.fill();
  }

  get current() {
    return this.queue[0] ?? null;
  }

  get like() {
    return this.asGrid ? (this.grid.focused ?? this.current?.image) : this.current?.image;
  }

  async fill() {
    if (this.loading) return;
    this.loading = true;
    try {
      const told = await get("suggest", { count: this.asGrid ? Math.max(AHEAD, batchSize()) : AHEAD });
      const first = this.queue.filter((one, at) => one.kind === "back" || (at === 0 && !this.asGrid && this.open_(one)));
      const known = new Set(first.map((one) => one.image));
      const next = told.images.filter((one) => !known.has(one.image) && this.open_(one));
      const before = this.current?.image;
      this.queue = [...first, ...next];
      this.version = told.version;
      this.empty = this.queue.length === 0;
      if (this.root) {
        if (this.asGrid || before !== this.current?.image || this.empty) this.draw();
        else this.film();
      }
      this.ahead();
    } catch (error) {
      this.app.failed(error);
    } finally {
      this.loading = false;
    }
  }

  open_(one) {
    return !store.decided.has(one.image) && !this.unusable.has(one.image);
  }

  ahead() {
    preload(this.queue.slice(1, 7).map((one) => one.image), this.asGrid ? 192 : BIG);
    if (!this.asGrid) preload(this.queue.slice(1, 4).flatMap((one) => (one.near ?? []).map((other) => other.image)), SMALL);
  }

  update(state, before, own) {
    const changed = before && (state.undecided !== before.undecided || state.undoable !== before.undoable);
    if (changed && !own) this.look(); // another tab has decided
    else if (this.asGrid && this.grid.chosen.size) return; // what is being chosen stays where it is
    else if (!before || state.version !== this.version || state.classes.length !== before.classes.length) this.fill();
    else if (!this.current && (changed || (before.fitting && !state.fitting))) this.fill();
    if (!this.current && before && before.fitting !== state.fitting) this.draw();
  }

  async look() {
    const one = this.current;
    const told = one && one.kind !== "back" ? await get(`image/${one.image}`).catch(() => null) : null;
    if (told && (told.label || told.none || told.skipped)) {
      this.queue = this.queue.filter((other) => other.image !== one.image);
      this.draw();
    }
    this.fill();
  }

  // done: what was done just now, in words.
  draw(done = "") {
    suggest(this.asGrid ? null : (this.current?.guess ?? null));
    if (!this.current) return this.root.replaceChildren(this.nothing());
    if (this.asGrid) {
      this.grid.set(this.queue.slice(0, batchSize()));
      if (this.grid.element.parentNode === this.root) this.root.firstChild.replaceWith(this.head());
      else this.root.replaceChildren(this.head(), this.grid.element, (this.actions = actionbar()));
      if ([body, this.root].includes(document.activeElement)) this.grid.focus();
      if (done) say(done);
      return this.bar();
    }
    this.since = performance.now();
    const one = this.current, name = one.name ?? `image ${one.image}`;
    this.strip = h("div", { class: "film", "aria-label": "Labeled just now, and coming next", role: "group" });
    this.stage.show(this.root, one.image, name, {
      done,
      words: [one.guess ? `Guess: ${one.guess}, ${percent(one.probability)}.` : "No guess yet.", one.reason],
      head: this.head(),
      caption: h("a", { href: `/full/${one.image}?v=${document.body.dataset.stamp}`, target: "_blank", rel: "noopener" }, "full size"),
      beside: facts(one, (label) => this.assign(label)),
      below: [(this.actions = actionbar()), this.strip],
    });
    this.bar();
    this.film();
  }

  head() {
    const state = store.state;
    const cold = state && state.classes.every((one) => one.labels === 0);
    return h("div", { class: "viewhead" },
      h("h2", {}, this.asGrid ? "Suggested images" : "What is this?"),
      cold ? h("p", { class: "note" }, state.classes.length ? "There is no label yet, so nothing is guessed." : "There is no class yet. Press + and name what you see.", state.compared ? " These images are typical and far apart." : "") : state?.fitting ? h("p", { class: "note live" }, h("span", { class: "spinner small", "aria-hidden": "true" }), "suggestions are being renewed") : null,
      h("button", { type: "button", class: "flat", "aria-keyshortcuts": "g", onclick: () => this.toggle() }, icon(this.asGrid ? "one" : "grid"), this.asGrid ? "One by one" : "Grid", cap("G")));
  }

  bar() {
    if (!this.actions) return;
    const guess = this.asGrid ? null : this.current?.guess;
    const chosen = this.grid.chosen.size;
    const confirm = (words, more) => tool("check", words, "Enter", () => this.enter(), { class: "primary", ...more });
    const first = this.asGrid
      ? confirm(chosen ? `Confirm the guesses of ${chosen}` : `Confirm all ${this.grid.items.length} guesses`)
      : guess ? confirm(h("bdi", {}, guess), { "aria-label": `${guess}: confirm the guess` }) : null;
    this.actions.replaceChildren(...[
      first,
      tool("skip", "Skip", "S", () => this.skip()),
      tool("none", "None of these", "N", () => this.none()),
      tool("like", "More like this", "F", () => this.app.like()),
      tool("undo", "Undo", "U", () => this.app.undo(), { disabled: !store.state?.undoable }),
    ].filter(Boolean));
  }

  film() {
    if (!this.strip) return;
    const past = this.history.slice(-5).map((one) => h("button", { type: "button", class: "frame past", title: `${one.label}; show it again`, "aria-label": `${one.label}: show it again`, onclick: () => this.open(one.image) }, picture(one.image, SMALL, ""), h("bdi", {}, one.label)));
    const next = this.queue.slice(1, 16).map((one) => h("span", { class: "frame next" }, picture(one.image, SMALL, "")));
    this.strip.replaceChildren(...past, h("span", { class: "frame now", "aria-hidden": "true" }, picture(this.current.image, SMALL, "")), ...next);
  }

  nothing() {
    const state = store.state;
    if (!state || state.fitting || this.empty === undefined)
      return blank("wait", "Looking at your images", state ? `${images(state.images)} are compared with one another; the first suggestions are there in a moment.` : "The first suggestions are there in a moment.");
    if (state.undecided === 0 || this.empty)
      return blank("check", "Nothing is left to label", `All ${images(state.images)} are decided${state.none ? `, ${count(state.none)} of them as none of the classes` : ""}. Train again, or look at the labels that the model doubts.`, h("a", { class: "button primary", href: "#train" }, icon("train"), "Train again"), h("a", { class: "button", href: "#check" }, "Check labels"));
    return blank("wait", "Looking for more", "The next suggestions are there in a moment.");
  }

  seconds() {
    return Math.min(600, (performance.now() - this.since) / 1000);
  }

  settle(path, chosen, label, seconds) {
    const gone = new Set(chosen);
    const before = this.queue;
    decide(path, chosen, label, seconds).catch((error) => {
      if (path === "skip") return chosen.forEach((image) => this.unusable.add(image)); // its file is gone
      this.queue = [...before.filter((one) => gone.has(one.image)), ...this.queue.filter((one) => !gone.has(one.image))];
      this.draw();
      this.app.failed(error);
    });
    for (const image of chosen) this.history.push({ image, label: label ?? { none: "none of these", skip: "skipped" }[path] });
    this.queue = this.queue.filter((one) => !gone.has(one.image));
    this.grid.chosen.clear();
    this.draw(decided(path, chosen.length, label));
    this.ahead();
    if (this.queue.length < FEW || this.asGrid) this.fill();
  }

  meant() {
    if (!this.current) return [];
    return this.asGrid ? this.grid.meant : [this.current.image];
  }

  assign(label) {
    this.settleMeant("assign", label, this.seconds());
  }

  none() {
    this.settleMeant("none");
  }

  skip() {
    this.settleMeant("skip");
  }

  settleMeant(path, label = null, seconds = null) {
    const meant = this.meant();
    if (meant.length) this.settle(path, meant, label, seconds);
    else if (this.current) this.app.note(CHOOSE);
  }

  enter() {
    if (!this.current) return;
    if (!this.asGrid) {
      if (this.current.guess) this.assign(this.current.guess);
      else this.app.note("There is no guess yet: press the key of a class.");
      return;
    }
    const taken = this.grid.items.filter((item) => item.guess && (!this.grid.chosen.size || this.grid.chosen.has(item.image)));
    if (!taken.length) this.app.note("There is no guess yet: choose images and press the key of a class.");
    const byGuess = group(taken);
    for (const [label, items] of byGuess) this.settle("assign", items.map((item) => item.image), label, this.seconds() / byGuess.size);
  }

  toggle() {
    this.asGrid = !this.asGrid;
    this.grid.chosen.clear();
    this.draw();
    if (this.asGrid) { this.grid.focus(); this.fill(); }
  }

  async open(image, why = "You asked to see it again.") {
    try {
      const told = await get(`image/${image}`);
      const now = told.label ? `It is labeled ${told.label}.` : told.none ? "It is none of the classes." : "";
      this.queue = [{ ...told, image, kind: "back", reason: now || why, guess: told.label ?? told.guess }, ...this.queue.filter((one) => one.image !== image)];
      this.history = this.history.filter((one) => one.image !== image);
      this.asGrid = false;
      this.draw();
    } catch (error) {
      this.app.failed(error);
    }
  }

  undone(list) {
    const image = list.find((one) => one.image !== null && one.image !== undefined)?.image;
    if (image === undefined) return this.draw();
    const gone = new Set(list.map((one) => one.image));
    this.history = this.history.filter((one) => !gone.has(one.image));
    if (this.asGrid) this.fill();
    else this.open(image, "You have undone this decision.");
  }
}

function group(items) {
  const found = new Map();
  for (const item of items) found.set(item.guess, [...(found.get(item.guess) ?? []), item]);
  return found;
}

// Why an image is shown, what it may be, and the nearest labeled ones.
export function facts(one, assign) {
  const beliefs = one.beliefs ?? [];
  const near = (one.near ?? []).filter((other) => other.label);
  return h("div", { class: "facts" },
    h("p", { class: `why ${one.kind ?? ""}` }, h("span", { class: "chip" }, icon(one.kind in KINDS && one.kind !== "back" ? one.kind : "undo"), KINDS[one.kind] ?? "Doubtful label"), one.reason ?? ""),
    beliefs.length ? h("section", {}, h("h3", {}, "The model's beliefs"), h("ul", { class: "beliefs" }, beliefs.map(([name, share], at) =>
      h("li", {}, h("button", { type: "button", class: name === one.guess ? "guess" : "", onclick: () => assign(name), style: { "--share": share } }, h("bdi", {}, name), h("span", { class: "number" }, percent(share)), h("span", { class: "track", "aria-hidden": "true" })))))) : null,
    near.length ? h("section", {}, h("h3", {}, "Nearest labeled images"), h("ul", { class: "near" }, near.map((other) => h("li", {}, picture(other.image, 96, ""), h("bdi", {}, other.label))))) : null,
    !beliefs.length && !near.length && !one.label ? h("p", { class: "hint" }, classes().length ? `Press the key of a class on the right, or click it. ${store.state?.compared ? "After the first labels of two classes the page guesses, and Enter confirms." : "When your images are compared, the page guesses."}` : "Press + to name the first class. The name is given to this image at once.") : null);
}
