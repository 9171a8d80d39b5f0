"""Published ways to choose what to label, with which ``label_loop.py`` compares those of daso.

All see the same features, labels and beliefs of the same head.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.label.live import Beliefs
from daso.label.typical import cluster, typical_order

Array = npt.NDArray[Any]
MOST_CLUSTERS = 500


@dataclass(frozen=True)
class View:
    """What a strategy knows: unit features (N, d), labels (N,) with -1 where unknown, beliefs."""

    unit: Array
    features: Array
    labels: Array
    beliefs: Beliefs | None
    seed: int

    @property
    def free(self) -> Array:
        return np.flatnonzero(self.labels < 0)


def at_random(view: View, count: int) -> Array:
    return np.random.default_rng(view.seed).choice(view.free, count, replace=False)


def least_margin(view: View, count: int) -> Array:
    assert view.beliefs is not None
    chances = view.beliefs.probabilities[view.free]
    order = np.argsort(chances[:, 0] - chances[:, 1], kind="stable")
    return view.free[order[:count]]


def entropy(view: View, count: int) -> Array:
    assert view.beliefs is not None
    chances = view.beliefs.of(view.free)
    value = -(chances * np.log(np.maximum(chances, 1e-12))).sum(1)
    return view.free[np.argsort(-value, kind="stable")[:count]]


def core_set(view: View, count: int) -> Array:
    """k-center greedy (Sener and Savarese, ICLR 2018)."""
    free, rows = view.free, view.features[view.free].astype(np.float64)
    nearest = np.full(len(free), np.inf)
    for center in view.features[view.labels >= 0].astype(np.float64):
        nearest = np.minimum(nearest, ((rows - center) ** 2).sum(1))
    chosen = []
    for _ in range(count):
        at = int(nearest.argmax())
        chosen.append(free[at])
        nearest = np.minimum(nearest, ((rows - rows[at]) ** 2).sum(1))
    return np.array(chosen)


def badge(view: View, count: int) -> Array:
    """k-means++ on gradients of the last layer (Ash et al., ICLR 2020)."""
    assert view.beliefs is not None
    free, random = view.free, np.random.default_rng(view.seed)
    # |p_i (x) z_i - p_j (x) z_j|^2 by inner products, without the products themselves.
    error = view.beliefs.of(free).astype(np.float64)
    error[np.arange(len(free)), error.argmax(1)] -= 1
    rows = view.features[free].astype(np.float64)
    square = (error**2).sum(1) * (rows**2).sum(1)
    at = int(square.argmax())
    chosen, nearest = [at], np.full(len(free), np.inf)
    while len(chosen) < count:
        distance = square + square[at] - 2 * (error @ error[at]) * (rows @ rows[at])
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        nearest[chosen] = 0
        at = int(random.choice(len(free), p=nearest / nearest.sum()))
        chosen.append(at)
    return free[chosen]


def typiclust(view: View, count: int) -> Array:
    """The most typical images of clusters without labels (Hacohen et al., ICML 2022)."""
    known = int((view.labels >= 0).sum())
    clusters = cluster(view.unit, min(MOST_CLUSTERS, known + count), view.seed)
    order = itertools.islice(typical_order(view.unit, clusters, view.labels < 0), count)
    chosen = np.array(list(order), dtype=np.int64)
    if len(chosen) < count:  # more labels than clusters
        rest = np.setdiff1d(view.free, chosen)
        more = np.random.default_rng(view.seed).choice(rest, count - len(chosen), replace=False)
        chosen = np.concatenate([chosen, more])
    return chosen


STRATEGIES: dict[str, Callable[[View, int], Array]] = {
    "random": at_random,
    "least margin": least_margin,
    "entropy": entropy,
    "CoreSet": core_set,
    "BADGE": badge,
    "TypiClust": typiclust,
}
