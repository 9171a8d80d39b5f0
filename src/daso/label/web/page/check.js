// Check labels: labels that the others contradict, with keep or change.

import { get, outbox } from "./api.js";
import { actionbar, blank, cap, decided, h, images, preload, toSuggested, tool } from "./dom.js";
import { notYet } from "./compare.js";
import { suggest } from "./panel.js";
import { decide, keyOf, store } from "./store.js";
import { Stage } from "./stage.js";
import { facts } from "./suggested.js";

const BIG = 640;

export class Check {
  constructor(app) {
    this.app = app;
    this.queue = [];
    this.seen = new Set();
    this.loaded = false;
    this.stage = new Stage("Label to check");
  }

  show(root) {
    this.root = root;
    this.draw();
    this.load();
  }

  get like() {
    return this.queue[0]?.image;
  }

  async load() {
    try {
      await outbox.idle();
      const told = await get("doubtful", { count: 60 });
      this.queue = told.images.filter((one) => !this.seen.has(one.image));
      this.loaded = true;
      if (this.root?.isConnected) await this.draw();
    } catch (error) {
      this.app.failed(error);
    }
  }

  update(state, before) {
    if (before && state.version !== before.version && !this.queue.length) this.load();
  }

  // done: what was done just now, in words.
  async draw(done = "") {
    const one = this.queue[0];
    suggest(one?.label ?? null);
    if (!one)
      return this.root.replaceChildren(notYet() ?? (this.loaded
        ? blank("check", "No label is in doubt", "Neither the model, trained without each label in turn, nor the neighbors contradict a label. Look here again after more labels.", toSuggested())
        : blank("wait", "Checking the labels", "Every label is compared with what the others say about its image.")));
    const told = await get(`image/${one.image}`).catch(() => ({}));
    if (one !== this.queue[0] || !this.root.isConnected) return;
    this.since = performance.now();
    const key = keyOf(one.guess);
    const name = told.name ?? `image ${one.image}`;
    this.stage.show(this.root, one.image, name, {
      done,
      words: [`Labeled ${one.label}; the others say ${one.guess}.`, one.reason],
      head: h("div", { class: "viewhead" }, h("h2", {}, "Is this label right?"), h("p", { class: "note" }, `${images(this.queue.length)} in doubt, the likeliest errors first.`)),
      beside: h("div", {}, h("div", { class: "versus" }, h("p", {}, h("small", {}, "labeled"), h("strong", {}, h("bdi", {}, one.label))), h("p", {}, h("small", {}, "the others say"), h("strong", {}, h("bdi", {}, one.guess)))),
        facts({ ...told, kind: "doubt", reason: one.reason, beliefs: [] }, (label) => this.assign(label))),
      below: [actionbar(
        tool("check", ["Keep ", h("bdi", {}, one.label)], "Enter", () => this.enter(), { class: "primary" }),
        h("button", { type: "button", class: "second", "aria-keyshortcuts": key, onclick: () => this.assign(one.guess) }, h("span", {}, "Change to ", h("bdi", {}, one.guess)), cap(key)),
        tool("skip", "Skip", "S", () => this.skip()),
        tool("none", "None of these", "N", () => this.none()),
        tool("undo", "Undo", "U", () => this.app.undo(), { disabled: !store.state?.undoable }))],
    });
    preload(this.queue.slice(1, 5).map((next) => next.image), BIG);
  }

  settle(path, label = null) {
    const one = this.queue.shift();
    if (!one) return;
    this.seen.add(one.image);
    decide(path, [one.image], label, path === "assign" ? (performance.now() - this.since) / 1000 : null).catch((error) => { this.app.failed(error); this.seen.delete(one.image); this.load(); });
    this.draw(decided(path, 1, label));
    if (!this.queue.length) this.load();
  }

  enter() { this.settle("keep"); }
  assign(label) { this.settle(label === this.queue[0]?.label ? "keep" : "assign", label === this.queue[0]?.label ? null : label); }
  skip() { if (this.queue.length) { this.seen.add(this.queue.shift().image); this.draw(decided("skip", 1)); } }
  none() { this.settle("none"); }

  undone(list) {
    for (const one of list) this.seen.delete(one.image);
    this.load();
  }
}
