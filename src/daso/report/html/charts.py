"""Charts of classes, bins and evaluations."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from daso.report.html.run import Array
from daso.report.html.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    Series,
    axes,
    frame,
    short,
    text,
)

NAMED = 20
"""So many classes have their names under a chart."""
HEAT_WIDTH = 330
"""Of a picture of the classes over time, of which three stand side by side."""


def class_axis(
    names: Sequence[str], notes: Sequence[str], base: float, label: str
) -> tuple[str, float]:
    """Return the names of classes under a chart, if there are few enough, and the height that this takes."""
    if len(names) > NAMED:
        return text((LEFT + WIDTH - RIGHT) / 2, base + 16, label, "label mid"), 24
    x = class_scale(len(names))
    parts = []
    for place, (name, note) in enumerate(zip(names, notes, strict=True)):
        across, down = x(place) + 3, base + 10
        shown = name if len(name) <= 14 else name[:13] + "…"
        label_text = f"{shown} {note}".strip()
        parts.append(
            text(
                across,
                down,
                label_text,
                "tick end",
                f'transform="rotate(-50 {across:.1f} {down:.1f})"',
            )
        )
    longest = max(
        (min(len(n), 14) + len(note) + 1 for n, note in zip(names, notes, strict=True)), default=0
    )
    return "".join(parts), 16 + 4.6 * longest


def class_scale(count: int) -> Scale:
    """Return the places of classes, side by side."""
    step = (WIDTH - RIGHT - LEFT) / max(count, 1)
    return Scale(0, max(count - 1, 1), LEFT + step / 2, WIDTH - RIGHT - step / 2)


def class_dots(
    title: str,
    names: Sequence[str],
    notes: Sequence[str],
    series: Sequence[Series],
    *,
    y_label: str,
    percent: bool = False,
    log: bool = False,
    joined: bool = False,
    axis_label: str = "class, most labelled images first",
) -> Markup:
    """Return points per class.

    Args:
        title: for those who do not see it.
        names, notes: of the classes, in order; a note stands behind the name.
        series: ``y`` holds a value for each class.
        y_label: of the vertical axis.
        percent: values are shares, 0 to 1.
        log: a logarithmic vertical axis; zeros stand at its foot.
        joined: a line joins the points of a class.
        axis_label: stands below where there are too many classes for their names.
    """
    values = np.concatenate([s.y for s in series])
    values = values[np.isfinite(values)]
    if not len(values):
        return Markup("")
    base = TOP + 186.0
    below, space = class_axis(names, notes, base, axis_label)
    top = 1.0 if percent else float(values.max()) or 1.0
    low = max(min(0.8, float(values[values > 0].min(initial=1))), 1e-6) if log else 0.0
    y = Scale(low, max(top, 2 * low), base, TOP, log)
    x = class_scale(len(names))
    body = axes(None, y, "", y_label, percent) + below
    radius = 4.0 if len(names) <= NAMED else 2.2 if len(names) <= 60 else 1.6
    if joined:
        stacked = np.stack([s.y for s in series])
        for place in range(len(names)):
            there = stacked[np.isfinite(stacked[:, place]), place]
            if len(there) > 1:
                a, b = y(float(there.min())), y(float(there.max()))
                body += f'<path class="join" d="M{x(place):.1f} {a:.1f}V{b:.1f}"/>'
    for s in series:
        marks = []
        for place, value in enumerate(s.y):
            if math.isfinite(value):
                said = f"{100 * value:.1f}%" if percent else f"{value:,.4g}"
                marks.append(
                    f'<circle cx="{x(place):.1f}" cy="{y(max(value, low)):.1f}" r="{radius}">'
                    f"<title>{escape(names[place])} {escape(notes[place])}: {escape(s.name)} {said}</title></circle>"
                )
        body += f'<g class="dots {s.style}">{"".join(marks)}</g>'
    return frame(body, title, ", ".join(s.name for s in series), base + space + 4)


def scatter_recall(
    title: str, names: Sequence[str], counts: Array, series: Sequence[Series]
) -> Markup:
    """Return recall (0 to 1) against labelled images on a logarithmic axis."""
    x = Scale(
        max(0.9, float(counts.min()) * 0.9),
        float(counts.max()) * 1.1,
        LEFT,
        WIDTH - RIGHT,
        log=True,
    )
    y = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    body = axes(x, y, "labelled images", "recall", percent=True)
    for s in series:
        marks = [
            f'<circle cx="{x(max(float(n), 0.9)):.1f}" cy="{y(float(v)):.1f}" r="2.8"><title>{escape(name)}: {n:.0f} '
            f"labelled, {escape(s.name)} {100 * v:.1f}%</title></circle>"
            for name, n, v in zip(names, counts, s.y, strict=True)
            if math.isfinite(v)
        ]
        body += f'<g class="dots {s.style}">{"".join(marks)}</g>'
    return frame(body, title, ", ".join(s.name for s in series))


def bars(
    title: str, names: Sequence[str], notes: Sequence[str], values: Array, style: str
) -> Markup:
    """Return a bar (0 to 1) per class."""
    base = TOP + 150.0
    below, space = class_axis(names, notes, base, "class, most labelled images first")
    y, x = Scale(0, 1, base, TOP), class_scale(len(names))
    width = 0.7 * (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    body = axes(None, y, "", "", percent=False) + below
    for place, value in enumerate(values):
        if math.isfinite(value):
            high = y(float(value))
            body += (
                f'<rect class="bar {style}" x="{x(place) - width / 2:.1f}" y="{high:.1f}" width="{width:.1f}" '
                f'height="{base - high:.1f}"><title>{escape(names[place])}: {value:.3f}</title></rect>'
            )
    return frame(body, title, "a bar per class", base + space + 4)


def reliability(
    title: str, edges: Array, accuracy: Array, confidence: Array, counts: Array
) -> Markup:
    """Return a reliability diagram: accuracy of each bin of confidence, and below how many images are in it."""
    side = 190.0
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, TOP + side, TOP)
    body = axes(None, y, "", "accuracy", percent=True)
    diagonal = f"M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}"
    body += f'<path class="truth line" d="{diagonal}"><title>calibrated</title></path>'
    base, most = TOP + side + 52.0, max(float(counts.max()), 1)
    for i, count in enumerate(counts):
        if not count:
            continue
        left, width = x(edges[i]) + 1, x(edges[i + 1]) - x(edges[i]) - 2
        said = (
            f"confidence {100 * edges[i]:.0f} to {100 * edges[i + 1]:.0f}%: {count:,.0f} images, mean confidence "
            f"{100 * confidence[i]:.1f}%, accuracy {100 * accuracy[i]:.1f}%"
        )
        faint = " faint" if count < 10 else ""
        body += (
            f'<g class="bin{faint}"><title>{said}</title>'
            f'<rect class="bar final" x="{left:.1f}" y="{y(accuracy[i]):.1f}" width="{width:.1f}" '
            f'height="{y(0) - y(accuracy[i]):.1f}"/>'
            f'<path class="gap" d="M{left + width / 2:.1f} {y(accuracy[i]):.1f}V{y(confidence[i]):.1f}"/>'
            f'<rect class="bar labeled" x="{left:.1f}" y="{base - 34 * count / most:.1f}" width="{width:.1f}" '
            f'height="{34 * count / most:.1f}"/></g>'
        )
    body += f'<path class="axis" d="M{LEFT} {base}H{WIDTH - RIGHT}"/>'
    for value in x.ticks(5):
        style = "tick end" if value > 0.95 else "tick mid"
        body += text(x(value), base + 14, f"{100 * value:g}%", style)
    body += text(LEFT - 5, base - 24, short(most), "tick end")
    body += text(
        (LEFT + WIDTH - RIGHT) / 2, base + 29, "confidence, and images by confidence", "label mid"
    )
    return frame(body, title, "bars: accuracy; dotted: calibrated", base + 36)


def picture(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """Return an RGBA image (H, W, 4) as a data address of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def heat(title: str, names: Sequence[str], steps: Array, ratio: Array) -> Markup:
    """Return, over time, how over- (blue) and under-represented (orange) each class is.

    Args:
        title: for those who do not see it.
        names: of the K classes, in order.
        steps: (T,), of the evaluations.
        ratio: (T, K), 1 unbiased; from 1/4 to 4 the colours deepen.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.clip(np.log2(ratio) / 2, -1, 1)
    strength = np.where(np.isnan(strength), 0, strength).T
    pixels = np.zeros((*strength.shape, 4), np.uint8)
    pixels[..., :3] = np.where(strength[..., None] > 0, (0, 114, 178), (213, 94, 0))
    pixels[..., 3] = np.round(235 * np.abs(strength))
    few = len(names) <= 40
    row = 15 if len(names) <= NAMED else 9 if few else 240 / len(names)
    height = row * len(names)
    left = LEFT + (44 if few else 0)
    right = HEAT_WIDTH - RIGHT
    body = (
        f'<rect class="panel" x="{left}" y="{TOP}" width="{right - left}" height="{height:g}"/>'
        f'<image x="{left}" y="{TOP}" width="{right - left}" height="{height:g}" '
        f'preserveAspectRatio="none" class="pixels" href="{picture(pixels)}"/>'
    )
    if few:
        for place, name in enumerate(names):
            shown = name if len(name) <= 14 else name[:13] + "…"
            style = "tick end" if row > 10 else "tick end tiny"
            body += text(left - 5, TOP + row * (place + 0.5) + 3.5, shown, style)
    else:
        body += text(left - 5, TOP + 9, "many", "tick end") + text(
            left - 5, TOP + height, "few", "tick end"
        )
    x = Scale(float(steps.min()), float(steps.max()), left, right)
    for value in x.ticks(4):
        style = "tick end" if x(value) > right - 12 else "tick mid"
        body += text(x(value), TOP + height + 14, short(value), style)
    return frame(
        body, title, "a row per class, a column per evaluation", TOP + height + 20, width=HEAT_WIDTH
    )
