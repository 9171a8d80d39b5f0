// The page: views, keys, dialogs, and what is said when the server is gone.

import { outbox } from "./api.js";
import { Check } from "./check.js";
import { watchFeatures } from "./compare.js";
import { Confirm } from "./confirm.js";
import { body, count, h, icon, renew, say, toast } from "./dom.js";
import * as panel from "./panel.js";
import { Progress } from "./progress.js";
import { Similar } from "./similar.js";
import { classOfKey, listen, poll, store, take, undo } from "./store.js";
import { Suggested } from "./suggested.js";
import { Train, watchTraining } from "./train.js";

const root = document.getElementById("view");
const dialog = document.getElementById("dialog");
const LABELING = ["suggested", "confirm", "similar", "check"];

const app = {
  note: (text, kind) => toast(text, kind),
  failed: (error) => outbox.state === "online" && toast(error.message, "bad", 12), // else the bar above says it
  like(image = views[name].like) {
    if (!store.state?.compared) return this.note("Images are not compared yet; the bar above says how far that is.");
    if (image === undefined || image === null) return this.note("Move to an image first, with the arrows.");
    location.hash = `similar/${image}`;
  },
  async undo() {
    try {
      const undone = await undo();
      if (!undone.length) return this.note("There is nothing to undo.");
      const one = undone[0];
      toast(`Undone: ${one.label ?? one.action}${one.image === null && one.action === "class" ? " as a class" : ""}`, "note", 3);
      views[name].undone?.(undone);
    } catch (error) {
      this.failed(error);
    }
  },
};
const views = { suggested: new Suggested(app), confirm: new Confirm(app), similar: new Similar(app), check: new Check(app), progress: new Progress(app), train: new Train(app) };
let name = "suggested";

// The view that the address names, and of what.
function named() {
  const [wanted, argument] = location.hash.slice(1).split("/");
  return [Object.hasOwn(views, wanted) ? wanted : "suggested", argument];
}

function route() {
  const [wanted, argument] = named();
  name = wanted;
  document.body.dataset.view = name;
  for (const link of document.querySelectorAll("[data-to]")) {
    if (link.dataset.to === name) { link.setAttribute("aria-current", "page"); root.setAttribute("aria-label", link.textContent); }
    else link.removeAttribute("aria-current");
  }
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  for (const [other, view] of Object.entries(views)) if (other !== name) view.root = view.actions = null;
  root.setAttribute("aria-busy", "false");
  say("");
  if (!store.state) return;
  scrollTo(0, 0);
  root.focus({ preventScroll: true });
  views[name].show(root, argument === undefined ? undefined : decoded(argument));
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand
  }
}

// Puts the focus on what the keys are about; also when what had it is no longer there.
const land = () => (root.querySelector("[role=option][tabindex='0']") ?? root).focus({ preventScroll: true });
let held = root;
root.addEventListener("focusin", (event) => (held = event.target));
const find = () => {
  const at = document.activeElement;
  if (at === root || (at === body && !held.isConnected)) land();
};
// A moment later: a screen reader has to hear that the focus has left what is gone.
new MutationObserver(() => setTimeout(find, 100)).observe(root, { childList: true, subtree: true });

// Opens a view; if it is open, brings back the focus, and lets a screen reader hear of it again.
function go(wanted) {
  if (wanted !== named()[0]) return (location.hash = wanted); // a key before it may still be on its way
  again();
}

function again() {
  document.activeElement.blur();
  land();
}

// Dialogs.

function open(...content) {
  say(""); // else it is said again when the dialog closes
  dialog.replaceChildren(h("form", { method: "dialog" }, ...content));
  dialog.showModal();
}

function help() {
  const row = (keys, text) => h("li", {}, h("span", {}, keys.map((key) => h("kbd", {}, key))), " ", text);
  open(h("h2", { id: "dialog-title" }, "Keys"),
    h("ul", { class: "keys", tabIndex: 0, autofocus: true },
      row(["1", "2", "…"], "give the class on that button"), row(["Enter"], "confirm the guess, or all that is shown"),
      row(["S"], "skip"), row(["N"], "none of these classes"), row(["U", "Ctrl Z"], "undo, without limit"),
      row(["F"], "more like this"), row(["G"], "grid, or one by one"), row(["+"], "new class"), row(["/"], "find a class by name"),
      row(["←", "→", "↑", "↓"], "move in a grid"), row(["Space"], "choose in a grid; with Shift a range"), row(["V 1", "… 5"], "the views, from left to right; also Alt 1 … 5"), row(["?"], "this list")),
    h("p", { class: "note" }, "Every label is written to disk at once, in a journal beside your data. The page may be closed at any time."),
    h("div", { class: "actions" }, h("button", { class: "primary" }, "Close")));
  dialog.addEventListener("close", again, { once: true });
}

