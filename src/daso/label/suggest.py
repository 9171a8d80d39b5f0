"""Choose what to label next: images in doubt, typical, unlike others, or any."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from daso.label.images import Flags, Floats, Indices, sample
from daso.label.typical import Clusters, typical_order

if TYPE_CHECKING:
    from daso.label.live import Beliefs

Kind = Literal["doubt", "discovery", "typical", "any"]

CANDIDATES = 4_000
"""Images among which a list is chosen, at most."""
EXPLORED = 60
"""Decisions until which all suggestions are for discovery, if the classes are not known before."""


@dataclass(frozen=True)
class Snapshot:
    """The decisions at one moment.

    Attributes:
        names: of the K classes.
        labels: int64 (N,), -1 where undecided, other negative values where left out.
        free: whether an image may be suggested, (N,).
        counts: labels of each class, (K,).
        settled: whether the data itself has labels of every class, so that none is to be found.
    """

    names: tuple[str, ...]
    labels: Indices
    free: Flags
    counts: Indices
    settled: bool


@dataclass(frozen=True)
class Situation(Snapshot):
    """What is known when suggestions are made.

    Attributes:
        features: of all images, (N, d). unit: the same, as unit vectors.
    """

    features: Floats
    unit: Floats
    clusters: Clusters
    beliefs: Beliefs | None


@dataclass(frozen=True)
class Suggestion:
    """An image to label, and why.

    Attributes:
        size: images of the cluster that a typical image stands for.
    """

    image: int
    kind: Kind
    size: int = 0

    def reason(self, believed: Sequence[str]) -> str:
        """Return the reason in words; *believed* has the likeliest classes of the image."""
        if self.kind == "any":
            return "One of your images, drawn at random."
        if self.kind == "typical":
            others = f"{self.size} similar images" if self.size > 1 else "images like it"
            return f"Typical of {others}, none of which has a label."
        if self.kind == "discovery":
            return "Unlike all labeled images: perhaps something new."
        return f"In doubt between {' and '.join(map(repr, believed[:2]))}."


def suggestions(situation: Situation, most: int) -> list[Suggestion]:
    """Return at most *most* images to label next, best first.

    While little is known, all of them are for discovery; while a class has no label, most of them.
    """
    known = int((situation.labels != -1).sum())
    kinds: list[tuple[Iterator[Suggestion], int]]
    is_new = known < EXPLORED and not situation.settled
    if situation.beliefs is None or is_new:
        kinds = [(far(situation), 3), (typical(situation), 1)]
    elif (situation.counts == 0).any():
        kinds = [(far(situation), 2), (typical(situation), 1), (in_doubt(situation), 1)]
    else:
        kinds = [(in_doubt(situation), 3), (at_random(situation), 1)]
    return list(itertools.islice(_unique(kinds), most))


def _unique(kinds: list[tuple[Iterator[Suggestion], int]]) -> Iterator[Suggestion]:
    """Yield suggestions of several kinds in turn, so many of each at a time, no image twice."""
    seen: set[int] = set()
    while kinds:
        for kind, weight in list(kinds):
            fresh = (one for one in kind if one.image not in seen)
            some = list(itertools.islice(fresh, weight))
            if not some:
                kinds.remove((kind, weight))
            for one in some:
                if one.image not in seen:
                    seen.add(one.image)
                    yield one


def typical(situation: Situation) -> Iterator[Suggestion]:
    """Yield typical images of clusters without a label, the largest first."""
    sizes = np.bincount(situation.clusters.of, minlength=len(situation.clusters.centers))
    for image in typical_order(situation.unit, situation.clusters, situation.free):
        size = int(sizes[situation.clusters.of[image]])
        yield Suggestion(image, "typical", size=size)


def at_random(situation: Situation) -> Iterator[Suggestion]:
    """Yield images at random; doubtful ones alone would give a wrong picture of the classes."""
    random = np.random.default_rng(int((situation.labels != -1).sum()))
    for image in random.permutation(np.flatnonzero(situation.free))[:CANDIDATES]:
        yield Suggestion(int(image), "any")


def far(situation: Situation) -> Iterator[Suggestion]:
    """Yield images that are far from all decided ones and from one another.

    That is the greedy order of CoreSet (Sener and Savarese, ICLR 2018). Lengths of features count:
    by directions alone, rare classes are found much later (benchmarks/label_loop.py).
    """
    free, decided = np.flatnonzero(situation.free), np.flatnonzero(situation.labels != -1)
    random = np.random.default_rng(len(decided))
    free, decided = sample(free, CANDIDATES, random), sample(decided, CANDIDATES, random)
    rows = situation.features[free].astype(np.float32)
    square = (rows**2).sum(1)
    nearest = np.full(len(free), np.inf, dtype=np.float32)
    for at in range(0, len(decided), 100):
        centers = situation.features[decided[at : at + 100]].astype(np.float32)
        distances = square[:, None] - 2 * rows @ centers.T + (centers**2).sum(1)
        nearest = np.minimum(nearest, distances.min(1))
    for _ in range(len(free)):
        place = int(nearest.argmax())
        yield Suggestion(int(free[place]), "discovery")
        nearest = np.minimum(nearest, square - 2 * rows @ rows[place] + square[place])
        nearest[place] = -np.inf


def in_doubt(situation: Situation) -> Iterator[Suggestion]:
    """Yield images in doubt that are unlike one another.

    That is BADGE (Ash et al., ICLR 2020): k-means++ on the gradients of the head's log-loss for the
    likeliest class. A gradient is long where the image is in doubt; its direction says between
    which classes.
    """
    assert situation.beliefs is not None
    random = np.random.default_rng(int((situation.labels != -1).sum()))
    free = sample(np.flatnonzero(situation.free), CANDIDATES, random)
    if not len(free):
        return
    # The squared distance of two gradients, which are outer products, from the inner products of
    # their factors.
    error, rows = situation.beliefs.of(free), situation.features[free].astype(np.float32)
    error[np.arange(len(free)), error.argmax(1)] -= 1
    square = (error**2).sum(1) * (rows**2).sum(1)
    nearest = np.full(len(free), np.inf)
    at = int(square.argmax())
    for _ in free:
        yield Suggestion(int(free[at]), "doubt")
        distance = square + square[at] - 2 * (error @ error[at]) * (rows @ rows[at])
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        nearest[at] = 0
        if not nearest.any():
            return  # the others are equal to chosen ones
        at = int(random.choice(len(free), p=nearest / nearest.sum()))
