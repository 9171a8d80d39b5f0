// One image to decide about, and what is known beside it. The focus stays on it from image to image.

import { body, h, picture, say } from "./dom.js";

const BIG = 640;

export class Stage {
  // A list of one: in a list screen readers leave the keys to the page, elsewhere they read with them.
  constructor(label) {
    this.option = h("div", { role: "option", tabIndex: 0, "aria-selected": "true" });
    this.caption = h("figcaption");
    this.figure = h("figure", { class: "big" }, h("div", { role: "listbox", "aria-label": label }, this.option), this.caption);
    this.element = h("div", { class: "stage" }, this.figure);
  }

  // done: what was done just now; words: what there is to hear about this image.
  show(root, image, name, { done, words, head, caption = null, beside, below }) {
    const told = [...words, `${name}.`].filter(Boolean).join(" ");
    this.option.setAttribute("aria-label", told);
    this.option.replaceChildren(picture(image, BIG, "", { class: "main" }));
    this.caption.replaceChildren(...[h("bdi", {}, name), caption].filter(Boolean));
    // Only what is around the image is replaced.
    if (this.element.parentNode !== root) root.replaceChildren(this.element);
    for (const one of [...root.children]) if (one !== this.element) one.remove();
    this.element.before(head);
    this.element.after(...below);
    this.figure.nextSibling?.remove();
    this.figure.after(beside);
    // The focus that comes to the image reads its label.
    const comes = [root, body].includes(document.activeElement);
    if (done || !comes) say(comes ? done : `${done} ${told}`.trim());
  }
}
