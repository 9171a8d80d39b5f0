"""Draw the map of the features with Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from daso.report.figures.draw import literal, make_figure
from daso.report.runs import Array
from daso.report.tsne import HEIGHT, NAME_LENGTH, WIDTH, Embedding, place_names
from daso.report.wording import shortened

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#444444")
"""Okabe and Ito's palette, with dark gray instead of yellow, which is hard to see on white."""
SHAPES = "o^sPvX"
MOST_SHAPES = len(COLORS) * len(SHAPES)
"""More classes are colored by frequency. 6 and 7 are coprime: neighbors differ in both."""
BY_COUNT = ListedColormap(colormaps["cividis"](np.linspace(0, 0.85, 256)))
"""Cividis without the light yellow at its end."""
OTHERS = "#C4C8CC"
LEGEND_ROWS = 22
SIZES = {"unlabeled": 14, "labeled": 42, "prototype": 190}
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]

Style = tuple[Any, str]
"""Color and shape."""


def class_styles(order: Sequence[int], highlighted: Sequence[int], counts: Array) -> list[Style]:
    """Return color and shape of each of the K classes; those not highlighted are pale."""
    if len(highlighted) > MOST_SHAPES:
        norm = _norm(counts)
        return [(BY_COUNT(norm(max(count, 1))), "o") for count in counts]
    styles: list[Style] = [(OTHERS, "o")] * len(order)
    for rank, k in enumerate(k for k in order if k in set(highlighted)):
        styles[k] = (COLORS[rank % len(COLORS)], SHAPES[rank % len(SHAPES)])
    return styles


def _norm(counts: Array) -> LogNorm:
    return LogNorm(max(float(counts.min()), 1), max(float(counts.max()), 2))


def draw_map(
    placed: Embedding,
    classes: npt.NDArray[Any],
    names: Sequence[str],
    counts: Array,
    highlighted: Sequence[int],
) -> Figure:
    """Return a map: small marks are unlabeled images, edged ones labeled, stars prototypes.

    *classes* are those of the unlabeled images, (N,), -1 if unknown; *counts* are the labeled
    images of each class, (K,).
    """
    figure, (axis,) = make_figure(1, (10, 5.8))
    order = [int(k) for k in np.argsort(-counts, kind="stable")]
    styles, mine = class_styles(order, highlighted, counts), set(highlighted)
    pale_first = sorted(order, key=lambda k: k in mine)

    def scatter(places: Array, kind: str, style: Style, **more: Any) -> None:
        color, shape = style
        x, y = places.T
        axis.scatter(x, y, SIZES[kind], [color], marker=shape, **more)

    for k in (*pale_first, -1):
        style = styles[k] if k >= 0 else (OTHERS, "o")
        scatter(placed.unlabeled[classes == k], "unlabeled", style, alpha=0.6, linewidths=0)
    for k in pale_first:
        edge = {"edgecolors": "black", "linewidths": 0.9 if k in mine else 0.3}
        scatter(placed.labeled[placed.label == k], "labeled", styles[k], **edge)
    for k in pale_first:
        edge = {"edgecolors": "black", "linewidths": 1.0 if k in mine else 0.3}
        scatter(placed.prototypes[[k]], "prototype", (styles[k][0], "*"), **edge)
    named = [k for k in order if k in mine] if len(mine) <= MOST_SHAPES else []
    shown = [shortened(names[k], NAME_LENGTH) for k in named]
    sides = {"": "left", "end": "right", "mid": "center"}
    places = place_names(placed.prototypes[named], shown)
    for (x, y, side), name in zip(places, shown, strict=True):
        text = axis.text(
            x, y, literal(name), ha=sides[side], va="baseline", fontsize=8, fontweight="bold"
        )
        text.set(path_effects=HALO)
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    _legend(axis, order, names, counts, styles, mine)
    return figure


def _legend(
    axis: Axes,
    order: Sequence[int],
    names: Sequence[str],
    counts: Array,
    styles: Sequence[Style],
    mine: set[int],
) -> None:
    def entry(label: str, style: Style, kind: str, edge: float) -> Line2D:
        line = Line2D([], [], linestyle="", marker=style[1], label=label)
        line.set(markersize=math.sqrt(SIZES[kind]), markerfacecolor=style[0])
        line.set(markeredgecolor="black", markeredgewidth=edge)
        return line

    entries = [
        entry("unlabeled image", (OTHERS, "o"), "unlabeled", 0),
        entry("labeled image", (OTHERS, "o"), "labeled", 0.9),
        entry("prototype of a class", (OTHERS, "*"), "prototype", 1.0),
    ]
    look: dict[str, Any] = {"bbox_to_anchor": (0.0, 0.0), "ncols": 3}
    if len(mine) <= MOST_SHAPES:
        entries += [
            entry(f"{literal(names[k])} ({counts[k]:,.0f})", styles[k], "labeled", 0.4)
            for k in order
            if k in mine
        ]
        if len(mine) < len(order):
            entries.append(entry("other classes", (OTHERS, "o"), "labeled", 0))
        look = {"bbox_to_anchor": (1.0, 1.0), "ncols": math.ceil(len(entries) / LEGEND_ROWS)}
    else:
        bar = axis.figure.colorbar(ScalarMappable(_norm(counts), BY_COUNT), ax=axis, shrink=0.6)
        bar.set_label("labeled images of the class")
    axis.legend(handles=entries, loc="upper left", frameon=False, fontsize=8, **look)
