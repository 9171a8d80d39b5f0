"use strict";
// Numbers as Python prints them, half to even: the report, the label page and the terminal print the same digits.
const fixed = (value, digits) => {
  const size = Math.abs(value), text = size.toFixed(digits), half = (size * 2 ** (digits + 1)) % 2 === 1;
  const even = half && text.at(-1) % 2 ? (size - 0.5 / 10 ** digits).toFixed(digits) : text;
  return value < 0 ? `-${even}` : even;
};
const percent = (share, digits = 0) => (share === null || share === undefined ? "–" : `${fixed(100 * share, digits)}%`);
