"""The map of the embedding by matplotlib."""

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
from matplotlib.lines import Line2D

from daso.report.runs import Array
from daso.report.tsne import HEIGHT, WIDTH, Embedding, place_names

COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#444444")
"""Okabe and Ito's, with a dark grey for their yellow, which is hard to see on white."""
SHAPES = "o^sPvX"
MOST_SHAPES = len(COLORS) * len(SHAPES)
"""So many classes have a colour and a shape of their own (6 and 7 have no common factor, so neighbours in frequency
differ in both); more are coloured by their number of labelled images."""
BY_COUNT = ListedColormap(colormaps["cividis"](np.linspace(0, 0.85, 256)))
"""Without the light yellow at its end."""
OTHERS = "#C4C8CC"
LEGEND_ROWS = 22
SIZES = {"unlabelled": 14, "labelled": 42, "prototype": 190}
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]


def class_styles(
    order: Sequence[int], singled: Sequence[int], counts: Array
) -> list[tuple[Any, str]]:
    """Return colour and shape of each of the K classes.

    Args:
        order: the classes, most labelled images first.
        singled: those to tell apart; the others are pale.
        counts: labelled images of each class, (K,).
    """
    if len(singled) > MOST_SHAPES:
        norm = _norm(counts)
        return [(BY_COUNT(norm(max(count, 1))), "o") for count in counts]
    styles: list[tuple[Any, str]] = [(OTHERS, "o")] * len(order)
    for rank, k in enumerate(k for k in order if k in set(singled)):
        styles[k] = (COLORS[rank % len(COLORS)], SHAPES[rank % len(SHAPES)])
    return styles


def _norm(counts: Array) -> LogNorm:
    return LogNorm(max(float(counts.min()), 1), max(float(counts.max()), 2))


def plot_embedding(
    axis: Axes,
    found: Embedding,
    classes: npt.NDArray[Any],
    names: Sequence[str],
    counts: Array,
    singled: Sequence[int],
) -> None:
    """Draw images and prototypes where they stand: small marks, larger ones with an edge, and stars with a name.

    Args:
        axis: to draw on.
        found: the map.
        classes: of the unlabelled images, (N,); -1 where it is not known.
        names: of the K classes.
        counts: labelled images of each class, (K,).
        singled: classes to tell apart.
    """
    order = [int(k) for k in np.argsort(-counts, kind="stable")]
    styles = class_styles(order, singled, counts)
    mine = set(singled)
    pale_first = sorted(order, key=lambda k: k in mine)
    for k in (*pale_first, -1):
        color, shape = styles[k] if k >= 0 else (OTHERS, "o")
        at = found.unlabeled[classes == k]
        axis.scatter(
            at[:, 0], at[:, 1], SIZES["unlabelled"], [color], marker=shape, alpha=0.6, linewidths=0
        )
    for k in pale_first:
        color, shape = styles[k]
        at, width = found.labeled[found.label == k], 0.9 if k in mine else 0.3
        axis.scatter(
            at[:, 0],
            at[:, 1],
            SIZES["labelled"],
            [color],
            marker=shape,
            edgecolors="black",
            linewidths=width,
        )
    for k in pale_first:
        color, width = styles[k][0], 1.0 if k in mine else 0.3
        at = found.prototypes[[k]]
        axis.scatter(
            at[:, 0],
            at[:, 1],
            SIZES["prototype"],
            [color],
            marker="*",
            edgecolors="black",
            linewidths=width,
        )
    named = [k for k in order if k in mine] if len(singled) <= MOST_SHAPES else []
    shown = [names[k] if len(names[k]) <= 24 else names[k][:23] + "…" for k in named]
    sides = {"": "left", "end": "right", "mid": "center"}
    for (x, y, side), name in zip(place_names(found.prototypes[named], shown), shown, strict=True):
        text = axis.text(x, y, name, ha=sides[side], va="baseline", fontsize=8, fontweight="bold")
        text.set(path_effects=HALO, parse_math=False)
    axis.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    _legend(axis, order, names, counts, styles, mine)


def _legend(
    axis: Axes,
    order: Sequence[int],
    names: Sequence[str],
    counts: Array,
    styles: Sequence[tuple[Any, str]],
    mine: set[int],
) -> None:
    """Say beside the map what size, edge, colour and shape mean."""

    def entry(label: str, color: Any, shape: str, size: float, edge: float) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="",
            marker=shape,
            markersize=math.sqrt(size),
            markerfacecolor=color,
            markeredgecolor="black",
            markeredgewidth=edge,
            label=label,
        )

    entries = [
        entry("unlabelled image", OTHERS, "o", SIZES["unlabelled"], 0),
        entry("labelled image", OTHERS, "o", SIZES["labelled"], 0.9),
        entry("prototype of a class", OTHERS, "*", SIZES["prototype"], 1.0),
    ]
    if len(mine) <= MOST_SHAPES:
        for k in order:
            if k in mine:
                entries.append(
                    entry(f"{names[k]} ({counts[k]:,.0f})", *styles[k], SIZES["labelled"], 0.4)
                )
        if len(mine) < len(order):
            entries.append(entry("other classes", OTHERS, "o", SIZES["labelled"], 0))
    else:
        bar = axis.figure.colorbar(ScalarMappable(_norm(counts), BY_COUNT), ax=axis, shrink=0.6)
        bar.set_label("labelled images of the class")
    drawn = axis.legend(
        handles=entries,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0) if len(mine) <= MOST_SHAPES else (0.0, 0.0),
        ncols=math.ceil(len(entries) / LEGEND_ROWS) if len(mine) <= MOST_SHAPES else 3,
        frameon=False,
        fontsize=8,
    )
    for text in drawn.get_texts():
        text.set_parse_math(False)
