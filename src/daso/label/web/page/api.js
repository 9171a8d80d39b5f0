// Requests. What a person decides goes through an outbox: sent in order, one after another, kept in
// this browser until the server has answered, and sent again after an interruption.

import { body } from "./dom.js";

const token = body.dataset.token;
const PREFIX = `daso-label ${body.dataset.identity} `;
const WAITS = [300, 600, 1000, 2000, 3000, 5000];

export class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const answer = await fetch(`/api/${path}`, { credentials: "same-origin", ...options });
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Refused(told.error || `the server answered ${answer.status}`, answer.status);
  return told;
}

export const get = (path, values = {}) => {
  const query = new URLSearchParams(values).toString();
  return ask(query ? `${path}?${query}` : path);
};

const post = (path, sent) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json", "X-Daso-Token": token }, body: JSON.stringify(sent) });

export const isGone = (error) => !(error instanceof Refused);
export const isStale = (error) => error instanceof Refused && error.status === 403;

const randomKey = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

class Outbox {
  constructor() {
    this.items = [];
    this.sending = false;
    this.onchange = () => {};
    this.state = "online"; // or gone, stale
    this.name = PREFIX + randomKey();
    this.release = null;
    this.kept = navigator.locks?.request(this.name, () => new Promise((done) => (this.release = done)));
  }

  // Takes over what other tabs have not sent, each once it is closed or of an earlier server.
  adoptAll(onadopted) {
    const awaited = new Set([this.name]);
    const adopt = (name) => {
      if (!name?.startsWith(PREFIX) || awaited.has(name)) return;
      awaited.add(name);
      navigator.locks?.request(name, () => {
        awaited.delete(name);
        const items = JSON.parse(localStorage.getItem(name) || "[]");
        localStorage.removeItem(name);
        if (!items.length) return;
        this.items.push(...items.map((item) => ({ ...item, old: true })));
        this.keep();
        onadopted(items.length);
        this.send();
      });
    };
    addEventListener("storage", ({ key }) => adopt(key));
    Object.keys(localStorage).forEach(adopt);
  }

  keep() {
    const items = this.items.map(({ path, sent, tried }) => ({ path, sent, tried }));
    try {
      if (items.length) localStorage.setItem(this.name, JSON.stringify(items));
      else localStorage.removeItem(this.name);
    } catch {
      // A browser that keeps nothing still sends.
    }
    this.onchange();
  }

  push(path, sent = {}) {
    return new Promise((resolve, reject) => {
      this.items.push({ path, sent: { ...sent, action: randomKey() }, resolve, reject });
      this.keep();
      this.send();
    });
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    for (let failures = 0; this.items.length; ) {
      const item = this.items[0];
      try {
        const answer = this.isDone(item) ? await get("state") : await this.deliver(item);
        this.become("online");
        failures = 0;
        this.items.shift();
        this.keep();
        item.resolve?.(answer);
      } catch (error) {
        if (isStale(error)) {
          this.become("stale");
          this.keep();
          this.release?.(); // the tab of the new address takes over
          return;
        }
        if (isGone(error)) {
          this.become("gone");
          await new Promise((done) => setTimeout(done, WAITS[Math.min(failures++, WAITS.length - 1)]));
          continue;
        }
        this.items.shift();
        this.keep();
        item.reject?.(error);
      }
    }
    this.sending = false;
  }

  // Waits until what was decided so far is on disk, or cannot be sent.
  async idle() {
    while (this.items.length && this.state === "online") await new Promise((done) => setTimeout(done, 20));
  }

  deliver(item) {
    item.tried = true;
    this.keep();
    return post(item.path, item.sent);
  }

  // A training that an earlier server was asked for is not begun again; all else it did is in the journal.
  isDone(item) {
    return item.old && item.tried && ["train", "cancel", "compare"].includes(item.path);
  }

  become(state) {
    if (this.state === state) return;
    this.state = state;
    this.onchange();
  }
}

export const outbox = new Outbox();
