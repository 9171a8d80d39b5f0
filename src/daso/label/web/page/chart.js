// Small line charts with intervals; a table says the same for those who do not see them.

import { h, percent, svg } from "./dom.js";

const HIGH = 250, LEFT = 46, RIGHT = 112, TOP = 14, BELOW = 34;

const ticksOf = (low, high) => {
  const rough = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * unit).find((one) => one >= rough) ?? unit;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) found.push(at);
  return found;
};

// lines: [{name, kind, points: [[x, y, half interval or null]]}]
export function chart(title, lines, { share = false, across = "", whole = true } = {}) {
  const WIDE = innerWidth < 600 ? 380 : 640;
  const all = lines.flatMap((line) => line.points);
  if (!all.length) return null;
  const xs = all.map((point) => point[0]);
  let low = Math.min(...all.map(([, y, half]) => y - (half ?? 0))), high = Math.max(...all.map(([, y, half]) => y + (half ?? 0)));
  if (share) { low = Math.max(0, Math.floor(low * 10 - 0.3) / 10); high = Math.min(1, Math.ceil(high * 10 + 0.3) / 10); }
  else { low = Math.min(0, low); high = high * 1.05 || 1; }
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const x = (value) => LEFT + (last === first ? 0.5 : (value - first) / (last - first)) * (WIDE - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - low) / (high - low || 1)) * (HIGH - TOP - BELOW);
  const text = (value) => (share ? percent(value) : value.toLocaleString("en-US", { maximumSignificantDigits: 3 }));
  const drawn = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": `${title}: ${lines.filter((line) => line.points.length).map((line) => `${line.name} ${text(line.points.at(-1)[1])} at the end`).join(", ")}` });
  for (const tick of ticksOf(low, high)) {
    drawn.append(svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: y(tick), y2: y(tick), class: "gridline" }), svg("text", { x: LEFT - 8, y: y(tick) + 4, class: "end" }, text(tick)));
  }
  const marks = whole && new Set(xs).size <= 8 ? [...new Set(xs)] : ticksOf(first, last);
  for (const mark of marks) drawn.append(svg("text", { x: x(mark), y: HIGH - 14, class: "mid" }, mark.toLocaleString("en-US")));
  drawn.append(svg("text", { x: WIDE - RIGHT, y: HIGH - 1, class: "end" }, across));
  const ends = [];
  for (const { name, kind, points } of lines) {
    if (!points.length) continue;
    const aside = kind === "few" && points.some((point) => point[2]) ? 7 : 0; // intervals beside one another
    const group = svg("g", { class: `line ${kind}`, transform: `translate(${aside} 0)` });
    for (const [at, value, half] of points) if (half) group.append(svg("path", { class: "whisker", d: `M${x(at)} ${y(Math.max(low, value - half))}V${y(Math.min(high, value + half))}` }));
    group.append(svg("path", { class: "stroke", d: points.map(([at, value], place) => `${place ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("") }));
    if (points.length <= 30) for (const [at, value] of points) group.append(kind === "few" ? svg("rect", { class: "dot", x: x(at) - 3.5, y: y(value) - 3.5, width: 7, height: 7 }) : svg("circle", { class: "dot", cx: x(at), cy: y(value), r: 4 }));
    drawn.append(group);
    ends.push({ kind, name, value: points.at(-1)[1], at: y(points.at(-1)[1]) });
  }
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((end, place) => { if (place) end.at = Math.max(end.at, ends[place - 1].at + 32); });
  for (const { kind, name, value, at } of ends) drawn.append(svg("text", { x: WIDE - RIGHT + 10, y: at + 1, class: `name ${kind}` }, text(value)), svg("text", { x: WIDE - RIGHT + 10, y: at + 15, class: "small" }, name));
  return h("figure", { class: "card" }, h("figcaption", {}, title), drawn);
}
