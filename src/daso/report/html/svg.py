"""Charts as inline SVG. Colours are classes of the style sheet, so a chart follows the theme of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from daso.report.html.run import Array

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36
MOST_POINTS = 300
"""Of a curve; more are thinned out."""


@dataclass(frozen=True)
class Series:
    """A curve or a row of points.

    Attributes:
        name: for the legend.
        style: class of the style sheet, which says colour and dashes.
        x, y: of the points; NaN leaves a gap.
    """

    name: str
    style: str
    x: Array
    y: Array


@dataclass(frozen=True)
class Scale:
    """Maps values to places; *log* takes their logarithm first."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; what lies outside is moved to the edge."""
        low, high, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(v)
        return self.start + (v - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values within the scale."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
            found = [f * 10.0**p for p in powers for f in factors]
            return [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
        span = (self.high - self.low) or 1
        raw = span / most
        step = 10 ** math.floor(math.log10(raw))
        step *= next(f for f in (1, 2, 2.5, 5, 10) if f * step >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """Return a number for an axis."""
    if value and abs(value) < 0.01:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def frame(
    body: str,
    title: str,
    description: str,
    height: float = HEIGHT,
    extra: str = "",
    width: float = WIDTH,
) -> Markup:
    """Return an SVG element with a title and a description for those who do not see it."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" {extra}>'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def text(x: float, y: float, content: str, style: str = "", extra: str = "") -> str:
    """Return a text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" {extra}>{escape(content)}</text>'


def axes(x: Scale | None, y: Scale, x_label: str, y_label: str, percent: bool = False) -> str:
    """Return grid lines, tick labels and labels of the axes."""
    parts = []
    for value in y.ticks():
        place = y(value)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        label = f"{100 * value:g}%" if percent else short(value)
        parts.append(text(LEFT - 5, place + 3.5, label, "tick end"))
    if x is not None:
        for value in x.ticks():
            place = x(value)
            parts.append(f'<path class="grid" d="M{place:.1f} {y.start:.1f}v4"/>')
            style = "tick end" if place > WIDTH - RIGHT - 8 else "tick mid"
            parts.append(text(min(place, WIDTH - 2), y.start + 15, short(value), style))
    if x_label:
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, y.start + 31, x_label, "label mid"))
    if y_label:
        middle = (y.start + y.end) / 2
        parts.append(
            text(11, middle, y_label, "label mid side", f'transform="rotate(-90 11 {middle:.1f})"')
        )
    parts.append(f'<path class="axis" d="M{LEFT} {y.start:.1f}H{WIDTH - RIGHT}"/>')
    return "".join(parts)


def path_of(x: Scale, y: Scale, series_x: Array, series_y: Array) -> str:
    """Return the path data of a curve; a point between gaps becomes a dot."""
    parts, pen = [], False
    for a, b in zip(series_x, series_y, strict=True):
        if not math.isfinite(b):
            pen = False
            continue
        parts.append(f"{'L' if pen else 'M'}{x(a):.1f} {y(b):.1f}" + ("" if pen else "h0"))
        pen = True
    return "".join(parts)


def thin(x: Array, y: Array) -> tuple[Array, Array]:
    """Return at most 300 points of a curve: means of neighbours."""
    if len(x) <= MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MOST_POINTS)
    means = [np.mean(y[part]) for part in parts]
    return x[[part[-1] for part in parts]], np.array(means)


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_label: str = "",
    percent: bool = True,
    log: bool = False,
    high: float | None = None,
    marks: Sequence[float] = (),
) -> Markup:
    """Return curves over the steps of a training.

    Args:
        title: for those who do not see it.
        series: of steps and values.
        y_label: of the vertical axis.
        percent: values are shares, from 0 on.
        log: a logarithmic vertical axis.
        high: its upper end; else the largest value.
        marks: steps at which a stage begins.
    """
    series = [Series(s.name, s.style, *thin(s.x, s.y)) for s in series]
    values = np.concatenate([s.y for s in series])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(values):
        return Markup("")
    top = float(values.max()) if high is None else high
    low = float(values.min()) if log else min(0.0, float(values.min()))
    if log:
        low, top = min(low, top / 2), max(top, 2 * low)
    steps = np.concatenate([s.x for s in series])
    first = 0.0 if steps.min() < 0.2 * steps.max() else float(steps.min())
    x = Scale(first, float(steps.max()), LEFT, WIDTH - RIGHT)
    y = Scale(low, top if top > low else low + 1, HEIGHT - BOTTOM, TOP, log)
    body = axes(x, y, "step", y_label, percent)
    for mark in marks:
        body += f'<path class="mark" d="M{x(mark):.1f} {TOP}V{HEIGHT - BOTTOM}"><title>next stage</title></path>'
    for s in series:
        y_values = np.where(s.y > 0, s.y, np.nan) if log else s.y
        body += (
            f'<path class="line {s.style}" d="{path_of(x, y, s.x, y_values)}">'
            f"<title>{escape(s.name)}</title></path>"
        )
    last = [
        f"{s.name}: {100 * s.y[-1]:.1f}%" if percent else f"{s.name}: {s.y[-1]:.3g}"
        for s in series
        if len(s.y) and math.isfinite(s.y[-1])
    ]
    return frame(body, title, "At the end " + ", ".join(last))