function create(suggestion = "") {
  const field = h("input", { type: "text", id: "new-class", maxlength: 200, "aria-describedby": "new-class-note", required: true, autocomplete: "off", autofocus: true, value: suggestion });
  const wrong = h("p", { class: "mistake", role: "alert" });
  const view = LABELING.includes(name) ? views[name] : null;
  const meant = name === "suggested" ? view.meant() : (view?.grid?.meant ?? []);
  open(h("h2", { id: "dialog-title" }, "New class"), h("label", { for: "new-class" }, "Its name"), field, wrong,
    h("p", { class: "note", id: "new-class-note" }, meant.length ? `It is given to the ${meant.length === 1 ? "image" : `${count(meant.length)} images`} that you are looking at.` : "It joins the others on the right."),
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), h("button", { class: "primary" }, icon("plus"), "Add")));
  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = field.value.trim();
    try {
      take(await outbox.push("class", { name: wanted }), true);
      dialog.close();
      if (meant.length) view.assign(wanted);
      else app.note(`${wanted} is a class now.`, "good");
    } catch (error) {
      wrong.textContent = error.message;
      field.select();
    }
  });
}

// Keys.

let toView = false; // V was pressed: a digit is that of a view

document.addEventListener("keydown", (event) => {
  if (dialog.open || event.defaultPrevented || event.isComposing) return;
  const typing = event.target.matches("input, textarea, select");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) return done(event, () => app.undo());
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, after = toView;
  toView = key === "v" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing;
  if ((event.altKey || after) && !event.ctrlKey && !event.metaKey && /^[1-5]$/.test(key)) return done(event, () => go(Object.keys(views)[key - 1]));
  if (event.ctrlKey || event.metaKey || event.altKey || typing || toView) return;
  const view = views[name];
  if (key === "?") return done(event, help);
  if (key === "/") return done(event, panel.focusSearch);
  if (key === "+") return done(event, () => create());
  if (key === "u") return done(event, () => app.undo());
  if (!LABELING.includes(name)) return;
  if (key === "Enter") {
    const own = event.target.closest("button, a, summary");
    if (own && !own.closest(".film")) return;
    return event.repeat ? event.preventDefault() : done(event, () => view.enter());
  }
  if (event.repeat) return;
  const act = { s: () => view.skip(), n: () => view.none(), f: () => app.like(), g: () => view.toggle?.() }[key];
  if (act) return done(event, act);
  const label = classOfKey(key);
  if (label !== null) done(event, () => view.assign(label));
});

function done(event, act) {
  event.preventDefault();
  act();
}

// What the server says.

let shown = "online";
function banner() {
  const place = document.getElementById("banner"), waiting = outbox.items.length, stale = outbox.state === "stale";
  const kept = waiting ? `${count(waiting)} ${waiting === 1 ? "action is" : "actions are"} kept in this browser and sent ${stale ? "from there" : "when it is back"}.` : "Every label so far is on disk.";
  const words = `${stale ? "Open the address that the terminal shows now." : "Trying again …"} ${kept}`;
  if (outbox.state !== shown) {
    shown = outbox.state;
    const online = shown === "online", title = stale ? "daso label was started anew" : "The server does not answer";
    body.classList.toggle("offline", !online);
    if (online) renew();
    // It is said once; a region that is live would be read at every try.
    say(online ? "The server answers again." : `${title}. ${words}`);
    place.replaceChildren(...(online ? [] : [h("div", { class: "offline-note" }, icon("offline"), h("div", {}, h("strong", {}, title), " ", h("span", {})), stale ? null : h("button", { type: "button", onclick: () => { outbox.send(); poll(); } }, "Try now"))]));
  }
  const told = place.querySelector("span");
  if (told) told.textContent = words;
}

outbox.onchange = banner;
let first = true;
listen((state, before, own) => {
  watchTraining(state, before);
  watchFeatures(state, before);
  if (first) { first = false; return route(); }
  views[name].update?.(state, before, own);
});
panel.start({ assign: (label) => (LABELING.includes(name) ? views[name].assign?.(label) : (location.hash = `confirm/${encodeURIComponent(label)}`)), create, back: land });
addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => done(event, land));
addEventListener("resize", () => clearTimeout(app.resized) || (app.resized = setTimeout(() => views[name].resize?.(), 200)));
document.getElementById("help-button").addEventListener("click", help);
if (location.search) history.replaceState(null, "", `/${location.hash}`);
outbox.adoptAll((adopted) => toast(`${count(adopted)} ${adopted === 1 ? "action of an earlier page is" : "actions of an earlier page are"} sent now.`, "good"));
poll();
document.body.dataset.ready = "yes";
