"""Place images and prototypes on a map: similar features lie close together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.report.runs import Array

FEWEST_POINTS = 5
WIDTH, HEIGHT = 880, 560
"""Size of the map, in the units of places."""
MARGIN = 20
MARK = 8
"""Half the width of a prototype's mark."""
LETTER = 7.6
"""Approximate width of a letter."""
NAME_LENGTH = 24
"""Longer names are cut on the map."""
OFFSETS = (
    *((4, ""), (4, "end"), (-13, "mid"), (22, "mid")),
    *((-11, ""), (20, ""), (-11, "end"), (20, "end")),
)
"""Where a name may stand: down from its mark, and how it is aligned; the first is preferred."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Embedding:
    """A map; places are x from the left and y from the top.

    Attributes:
        unlabeled, labeled, prototypes: places (N, 2), (M, 2) and (K, 2).
        final, linear, semantic: (N,), the pseudo-label, and the classes by classifier and
            similarity.
        truth: (N,), -1 if unknown.
        label: (M,).
    """

    unlabeled: Array
    labeled: Array
    prototypes: Array
    final: npt.NDArray[Any]
    linear: npt.NDArray[Any]
    semantic: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    label: npt.NDArray[Any]


def place(arrays: Mapping[str, npt.NDArray[Any]], num_classes: int) -> Embedding | None:
    """Return the map of the arrays of ``beliefs.safetensors``; None without one of these classes.

    Raises:
        KeyError, IndexError, ValueError: the arrays do not fit each other.
    """
    if "map.features" not in arrays:
        return None
    parts = [arrays[f"map.{name}"].astype(float) for name in ("features", "labeled", "prototypes")]
    points = np.concatenate(parts)
    if len(points) < FEWEST_POINTS or not np.isfinite(points).all() or len(parts[2]) != num_classes:
        return None
    rows, label = arrays["map.place"], arrays["map.label"]
    if [len(rows), len(label)] != [len(parts[0]), len(parts[1])]:
        raise ValueError("the map of beliefs.safetensors has places without images")
    final, truth = arrays["pool.final"][rows], arrays["pool.truth"][rows]
    linear, semantic = arrays["pool.linear"][rows, 0], arrays["pool.semantic"][rows, 0]
    for classes in (final, linear, semantic, label, truth[truth >= 0]):
        if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError("a class number in beliefs.safetensors is out of range")
    placed = embed(points) * (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN) + MARGIN
    unlabeled, labeled, prototypes = np.split(placed, np.cumsum([len(rows), len(label)]))
    return Embedding(unlabeled, labeled, prototypes, final, linear, semantic, truth, label)


def embed(points: npt.NDArray[np.floating[Any]]) -> Array:
    """Place points (N, D) by t-SNE (van der Maaten, Hinton, 2008), (N, 2) from 0 to 1."""
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
    """Place the names of points (N, 2) beside, above or below them, with little overlap.

    Returns:
        x, y of the baseline, and the alignment: ``""`` starts there, ``"end"``, ``"mid"`` centered.
    """
    marks = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    taken: list[Box] = []
    places = []
    for here, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        others = [*taken, *(mark for other, mark in enumerate(marks) if other != here)]
        options = []
        for down, side in OFFSETS:
            at, width = x + {"": 11, "end": -11, "mid": 0}[side], LETTER * len(name)
            left = at - {"": 0, "end": 1, "mid": 0.5}[side] * width
            box = (left, y + down - 11, left + width, y + down + 3)
            outside = box[0] < 2 or box[2] > WIDTH - 2 or box[1] < 2 or box[3] > HEIGHT - 2
            hidden = sum(_overlap(box, other) for other in others) + 1e6 * outside
            options.append((hidden, (float(at), float(y + down), side), box))
        _, place_of, box = min(options, key=lambda option: option[0])
        taken.append(box)
        places.append(place_of)
    return places


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
