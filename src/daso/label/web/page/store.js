// The state of the session as this tab knows it, and who wants to hear of changes.

import { get, isGone, isStale, outbox } from "./api.js";

export const store = { state: null, decided: new Map(), rejected: new Map() };
const listeners = new Set();
export const listen = (hear) => listeners.add(hear);

// own: whether this tab has brought the change about.
export function take(state, own = false) {
  const before = store.state;
  store.state = state;
  if (!own && before && state.undoable < before.undoable) store.decided.clear(); // undone in another tab
  for (const hear of listeners) hear(state, before, own);
}

let timer = null;
export async function poll() {
  clearTimeout(timer);
  try {
    const state = await get("state");
    if (!outbox.items.length) {
      outbox.become("online");
      take(state);
    }
  } catch (error) {
    if (isStale(error)) outbox.become("stale");
    else if (isGone(error)) outbox.become("gone");
  }
  const busy = !store.state || store.state.fitting || store.state.features.state === "computing" || ["training", "taking"].includes(store.state.training.state);
  const wait = document.hidden ? 8000 : outbox.state !== "online" || busy ? 700 : 2500;
  if (outbox.state !== "stale") timer = setTimeout(poll, wait);
}
document.addEventListener("visibilitychange", () => document.hidden || poll());

export const classes = () => store.state?.classes ?? [];
export const keyOf = (name) => classes().find((one) => one.name === name)?.key ?? null;
export const classOfKey = (key) => classes().find((one) => one.key === key)?.name ?? null;

// The rarest third of the classes: those that the page marks.
export function rareNames() {
  const order = [...classes()].sort((a, b) => a.labels - b.labels);
  return new Set(order.slice(0, Math.ceil(order.length / 3)).map((one) => one.name));
}

// Sends a decision about images; counts change at once, before the answer.
export function decide(path, images, label = null, seconds = null) {
  for (const image of images) store.decided.set(image, label ?? path);
  const told = classes().find((one) => one.name === label);
  if (path === "assign" && told) told.labels += images.length;
  const sent = { images, ...(label && path === "assign" ? { label } : {}), ...(seconds === null ? {} : { seconds }) };
  return outbox.push(path, sent).then(
    (state) => (outbox.items.length || take(state, true), state),
    (error) => {
      for (const image of images) store.decided.delete(image);
      poll();
      throw error;
    },
  );
}

export async function undo(steps = 1) {
  const state = await outbox.push("undo", { count: steps });
  for (const { image } of state.undone ?? []) store.decided.delete(image);
  if (!outbox.items.length) take(state, true);
  return state.undone ?? [];
}
