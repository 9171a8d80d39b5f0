// How far the comparison of the images is: a bar until it is done, or what went wrong.

import { outbox } from "./api.js";
import { blank, count, h, icon, percent, say, toSuggested, toast } from "./dom.js";
import { store } from "./store.js";

const place = document.getElementById("compared");

// What a view shows that needs the comparison, before it is there.
export function notYet() {
  if (store.state.compared) return null;
  const label = toSuggested("Label images");
  return store.state.features.state === "failed"
    ? blank("cross", "The images could not be compared", "The note above says why. Labeling goes on without it.", label)
    : (say("Your images are being compared. This view opens by itself."), blank("wait", "Your images are being compared", "This view opens by itself when that is done. Labeling goes on meanwhile.", label));
}

export function wordsOf(now) {
  return now.done ? `${count(now.done)} of ${count(now.total)} images${now.left ? `; ${now.left} left` : ""}` : "looking at some of them first";
}

let shown = "";
export function watchFeatures(state, before) {
  const now = state.features, isOpen = state.compared && !state.fault;
  const kind = now.state === "failed" || state.fault ? "failed" : isOpen ? "" : "computing";
  if (kind !== shown) {
    place.replaceChildren(...{ failed: () => [failure(state)], computing: () => [bar()], "": () => [] }[kind]());
    if (kind === "computing") say("Your images are being compared. Labeling goes on meanwhile.");
    shown = kind;
  }
  if (kind === "computing") {
    const part = now.total ? now.done / now.total : now.state === "ready" ? 1 : 0, meter = place.querySelector(".meter");
    const words = now.state === "ready" ? "choosing what to suggest" : wordsOf(now);
    meter.classList.toggle("unknown", !part);
    meter.style.setProperty("--part", part);
    meter.setAttribute("aria-valuenow", Math.round(100 * part));
    meter.setAttribute("aria-valuetext", words);
    place.querySelector(".words").textContent = words;
    place.querySelector(".part").textContent = part ? percent(part) : "";
  }
  if (before && !before.compared && state.compared)
    toast("Your images are compared: suggestions, Confirm a class, More like this and Check labels are open.", "good", 10);
}

function bar() {
  return h("div", { class: "comparing" },
    h("p", {}, h("strong", {}, "Comparing your images"), " ", h("span", { class: "words" }), h("span", { class: "note" }, " You can label meanwhile; they come in random order until then.")),
    h("strong", { class: "part" }),
    h("div", { class: "meter", role: "progressbar", "aria-label": "Comparing your images", "aria-valuemin": 0, "aria-valuemax": 100 }, h("span", {})));
}

function failure(state) {
  const again = h("button", { type: "button", id: "compare-again", onclick: () => outbox.push("compare").catch((error) => toast(error.message, "bad", 12)) }, "Try again");
  return state.features.state === "failed"
    ? h("div", { class: "offline-note", role: "alert" }, icon("cross"), h("div", {}, h("strong", {}, "The images could not be compared"), h("span", {}, `${state.features.error.replace(/\.$/, "")}. Labeling goes on in random order, and every label is kept.`)), again)
    : h("div", { class: "offline-note", role: "alert" }, icon("cross"), h("div", {}, h("strong", {}, "The suggestions could not be renewed"), h("span", {}, `${state.fault}. Labeling goes on; the next labels try it again.`)));
}
