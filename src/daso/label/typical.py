"""Clusters of images, and the most typical image of each: where to begin without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from daso.label.images import Flags, Floats, Indices

SAMPLE = 10_000
"""Images that clusters are fitted to, at most."""
ROUNDS = 12
NEIGHBORS = 20
"""Neighbors by whose distance an image is typical, as in TypiClust."""
MEMBERS = 400
"""Images of a cluster among which the typical one is sought, at most."""
CHUNK = 20_000


@dataclass(frozen=True)
class Clusters:
    """Clusters of images.

    Attributes:
        of: cluster of each image, int64 (N,).
        centers: unit vectors, float32 (C, d).
    """

    of: Indices
    centers: Floats


def cluster(unit: Floats, number: int, seed: int) -> Clusters:
    """Divide unit vectors (N, d) into clusters by spherical k-means, begun by k-means++."""
    random = np.random.default_rng(seed)
    rows = unit
    if len(unit) > SAMPLE:
        rows = unit[np.sort(random.choice(len(unit), SAMPLE, replace=False))]
    number = min(number, len(rows))
    centers = _spread(rows, number, random)
    for _ in range(ROUNDS):
        own = nearest_center(rows, centers)
        order = np.argsort(own, kind="stable")
        present, starts = np.unique(own[order], return_index=True)
        sums = np.add.reduceat(rows[order], starts, axis=0)
        moved = centers.copy()
        moved[present] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-8)
        if np.allclose(moved, centers, atol=1e-4):
            break
        centers = moved
    return Clusters(nearest_center(unit, centers), centers)


def _spread(rows: Floats, number: int, random: np.random.Generator) -> Floats:
    """Return rows that are likely far apart: each drawn by its squared distance to the others."""
    chosen = [int(random.integers(len(rows)))]
    distance = np.clip(1 - rows @ rows[chosen[0]], 0, None)
    for _ in range(number - 1):
        total = float(distance.sum())
        if total <= 0:
            break
        at = np.searchsorted(np.cumsum(distance, dtype=np.float64), random.random() * total)
        chosen.append(min(int(at), len(rows) - 1))
        distance = np.minimum(distance, np.clip(1 - rows @ rows[chosen[-1]], 0, None))
    return rows[chosen].copy()


def nearest_center(unit: Floats, centers: Floats) -> Indices:
    """Return the index of the center nearest to each of the rows, int64 (N,)."""
    chunks = range(0, len(unit), CHUNK)
    return np.concatenate([(unit[at : at + CHUNK] @ centers.T).argmax(1) for at in chunks])


def typicality(unit: Floats) -> Floats:
    """Return how near the nearest rows are to each row (N, d): 1 over their mean distance, (N,)."""
    count = min(NEIGHBORS, len(unit) - 1)
    if count < 1:
        return np.zeros(len(unit), dtype=np.float32)
    distances = np.sqrt(np.clip(2 - 2 * unit @ unit.T, 0, None))
    nearest = np.partition(distances, count, axis=1)[:, : count + 1]
    return np.asarray(1 / np.maximum(nearest.sum(1) / count, 1e-6), dtype=np.float32)


def typical_order(unit: Floats, clusters: Clusters, free: Flags) -> Iterator[int]:
    """Yield the most typical image of every cluster without a decided one, largest first.

    That is the order of TypiClust (Hacohen et al., *Active Learning on a Budget*, ICML 2022).

    Args:
        unit: unit vectors of all images, (N, d).
        free: whether an image can be chosen, (N,); the others are decided.
    """
    sizes = np.bincount(clusters.of, minlength=len(clusters.centers))
    covered = np.bincount(clusters.of[~free], minlength=len(sizes))
    open_clusters = np.flatnonzero((covered == 0) & (sizes > 0))
    order = open_clusters[np.argsort(-sizes[open_clusters], kind="stable")]
    by_cluster = np.argsort(clusters.of, kind="stable")
    starts = np.r_[0, np.cumsum(sizes)]
    for number in order:
        members = by_cluster[starts[number] : starts[number + 1]]
        if len(members) > MEMBERS:
            near = unit[members] @ clusters.centers[number]
            members = members[np.argpartition(-near, MEMBERS)[:MEMBERS]]
        yield int(members[typicality(unit[members]).argmax()])
