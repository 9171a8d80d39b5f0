// Progress: labels per class, the pace, and what every training brought.

import { get, outbox } from "./api.js";
import { blank, count, fixed, h, percent } from "./dom.js";
import { chart } from "./chart.js";
import { suggest } from "./panel.js";
import { rareNames, store } from "./store.js";

const MOST_BARS = 60;

export class Progress {
  constructor(app) {
    this.app = app;
  }

  show(root) {
    this.root = root;
    suggest(null);
    root.replaceChildren(blank("wait", "Counting", "A moment."));
    this.load();
  }

  update(state, before) {
    if (!before || state.undecided !== before.undecided || state.undoable !== before.undoable || state.round !== before.round || state.training.state !== before.training.state) this.load();
  }

  async load() {
    try {
      await outbox.idle();
      this.draw(await get("progress"));
    } catch (error) {
      this.app.failed(error);
    }
  }

  draw(told) {
    const state = store.state;
    if (!state || !this.root?.isConnected) return;
    const here = told.by_round.flatMap((round) => round.labels).reduce((sum, one) => sum + one, 0);
    const found = state.classes.filter((one) => one.labels > 0).length;
    const tile = (name, value, note) => h("div", { class: "tilebox" }, h("dt", {}, name), h("dd", {}, h("strong", {}, value), note ? h("small", {}, note) : null));
    const last = told.rounds.at(-1);
    this.root.replaceChildren(
      h("div", { class: "viewhead" }, h("h2", {}, "Progress")),
      h("dl", { class: "tilesrow" },
        tile("labels", count(told.labels.reduce((sum, one) => sum + one, 0)), here ? `${count(here)} given in this page` : "none given in this page yet"),
        tile("left undecided", count(state.undecided), state.none ? `${count(state.none)} are none of the classes` : `of ${count(state.images)}`),
        tile("classes with a label", `${found} of ${state.classes.length}`, null),
        tile("labels per minute", told.labels_per_minute === null ? "–" : count(told.labels_per_minute), "over the last 50, without pauses"),
        last && last.balanced_accuracy !== null && last.balanced_accuracy !== undefined ? tile("balanced accuracy", percent(last.balanced_accuracy, 1), last.interval ? `± ${fixed(100 * last.interval, 1)} points` : null) : null),
      this.bars(told),
      this.rounds(told.rounds));
  }

  bars(told) {
    const rare = rareNames(), classes = store.state.classes;
    const here = new Map(told.classes.map((name, at) => [name, told.by_round.reduce((sum, round) => sum + (round.labels[at] ?? 0), 0)]));
    const order = [...classes].sort((a, b) => b.labels - a.labels).slice(0, MOST_BARS);
    const most = Math.max(1, ...classes.map((one) => one.labels));
    if (!classes.length) return h("p", { class: "note" }, "There is no class yet.");
    return h("section", { class: "card" }, h("div", { class: "cardhead" }, h("h3", {}, "Labels per class"), h("p", { class: "key" }, h("span", { class: "swatch before" }), "before", h("span", { class: "swatch here" }), "given in this page")),
      h("ul", { class: "bars" }, order.map((one) => {
        const added = Math.min(one.labels, here.get(one.name) ?? 0);
        return h("li", { class: rare.has(one.name) && classes.length > 2 ? "rare" : "" }, h("bdi", { class: "name" }, one.name), h("span", { class: "bar2", "aria-hidden": "true", style: { "--before": (one.labels - added) / most, "--here": added / most } }, h("i", { class: "before" }), h("i", { class: "here" })), h("span", { class: "number" }, count(one.labels), added ? h("small", {}, ` (${count(added)} here)`) : null));
      })),
      classes.length > MOST_BARS ? h("p", { class: "note" }, `The ${MOST_BARS} most frequent of ${count(classes.length)} classes.`) : null);
  }

  rounds(rounds) {
    const measured = rounds.filter((one) => typeof one.balanced_accuracy === "number");
    if (!measured.length)
      return h("section", { class: "card" }, h("h3", {}, "What training brings"), h("p", { class: "note" }, rounds.length ? "The trainings measured nothing: there are no test or hold-out images. A folder test/ with one folder per class changes that." : "After the first training from this page, its balanced accuracy and the recall of the rarest third appear here, with intervals."), h("a", { class: "button", href: "#train" }, "Train again"));
    const labels = (one) => (one.labels ?? []).reduce((sum, value) => sum + value, 0);
    const line = (value, half) => measured.filter((one) => typeof one[value] === "number").map((one) => [labels(one), one[value], one[half] ?? null]);
    const where = measured.at(-1).measured_on === "test" ? "test images" : "hold-out images";
    const range = (value, half) => (typeof value === "number" ? `${percent(value, 1)}${typeof half === "number" ? ` ± ${fixed(100 * half, 1)}` : ""}` : "–");
    return h("section", { class: "charts" },
      chart(`Measured on ${where}, by labels`, [
        { name: "balanced accuracy", kind: "all", points: line("balanced_accuracy", "interval") },
        { name: "rarest third", kind: "few", points: line("recall_few", "recall_few_interval") },
      ], { share: true, across: "labels" }),
      h("div", { class: "card" }, h("h3", {}, "Rounds"), h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Rounds" }, h("table", {}, h("thead", {}, h("tr", {}, ["round", "labels", "balanced accuracy", "rarest third"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, measured.map((one) => h("tr", {}, h("th", { scope: "row" }, String(one.round)), h("td", {}, count(labels(one))), h("td", {}, range(one.balanced_accuracy, one.interval)), h("td", {}, range(one.recall_few, one.recall_few_interval)))))))));
  }
}
