// More like this: the images nearest to one, to find the rest of a rare class.

import { get } from "./api.js";
import { CHOOSE, actionbar, blank, cap, decided, h, icon, images, picture, preload, say, toSuggested, tool } from "./dom.js";
import { notYet } from "./compare.js";
import { Grid, batchSize } from "./grid.js";
import { keyOf, decide, store } from "./store.js";
import { suggest } from "./panel.js";

export class Similar {
  constructor(app) {
    this.app = app;
    this.image = null;
    this.target = null;
    this.grid = new Grid("Images like this one", "chosen", { onchange: () => this.bar(), onopen: (image) => this.app.like(image) });
  }

  show(root, argument) {
    this.root = root;
    const image = argument === undefined ? this.image : Number(argument);
    if (image === null || !Number.isInteger(image))
      return root.replaceChildren(blank("like", "Start from an image", "Press F at any image, or double-click one in a grid. The nearest ones by the model's features come here.", toSuggested()));
    const waiting = notYet();
    if (waiting) root.replaceChildren(waiting);
    else this.load(image);
  }

  get like() {
    return this.grid.focused;
  }

  async load(image) {
    const again = image === this.image && Boolean(this.actions);
    if (image !== this.image) this.grid.chosen.clear();
    this.image = image;
    this.since = performance.now();
    try {
      const [told, near] = await Promise.all([get(`image/${image}`), get("similar", { image, count: Math.max(24, batchSize()) })]);
      if (image !== this.image || !this.root?.isConnected) return;
      this.told = told;
      this.target = told.label ?? told.guess ?? this.target;
      this.draw(near.images.filter((one) => !store.decided.has(one.image) || one.label), again);
    } catch (error) {
      this.root.replaceChildren(blank("cross", "That image is not here", error.message, toSuggested()));
    }
  }

  update(state, before) {
    if (state.compared && !before.compared) this.show(this.root, this.image ?? location.hash.split("/")[1]);
    else if (this.actions) this.bar();
  }

  draw(items, again) {
    suggest(this.target);
    const { told } = this;
    const said = told.label ? ["Labeled ", h("bdi", {}, told.label)] : told.none ? ["None of the classes"] : told.guess ? ["Guess: ", h("bdi", {}, told.guess)] : ["Not labeled"];
    const query = h("div", { class: "query" }, h("figure", {}, picture(told.image ?? this.image, 192, `The image to compare with: ${told.name}`)), h("div", {}, h("h3", {}, said), h("p", { class: "note" }, h("bdi", {}, told.name)),
      h("button", { type: "button", class: "flat", onclick: () => this.grid.choose(this.grid.chosen.size ? [] : this.grid.items.filter((one) => !one.label).map((one) => one.image)) }, "Choose all, or none")));
    if (again) this.query.replaceWith(query);
    else this.root.replaceChildren(
      h("div", { class: "viewhead" }, h("h2", {}, "More like this"), h("p", { class: "note" }, "The nearest images come first. Choose those of one class and press its key; Enter takes the class shown on the button.")),
      query, this.grid.element, (this.actions = actionbar()));
    this.query = query;
    this.grid.set(items);
    preload(items.slice(0, 4).map((one) => one.image), 192);
    if (again) return;
    this.grid.focus();
    say(`${images(items.length)} like ${told.name}.`);
  }

  bar() {
    if (!this.actions) return;
    const chosen = this.grid.chosen.size, target = this.target;
    this.actions.replaceChildren(...[
      h("button", { type: "button", class: "primary", disabled: !chosen || !target, "aria-keyshortcuts": "Enter", onclick: () => this.enter() }, icon("check"), h("span", {}, chosen ? `Label ${chosen} as ` : "Choose images of ", h("bdi", {}, target ?? "a class")), cap(chosen && target ? "Enter" : keyOf(target))),
      tool("none", "None of these", "N", () => this.none()),
      tool("like", "Like the marked one", "F", () => this.app.like()),
      tool("undo", "Undo", "U", () => this.app.undo(), { disabled: !store.state?.undoable }),
    ]);
  }

  settle(path, label = null) {
    const meant = this.grid.meant;
    if (!meant.length) return this.app.note(CHOOSE);
    decide(path, meant, label, path === "assign" ? (performance.now() - this.since) / 1000 : null).then(() => this.load(this.image), (error) => { this.app.failed(error); this.load(this.image); });
    this.since = performance.now();
    this.grid.chosen.clear();
    const done = new Set(meant);
    this.grid.set(path === "assign" ? this.grid.items.map((one) => (done.has(one.image) ? { ...one, label } : one)) : this.grid.items.filter((one) => !done.has(one.image)));
    this.grid.focus();
    say(decided(path, meant.length, label));
  }

  assign(label) {
    this.target = label;
    this.settle("assign", label);
  }

  enter() {
    if (this.target && this.grid.chosen.size) this.settle("assign", this.target);
    else this.app.note(CHOOSE);
  }

  none() {
    this.settle("none");
  }

  skip() {
    this.settle("skip");
  }

  undone() {
    if (this.image !== null) this.load(this.image);
  }
}
