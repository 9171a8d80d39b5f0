"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const names = data.names;
  const find = (id) => document.getElementById(id);
  const make = (tag, style, text) => {
    const element = document.createElement(tag);
    if (style) element.className = style;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Pictures that stand in tables.
  const thumbs = data.galleries ? data.galleries.thumbs : [];
  for (const image of document.querySelectorAll("img[data-thumb]")) image.src = thumbs[image.dataset.thumb];

  // Curves of a class or of a third of the classes.
  if (data.pseudo_labels) {
    const charts = [...find("picked").querySelectorAll("svg[data-picked]")];
    const show = () => {
      const paths = data.pseudo_labels.paths[find("pick-class").value];
      charts.forEach((chart, i) => chart.querySelectorAll("path.line").forEach((line, j) => line.setAttribute("d", paths[i][j])));
    };
    find("pick-class").addEventListener("change", show);
    show();
  }

  // Galleries.
  if (data.galleries) {
    const { items, galleries, order } = data.galleries;
    const rank = new Map(order.map((k, place) => [k, place]));
    const PAGE = innerWidth < 600 ? 12 : 36;
    let current = "disagreeing", limit = PAGE;
    const [INDEX, PATH, THUMB, LINEAR, LINEAR_P, SEMANTIC, SEMANTIC_P, FINAL, CONFIDENCE, TRUTH, NEAR] = [...Array(11).keys()];
    const words = items.map((item) => [item[PATH], names[item[LINEAR][0]], names[item[SEMANTIC][0]], names[item[FINAL]]].join(" ").toLowerCase());
    const picture = (place, style, alt) => {
      const image = make("img", style);
      image.alt = alt;
      image.src = thumbs[place];
      return image;
    };
    const card = (item) => {
      const box = make("li");
      const said = names[item[FINAL]];
      if (item[THUMB] >= 0) box.append(picture(item[THUMB], "main", `unlabeled image ${item[INDEX]}, pseudo-label ${said}`));
      const says = make("div", "says");
      const line = (what, k, end) => {
        says.append(make("i", "", what), make("b", "", names[k]), make("span", "", end));
      };
      line("says", item[LINEAR][0], percent(item[LINEAR_P][0]));
      line("like", item[SEMANTIC][0], percent(item[SEMANTIC_P][0]));
      if (item[FINAL] !== item[LINEAR][0] || Math.abs(item[CONFIDENCE] - item[LINEAR_P][0]) > 0.005) line("final", item[FINAL], percent(item[CONFIDENCE]));
      if (item[TRUTH] >= 0) line("truth", item[TRUTH], item[TRUTH] === item[FINAL] ? "✓" : "✗");
      box.append(says);
      const path = make("div", "path", item[PATH] ? "\u200e" + item[PATH] : `image ${item[INDEX]}`);
      path.title = item[PATH] || `image ${item[INDEX]} of the unlabeled ones`;
      box.append(path);
      if (item[NEAR].length) {
        const near = make("div", "near");
        for (const [label, place, cosine, where] of item[NEAR]) {
          const one = make("span");
          one.title = `labeled ${names[label]}, cosine ${cosine}` + (where ? `, ${where}` : "");
          if (place >= 0) one.append(picture(place, "", `labeled ${names[label]}`));
          one.append(names[label]);
          near.append(one);
        }
        box.append(near);
      }
      return box;
    };
    const draw = () => {
      const wanted = find("gallery-class").value, text = find("gallery-find").value.trim().toLowerCase();
      const sort = find("gallery-sort").value;
      let chosen = galleries[current].filter((i) => {
        const item = items[i];
        if (wanted !== "" && ![item[FINAL], item[LINEAR][0], item[SEMANTIC][0]].includes(Number(wanted))) return false;
        return words[i].includes(text);
      });
      const by = {
        rare: (i) => -Math.max(rank.get(items[i][FINAL]), rank.get(items[i][SEMANTIC][0])),
        low: (i) => items[i][CONFIDENCE],
        high: (i) => -items[i][CONFIDENCE],
      }[sort];
      if (by) chosen = chosen.map((i) => [by(i), i]).sort(([a], [b]) => a - b).map(([, i]) => i);
      find("gallery").replaceChildren(...chosen.slice(0, limit).map((i) => card(items[i])));
      find("gallery-more").hidden = chosen.length <= limit;
      find("gallery-count").textContent = `${Math.min(limit, chosen.length)} of ${chosen.length}`;
    };
    const redraw = () => { limit = PAGE; draw(); };
    for (const button of document.querySelectorAll("[data-gallery]")) {
      button.addEventListener("click", () => {
        current = button.dataset.gallery;
        for (const other of document.querySelectorAll("[data-gallery]")) other.setAttribute("aria-pressed", String(other === button));
        redraw();
      });
    }
    for (const id of ["gallery-class", "gallery-sort"]) find(id).addEventListener("change", redraw);
    find("gallery-find").addEventListener("input", redraw);
    find("gallery-more").addEventListener("click", () => { limit += 2 * PAGE; draw(); });
    draw();
  }

  // The map: colors and a class to single out.
  if (data.map) {
    const { final, truth, linear, semantic, label, colors } = data.map;
    const map = document.querySelector("svg.map");
    const dots = [...map.querySelectorAll(".points circle")], squares = [...map.querySelectorAll(".squares rect")];
    const marks = [...map.querySelectorAll(".prototypes path")];
    const texts = [...map.querySelectorAll(".prototypes text")];
    const legend = find("map-legend"), frequency = [...legend.childNodes];
    const key = (entries) => entries.flatMap(([style, text]) => [make("span", "swatch " + style), ` ${text} `]);
    const draw = () => {
      const mode = find("map-color").value, wanted = find("map-class").value;
      const bad = (i) => mode === "wrong" ? truth[i] !== final[i] : linear[i] !== semantic[i];
      const yes = "var(--over)", no = "var(--under)";
      dots.forEach((dot, i) => {
        const k = mode === "truth" ? truth[i] : final[i];
        const color = mode === "wrong" || mode === "agree" ? (bad(i) ? no : yes) : k < 0 ? "var(--labeled)" : colors[k];
        dot.style.fill = color;
        const mine = wanted === "" || k === Number(wanted) || (mode === "agree" && (linear[i] === Number(wanted) || semantic[i] === Number(wanted)));
        dot.classList.toggle("dim", !mine);
      });
      squares.forEach((square, i) => square.classList.toggle("dim", wanted !== "" && label[i] !== Number(wanted)));
      for (const set of [marks, texts]) set.forEach((mark, k) => mark.classList.toggle("dim", wanted !== "" && k !== Number(wanted)));
      legend.replaceChildren(...(mode === "wrong" ? key([["over", "right"], ["under", "wrong"]])
        : mode === "agree" ? key([["over", "classifier and similarity agree"], ["under", "they disagree"]]) : frequency));
    };
    for (const id of ["map-color", "map-class"]) find(id).addEventListener("change", draw);
  }

  // A large confusion matrix: its cells under the pointer or the arrow keys, and the answers to a class.
  if (data.confusion) {
    const { names: ordered, cells } = data.confusion;
    const size = ordered.length, box = find("pixel-matrix"), cursor = find("pixel-cursor");
    const table = cells.map((row) => new Map(row));
    let at = [0, 0];
    const show = () => {
      const [i, j] = at, total = cells[i].reduce((sum, [, n]) => sum + n, 0), count = table[i].get(j) || 0;
      Object.assign(cursor.style, { left: 100 * j / size + "%", top: 100 * i / size + "%", width: 100 / size + "%", height: 100 / size + "%" });
      cursor.hidden = false;
      find("pixel-said").textContent = `${count} of ${total} images of ${ordered[i]} were classified as ${ordered[j]}`;
    };
    box.addEventListener("pointermove", (event) => {
      const area = box.getBoundingClientRect();
      const place = (value, low, length) => Math.min(size - 1, Math.max(0, Math.floor((value - low) / length * size)));
      at = [place(event.clientY, area.top, area.height), place(event.clientX, area.left, area.width)];
      show();
    });
    box.addEventListener("click", () => { find("confusion-class").value = at[0]; list(); });
    box.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      at = at.map((value, axis) => Math.min(size - 1, Math.max(0, value + step[axis])));
      show();
    });
    const list = () => {
      const i = Number(find("confusion-class").value), row = [...cells[i]].sort((a, b) => b[1] - a[1]);
      const total = row.reduce((sum, [, n]) => sum + n, 0);
      find("confusion-answers").replaceChildren(...row.map(([j, n]) => {
        const line = make("li", j === i ? "right" : ""), track = make("span", "track"), bar = make("i");
        bar.style.width = 100 * n / total + "%";
        track.append(bar);
        line.append(make("span", "", ordered[j]), track, make("span", "", `${n} · ${percent(n / total)}`));
        return line;
      }));
    };
    find("confusion-class").addEventListener("change", list);
    list();
  }
})();
