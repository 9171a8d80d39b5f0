"use strict";
(() => {
  const find = (id) => document.getElementById(id);

  // Light and dark: as the system has it until the button says otherwise.
  const root = document.documentElement;
  const remember = (value) => { try { localStorage.setItem("daso-theme", value); } catch { /* as in theme.js */ } };
  find("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remember(root.dataset.theme);
  });

  // What is in view comes first; the rest is laid out once that is painted.
  addEventListener("load", () => (self.requestIdleCallback || setTimeout)(() => root.classList.add("whole")));

  // The section in view is marked in the navigation.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) entry.isIntersecting ? seen.add(entry.target.id) : seen.delete(entry.target.id);
    const current = [...links.keys()].find((id) => seen.has(id));
    for (const [id, a] of links) id === current ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
  }, { rootMargin: "-60px 0px -55% 0px" });
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);

  // Tables: a click on a head sorts, a search field filters.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const numeric = head.dataset.kind === "number";
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : numeric && column > 0;
        const value = (row) => {
          const cell = row.cells[column];
          if (!numeric) return cell.textContent.trim().toLowerCase();
          return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
        };
        const rows = [...body.rows].map((row) => [value(row), row]);
        rows.sort(([a], [b]) => {
          if (numeric) {
            if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
            return down ? b - a : a - b;
          }
          return down ? b.localeCompare(a) : a.localeCompare(b);
        });
        body.append(...rows.map(([, row]) => row));
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
  }
  for (const field of document.querySelectorAll("input[data-filters]")) {
    const rows = [...find(field.dataset.filters).tBodies[0].rows];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const said = document.querySelector(`[data-count="${field.dataset.filters}"]`);
    field.addEventListener("input", () => {
      const wanted = field.value.trim().toLowerCase();
      let count = 0;
      rows.forEach((row, i) => { row.hidden = !texts[i].includes(wanted); count += !row.hidden; });
      if (said) said.textContent = wanted ? `${count} of ${rows.length}` : "";
    });
  }

  // Titles of marks in charts, at once and under a finger too.
  const tip = find("tip");
  const tell = (event) => {
    const title = event.target.closest && event.target.closest("svg [class] > *, svg g, svg path, svg circle, svg rect")?.querySelector(":scope > title");
    if (!title) { tip.hidden = true; return; }
    tip.textContent = title.textContent;
    tip.hidden = false;
    const right = event.clientX > innerWidth / 2;
    tip.style.top = Math.min(event.clientY + 14, innerHeight - 40) + "px";
    tip.style.left = right ? "" : event.clientX + 12 + "px";
    tip.style.right = right ? innerWidth - event.clientX + 12 + "px" : "";
  };
  addEventListener("pointerover", tell);
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
