"""Draw charts as inline SVG. Colors are classes of the style sheet, so they follow the theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from daso.report.charts import CLASSES, FEW_CLASSES, Chart, Series
from daso.report.runs import Array
from daso.report.wording import shortened

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 36
RIGHT_END = WIDTH - RIGHT
MOST_POINTS = 300
"""Longer curves are thinned out."""
CLASSES_HEIGHT = 186.0
METHOD_STYLES = 6


@dataclass(frozen=True)
class Scale:
    """Maps values to places; values outside go to the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(v)
        return self.start + (v - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values within the scale."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
            values = [f * 10.0**p for p in powers for f in factors]
            return [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
        raw = ((self.high - self.low) or 1) / most
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


def style_of(series: Series, place: int) -> str:
    """Return the classes of the style sheet for a series, given its place among the others."""
    turn = place // METHOD_STYLES % 3
    return series.style or f"method-{place % METHOD_STYLES}" + (f" turn-{turn}" if turn else "")


def frame(
    body: str,
    title: str,
    description: str,
    height: float = HEIGHT,
    width: float = WIDTH,
    extra: str = "",
) -> Markup:
    """Return an SVG element with a title and a description for screen readers."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" {extra}>'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{body}</svg>"
    )


def text(x: float, y: float, content: str, style: str = "", turn: int = 0) -> str:
    """Return a text element, turned by some degrees."""
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}"{turned}>{escape(content)}</text>'


def axes(x: Scale | None, y: Scale, x_label: str, y_label: str, percent: bool = False) -> str:
    """Return grid lines, tick labels and labels of the axes."""
    parts = []
    for value in y.ticks():
        place = y(value)
        label = f"{100 * value:g}%" if percent else short(value)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{RIGHT_END}"/>')
        parts.append(text(LEFT - 5, place + 3.5, label, "tick end"))
    if x is not None:
        for value in x.ticks():
            place = x(value)
            style = "tick end" if place > RIGHT_END - 8 else "tick mid"
            parts.append(f'<path class="grid" d="M{place:.1f} {y.start:.1f}v4"/>')
            parts.append(text(min(place, WIDTH - 2), y.start + 15, short(value), style))
    if x_label:
        parts.append(text((LEFT + RIGHT_END) / 2, y.start + 31, x_label, "label mid"))
    if y_label:
        parts.append(text(11, (y.start + y.end) / 2, y_label, "label mid side", -90))
    parts.append(f'<path class="axis" d="M{LEFT} {y.start:.1f}H{RIGHT_END}"/>')
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


def draw(chart: Chart) -> Markup:
    """Return a chart as an SVG element; empty if it has no finite number."""
    values = np.concatenate([one.y for one in chart.series])
    if not np.isfinite(values).any():
        return Markup("")
    values = values[np.isfinite(values)]
    if chart.kind == "lines":
        return _lines(chart, values)
    return _classes(chart, values) if chart.kind == "classes" else _points(chart, values)


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:,.4g}"


def _thin(values: Array) -> Array:
    if len(values) <= MOST_POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, MOST_POINTS)])


def _lines(chart: Chart, values: Array) -> Markup:
    steps = np.concatenate([one.x for one in chart.series])
    first = 0.0 if steps.min() < 0.2 * steps.max() else float(steps.min())
    ends = [one.y if one.spread is None else one.y + one.spread for one in chart.series]
    top = float(np.nanmax(np.concatenate(ends))) if chart.high is None else chart.high
    if chart.reference is not None:
        top = max(top, 1.05 * chart.reference)
    low = min(0.0, float(values.min()))
    x = Scale(first, float(steps.max()), LEFT, RIGHT_END)
    y = Scale(low, top if top > low else low + 1, HEIGHT - BOTTOM, TOP)
    body = axes(x, y, chart.x_label, chart.y_label, chart.percent)
    for mark in chart.marks:
        body += f'<path class="mark" d="M{x(mark):.1f} {TOP}V{HEIGHT - BOTTOM}">'
        body += "<title>next stage</title></path>"
    if chart.reference is not None:
        body += f'<path class="mark" d="M{LEFT} {y(chart.reference):.1f}H{RIGHT_END}"/>'
    lasts = []
    for place, one in enumerate(chart.series):
        if not len(one.y):
            continue
        style, steps = style_of(one, place), _thin(one.x)
        if one.spread is not None:
            there = np.concatenate([steps, steps[::-1]])
            band = np.concatenate([_thin(one.y + one.spread), _thin(one.y - one.spread)[::-1]])
            if np.isfinite(band).all():
                body += f'<path class="band {style}" d="{path_of(x, y, there, band)}z"/>'
        line = path_of(x, y, steps, _thin(one.y))
        body += f'<path class="line {style}" d="{line}"><title>{escape(one.name)}</title></path>'
        if math.isfinite(one.y[-1]):
            lasts.append(f"{one.name}: {_number(one.y[-1], chart.percent)}")
    return frame(body, chart.title, "At the end " + ", ".join(lasts))


def class_axis(names: Sequence[str], counts: Array | None, base: float) -> tuple[str, float]:
    """Return the class names under a chart, if there are few, and the height that they take."""
    if len(names) > FEW_CLASSES:
        return text((LEFT + RIGHT_END) / 2, base + 16, CLASSES, "label mid"), 24
    labels = [shortened(name) for name in names]
    if counts is not None:
        labels = [f"{name} ({count:.0f})" for name, count in zip(labels, counts, strict=True)]
    x = class_scale(len(names))
    body = "".join(
        text(x(place) + 3, base + 10, label, "tick end", -50) for place, label in enumerate(labels)
    )
    return body, 16 + 4.6 * max(map(len, labels))


def class_scale(count: int) -> Scale:
    """Return the places of classes, side by side."""
    half = (RIGHT_END - LEFT) / max(count, 1) / 2
    return Scale(0, max(count - 1, 1), LEFT + half, RIGHT_END - half)


def _classes(chart: Chart, values: Array) -> Markup:
    """Draw dots per class, joined by a line; means over runs are side by side with whiskers."""
    base, names = TOP + CLASSES_HEIGHT, chart.names
    below, space = class_axis(names, chart.counts, base)
    top = chart.high or float(values.max()) or 1.0
    low = max(min(0.8, float(values[values > 0].min(initial=1))), 1e-6) if chart.log else 0.0
    y = Scale(low, max(top, 2 * low), base, TOP, chart.log)
    x = class_scale(len(names))
    body = axes(None, y, "", chart.y_label, chart.percent) + below
    radius = 4.0 if len(names) <= FEW_CLASSES else 2.2 if len(names) <= 60 else 1.6
    methods = not chart.series[0].style
    room = 0.7 * (RIGHT_END - LEFT) / len(names) if methods else 0.0
    radius = min(radius, max(1.4, room / len(chart.series) / 2)) if methods else radius
    if not methods:
        stacked = np.stack([one.y for one in chart.series])
        for place in range(len(names)):
            there = stacked[np.isfinite(stacked[:, place]), place]
            if len(there) > 1:
                ends = y(float(there.min())), y(float(there.max()))
                body += f'<path class="join" d="M{x(place):.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>'
    for number, one in enumerate(chart.series):
        shift = ((number + 0.5) / len(chart.series) - 0.5) * room
        marks = []
        for place, value in enumerate(one.y):
            if not math.isfinite(value):
                continue
            across, label = x(place) + shift, _number(value, chart.percent)
            spread = 0.0 if one.spread is None else one.spread[place]
            if spread > 0:
                ends = y(value - spread), y(value + spread)
                marks.append(
                    f'<path class="whisker" d="M{across:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>'
                )
                label += f" ± {_number(spread, chart.percent)}"
            count = "" if chart.counts is None else f" ({chart.counts[place]:.0f})"
            title = escape(f"{names[place]}{count}: {one.name} {label}")
            marks.append(
                f'<circle cx="{across:.1f}" cy="{y(max(value, low)):.1f}" r="{radius:g}">'
                f"<title>{title}</title></circle>"
            )
        body += f'<g class="dots {style_of(one, number)}">{"".join(marks)}</g>'
    described = ", ".join(one.name for one in chart.series)
    return frame(body, chart.title, described, base + space + 4)


def _points(chart: Chart, values: Array) -> Markup:
    counts = np.concatenate([one.x for one in chart.series])
    low, high = max(0.9, float(counts.min()) * 0.9), float(counts.max()) * 1.1
    x = Scale(low, high, LEFT, RIGHT_END, log=True)
    y = Scale(0, chart.high or float(values.max()), HEIGHT - BOTTOM, TOP)
    body = axes(x, y, chart.x_label, chart.y_label, chart.percent)
    for place, one in enumerate(chart.series):
        marks = [
            f'<circle cx="{x(count):.1f}" cy="{y(value):.1f}" r="2.8"><title>{escape(name)}: '
            f"{count:.0f} labeled, {escape(one.name)} {_number(value, chart.percent)}"
            "</title></circle>"
            for name, count, value in zip(chart.names, one.x, one.y, strict=True)
            if math.isfinite(value)
        ]
        body += f'<g class="dots {style_of(one, place)}">{"".join(marks)}</g>'
    return frame(body, chart.title, ", ".join(one.name for one in chart.series))


def figure(chart: Chart) -> dict[str, Any]:
    """Return what the template shows of a chart: drawing, title, note, and legend."""
    legend = [(one.name, style_of(one, place)) for place, one in enumerate(chart.series)]
    return {
        "title": chart.title,
        "note": chart.note,
        "drawing": draw(chart),
        "legend": legend,
        "dots": chart.kind != "lines",
    }
