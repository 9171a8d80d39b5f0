"""Choose what to label next: images in doubt, of rare classes, typical, unlike others, or any."""

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

Kind = Literal["doubt", "rare", "discovery", "typical", "any"]

CANDIDATES, FEWEST = 4_000, 100
"""Images of all classes together, and of one class, among which a list is chosen."""
EXPLORED = 60
"""Decisions until which all suggestions are for discovery, if the classes are not known before."""
LEAST = 0.1
"""Label of a class that an image chosen for it is expected to bring at least."""
COMPARED = 2_000
"""Labeled images to which they are compared, at most."""
SPACED = 1_000
"""Images by which the usual distance of neighbors is measured."""


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
        label: class that is meant by the kind ``rare``; otherwise -1.
        size: images of the cluster that a typical image stands for.
    """

    image: int
    kind: Kind
    label: int = -1
    size: int = 0

    def reason(self, label: str | None, believed: Sequence[str]) -> str:
        """Return the reason in words; *believed* has the likeliest classes of the image."""
        if self.kind == "any":
            return "One of your images, drawn at random."
        if self.kind == "typical":
            others = f"{self.size} similar images" if self.size > 1 else "images like it"
            return f"Typical of {others}, none of which has a label."
        if self.kind == "discovery":
            return "Unlike all labeled images: perhaps something new."
        if self.kind == "rare":
            return f"Perhaps {label!r}, one of the classes with the fewest labels."
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
        kinds = [(far(situation), 2), (typical(situation), 1), (between(situation), 1)]
    else:
        kinds = [(between(situation), 2), (typical(situation), 1), (at_random(situation), 1)]
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


def between(situation: Situation) -> Iterator[Suggestion]:
    """Yield images at the border of a class, for the class with the fewest labels each time.

    That is the class with the fewest labels, with those to be expected from earlier images. Among
    the images of which it is one of the two likeliest classes, the one is chosen that is most in
    doubt between them and least like labeled and earlier images. As in DIRECT (Nuggehalli et al.,
    2023), doubt is thus balanced over the classes.
    """
    beliefs = situation.beliefs
    assert beliefs is not None
    taken: list[int] = []
    borders: dict[int, _Border] = {}
    planned = np.where(situation.counts > 0, situation.counts, np.inf)
    spacing = _spacing(situation.unit, situation.free)
    while np.isfinite(planned).any():
        label = int(planned.argmin())
        if label not in borders:
            borders[label] = _Border(situation, label, spacing)
        image = borders[label].next(situation.unit, taken)
        if image is None:
            planned[label] = np.inf
            continue
        taken.append(image)
        chances = dict(zip(beliefs.top[image].tolist(), beliefs.probabilities[image], strict=True))
        chances[label] = max(LEAST, chances.get(label, 0))
        for other, chance in chances.items():
            planned[other] += chance
        yield Suggestion(image, "rare" if beliefs.top[image, 0] == label else "doubt", label)


class _Border:
    """Images between one class and others.

    Attributes:
        images: (n,). worth: doubt in [0, 1], (n,). novelty: in [0, 1], (n,).
    """

    def __init__(self, situation: Situation, label: int, spacing: float) -> None:
        beliefs, labels = situation.beliefs, situation.labels
        assert beliefs is not None
        most = max(FEWEST, CANDIDATES // len(situation.counts))
        near = (beliefs.top[:, :2] == label).any(1) & situation.free
        images = np.flatnonzero(near)
        worth = 1 - (beliefs.probabilities[images, 0] - beliefs.probabilities[images, 1])
        if not len(images):  # so rare that it is nowhere likely
            images = np.flatnonzero(situation.free)
            worth = beliefs.of_class(label)[images]
        if len(images) > most:
            best = np.argpartition(-worth, most)[:most]
            images, worth = images[best], worth[best]
        known = sample(np.flatnonzero(labels >= 0), COMPARED, np.random.default_rng(label))
        rows, novelty = situation.unit[images], np.ones(len(images))
        if len(known) and len(images):
            novelty = np.clip((1 - (rows @ situation.unit[known].T).max(1)) / spacing, 0, 1)
        self.images, self.worth, self.novelty, self.spacing = images, worth, novelty, spacing
        self._seen = 0

    def next(self, unit: Floats, taken: list[int]) -> int | None:
        """Return the best image, or None if there is none; *taken* ones lower the novelty."""
        new = taken[self._seen :]
        self._seen = len(taken)
        if new and len(self.images):
            nearest = (unit[self.images] @ unit[new].T).max(1)
            self.novelty = np.minimum(self.novelty, np.clip((1 - nearest) / self.spacing, 0, 1))
            self.novelty[np.isin(self.images, new)] = -1
        value = self.worth * self.novelty
        if not len(value) or value.max() < 0:
            return None
        return int(self.images[value.argmax()])


def _spacing(unit: Floats, free: Flags) -> float:
    """Return the median cosine distance of some free images to their nearest among them."""
    rows = np.flatnonzero(free)
    if len(rows) < 2:
        return 1.0
    some = unit[np.random.default_rng(0).permutation(rows)[:SPACED]]
    distances = 1 - some @ some.T
    np.fill_diagonal(distances, np.inf)
    return max(float(np.median(distances.min(1))), 1e-6)
