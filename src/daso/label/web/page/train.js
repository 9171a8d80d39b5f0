// Train again: a live bar, losses, cancel; labeling goes on meanwhile.

import { outbox } from "./api.js";
import { chart } from "./chart.js";
import { wordsOf } from "./compare.js";
import { count, h, icon, percent, say, toSuggested, toast } from "./dom.js";
import { suggest } from "./panel.js";
import { store, take } from "./store.js";

const BUSY = ["training", "taking"];

export class Train {
  constructor(app) {
    this.app = app;
  }

  show(root) {
    this.root = root;
    suggest(null);
    this.draw();
  }

  update(state, before) {
    const shown = (one) => JSON.stringify([one?.training, one?.features]);
    if (shown(state) !== shown(before)) this.draw();
  }

  async act(path) {
    try {
      take(await outbox.push(path));
      if (path === "train") say("The training has started.");
    } catch (error) {
      this.app.failed(error);
    }
  }

  draw() {
    const state = store.state;
    if (!state || !this.root) return;
    if (BUSY.includes(state.training.state) && this.live?.isConnected) return this.tell(state);
    const held = this.root.contains(document.activeElement) ? document.activeElement.id : "";
    this.root.replaceChildren(h("div", { class: "viewhead" }, h("h2", {}, "Train again")), ...this.content(state.training, state));
    if (held) (document.getElementById(held) ?? this.root.querySelector("button"))?.focus();
  }

  // What changes while a training runs, in place: a screen reader follows the bar, and the focus stays.
  tell(state) {
    const now = state.training, taking = now.state === "taking", features = state.features;
    const done = taking ? (features.done ?? 0) : now.step, all = taking ? features.total : now.total, part = all ? done / all : 0;
    const words = taking ? `The training is done. Its model looks at all images: ${features.state === "computing" ? wordsOf(features) : "…"}` : now.canceling ? "Stopping after this step, with a checkpoint …" : now.total ? `Step ${count(now.step)} of ${count(now.total)}${now.left ? `; ${now.left} left` : ""}` : "Reading the images …";
    const meter = this.live.querySelector(".meter");
    meter.classList.toggle("unknown", !part);
    meter.style.setProperty("--part", part);
    if (all) meter.setAttribute("aria-valuenow", Math.round(100 * part));
    else meter.removeAttribute("aria-valuenow");
    meter.setAttribute("aria-valuetext", words);
    this.live.querySelector(".words").textContent = words;
    this.live.querySelector("strong").textContent = part ? percent(part) : "";
    this.live.querySelector("#train-cancel").disabled = taking || Boolean(now.canceling);
    this.curves.replaceChildren(...curvesOf(now));
  }

  content(now, state) {
    const start = (words) => h("button", { type: "button", id: "train-start", class: "primary", onclick: () => this.act("train") }, icon("train"), words);
    const total = state.classes.reduce((sum, one) => sum + one.labels, 0), found = state.classes.filter((one) => one.labels).length;
    const few = found < 2;
    const about = h("p", {}, few ? "Training needs labels of at least two classes." : `A training learns from the ${count(total)} labels as they are now, in a process of its own. You can go on labeling meanwhile; when it is done, the suggestions are new.`);
    const curves = curvesOf(now), shown = curves.length ? [h("div", { class: "charts" }, curves)] : [];
    if (BUSY.includes(now.state)) {
      this.live = h("section", { class: "card training" },
        h("div", { class: "meter", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0, "aria-valuemax": 100 }, h("span", {})),
        h("p", { class: "underbar" }, h("span", { class: "words" }), h("strong", {})),
        h("div", { class: "actions" }, h("button", { type: "button", id: "train-cancel", onclick: () => this.act("cancel") }, icon("cross"), "Cancel"), h("a", { class: "button", href: "#suggested" }, "Go on labeling")));
      this.curves = h("div", { class: "charts" });
      this.tell(state);
      return [this.live, this.curves];
    }
    if (now.state === "failed")
      return [h("section", { class: "card failed", role: "alert" }, h("h3", {}, icon("cross"), "The training failed"), h("p", {}, "Your labels are safe. This is what it said last:"), h("pre", { tabIndex: 0 }, now.error || "nothing"), h("div", { class: "actions" }, start("Try again"))), ...shown];
    if (now.state === "stopped")
      return [h("section", { class: "card" }, h("h3", {}, `A training was stopped after step ${count(now.step ?? 0)}${now.total ? ` of ${count(now.total)}` : ""}`), h("p", {}, "It goes on from its last checkpoint, with the labels that it began with."), h("div", { class: "actions" }, start("Resume"))), ...shown];
    if (now.state === "done")
      return [h("section", { class: "card done" }, h("h3", {}, icon("check"), `Round ${state.round} is finished`), h("p", {}, "Suggestions, beliefs and doubts are those of the new model."), h("div", { class: "actions" }, toSuggested("New suggestions"), h("a", { class: "button", href: "#progress" }, "See what it brought"), few ? null : h("button", { type: "button", id: "train-start", onclick: () => this.act("train") }, icon("train"), "Train again"))), ...shown];
    return [h("section", { class: "card" }, about, now.command ? h("pre", {}, now.command) : null, h("div", { class: "actions" }, few ? toSuggested("Label images") : start("Train now")))];
  }
}

const curvesOf = (now) => [
  now.losses?.length > 1 ? chart("Loss", [{ name: "training loss", kind: "all", points: now.losses.map(([at, value]) => [at, value, null]) }], { across: "steps", whole: false }) : null,
  now.balanced_accuracy?.length > 1 ? chart(`Balanced accuracy on ${now.measured_on === "test" ? "test" : "hold-out"} images`, [{ name: "balanced", kind: "few", points: now.balanced_accuracy.map(([at, value]) => [at, value, null]) }], { share: true, across: "steps", whole: false }) : null,
].filter(Boolean);

// The button in the head of the page, with a ring while a training runs; says when one has ended.
export function watchTraining(state, before) {
  const now = state.training, button = document.getElementById("train-button");
  const busy = BUSY.includes(now.state), part = now.total ? now.step / now.total : 0;
  button.classList.toggle("busy", busy);
  button.classList.toggle("failed", now.state === "failed");
  button.style.setProperty("--part", now.state === "taking" ? 1 : part);
  button.querySelector(".words").textContent = busy ? (now.total ? `Training ${percent(part)}` : "Training") : now.state === "failed" ? "Training failed" : "Train again";
  if (!before || !BUSY.includes(before.training.state) || busy) return;
  const words = { done: "The training is finished; the suggestions are new.", failed: "The training failed; your labels are safe.", stopped: "The training was stopped; it can be resumed." }[now.state];
  if (words) toast(words, now.state === "done" ? "good" : "bad", 12);
}
