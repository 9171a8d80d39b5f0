"""A map of what the network sees as alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from daso.files import Row
from daso.report.html.folder import Array, Run

FREQUENT, MIDDLE, RARE = (0, 114, 178), (150, 150, 150), (213, 94, 0)
MAP_WIDTH, MAP_HEIGHT = 880, 560
NAMED_ON_MAP = 40


def frequency_color(rank: int, count: int) -> str:
    """Return the colour of a class by its rank in frequency: blue the most frequent, grey, orange the rarest."""
    place = rank / max(count - 1, 1)
    first, second, share = (FREQUENT, MIDDLE, 2 * place) if place < 0.5 else (MIDDLE, RARE, 2 * place - 1)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(first, second, strict=True))


def embed(points: npt.NDArray[np.floating[Any]]) -> Array:
    """Return places (N, 2) of points (N, D) by t-SNE (van der Maaten and Hinton, 2008), each axis from 0 to 1."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(points) - 1) / 4))
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=500, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        placed = np.asarray(tsne.fit_transform(points.astype(np.float32)), dtype=np.float64)
    low, high = placed.min(0), placed.max(0)
    scaled: Array = (placed - low) / np.maximum(high - low, 1e-9)
    return scaled


def place_names(points: Array, names: Sequence[str]) -> list[tuple[float, float, str]]:
    """Return where the names of points (N, 2) stand: beside, above or below, apart from each other as far as it goes.

    Returns:
        x, y of the baseline, and ``"end"`` for a name that ends there, ``"mid"`` for one that is centred, or ``""``.
    """
    marks = [(x - 8, y - 8, x + 8, y + 8) for x, y in points]
    taken: list[tuple[float, float, float, float]] = []
    places = []
    for here, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        width, best = 7.6 * len(name), None
        for down, side in (
            (4, ""),
            (4, "end"),
            (-13, "mid"),
            (22, "mid"),
            (-11, ""),
            (20, ""),
            (-11, "end"),
            (20, "end"),
        ):
            at = x + {"": 11, "end": -11, "mid": 0}[side]
            left = at - {"": 0, "end": 1, "mid": 0.5}[side] * width
            box = (left, y + down - 11, left + width, y + down + 3)
            outside = box[0] < 2 or box[2] > MAP_WIDTH - 2 or box[1] < 2 or box[3] > MAP_HEIGHT - 2
            others = [mark for other, mark in enumerate(marks) if other != here]
            hidden = sum(_overlap(box, other) for other in (*taken, *others)) + 1e6 * outside
            if best is None or hidden < best[0]:
                best = hidden, (float(at), float(y + down), side), box
        assert best is not None
        taken.append(best[2])
        places.append(best[1])
    return places


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the area that two boxes (left, top, right, bottom) share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def feature_map(run: Run) -> Row | None:
    """Return a map of unlabelled and labelled images with the prototypes."""
    if "map.features" not in run.arrays:
        return None
    arrays, names = run.arrays, run.class_names
    parts = [arrays[f"map.{name}"].astype(float) for name in ("features", "labeled", "prototypes")]
    points = np.concatenate(parts)
    if len(points) < 5 or not np.isfinite(points).all() or len(parts[2]) != len(names):
        return None
    placed = embed(points) * (MAP_WIDTH - 40, MAP_HEIGHT - 40) + 20
    rows = arrays["map.place"]
    final, truth = arrays["pool.final"][rows].tolist(), arrays["pool.truth"][rows].tolist()
    linear, semantic = arrays["pool.linear"][rows, 0].tolist(), arrays["pool.semantic"][rows, 0].tolist()
    labels = arrays["map.label"].tolist()
    if [len(rows), len(labels)] != [len(parts[0]), len(parts[1])]:
        raise ValueError("the map of beliefs.safetensors has places without images")
    if not all(0 <= k < len(names) for k in (*final, *linear, *semantic, *labels)):
        raise ValueError("a class number in beliefs.safetensors is out of range")
    rank = {k: place for place, k in enumerate(run.order)}
    colors = [frequency_color(rank[k], len(names)) for k in range(len(names))]
    body = []
    for (x, y), k, t, a, b in zip(placed, final, truth, linear, semantic, strict=False):
        said = f"{names[k]}" + (f"; classifier {names[a]}, looks like {names[b]}" if a != b else "")
        said += f"; truth {names[t]}" if t >= 0 else ""
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colors[k]}"><title>{escape(said)}</title></circle>'
        )
    squares = []
    for (x, y), k in zip(placed[len(rows) :], labels, strict=False):
        squares.append(
            f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colors[k]}">'
            f"<title>labelled {escape(names[k])}</title></rect>"
        )
    marks, prototypes = [], placed[-len(names) :]
    for (x, y), k in zip(prototypes, range(len(names)), strict=True):
        diamond = f"M{x:.1f} {y - 8:.1f}l8 8-8 8-8-8z"
        title = f"<title>prototype of {escape(names[k])}</title>"
        marks.append(f'<path d="{diamond}" fill="{colors[k]}">{title}</path>')
    if len(names) <= NAMED_ON_MAP:
        shown = [name if len(name) <= 24 else name[:23] + "…" for name in names]
        for (x, y, style), name in zip(place_names(prototypes, shown), shown, strict=True):
            marks.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(name)}</text>')
    said = f"Map of {len(rows):,} unlabelled images, {len(parts[1])} labelled ones and the prototypes"
    drawn = Markup(
        f'<svg class="map" viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" role="img" aria-label="{said}">'
        f'<g class="points">{"".join(body)}</g><g class="squares">{"".join(squares)}</g>'
        f'<g class="prototypes">{"".join(marks)}</g></svg>'
    )
    return {
        "chart": drawn,
        "images": len(rows),
        "labeled": len(parts[1]),
        "known": any(t >= 0 for t in truth),
        "low": frequency_color(0, len(names)),
        "middle": frequency_color(len(names) // 2, len(names)),
        "high": frequency_color(len(names) - 1, len(names)),
        "classes": [(k, names[k]) for k in run.order],
        "island": {
            "final": final,
            "truth": truth,
            "linear": linear,
            "semantic": semantic,
            "label": labels,
            "colors": colors,
        },
    }
