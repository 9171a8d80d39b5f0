"""Choose what to label next: images of rare classes, in doubt, or unlike all labeled ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daso.label.live import Beliefs
from daso.label.typical import Clusters, typical_order
from daso.train.beliefs.label_next import rank_to_label

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]
Kind = Literal["doubt", "rare", "discovery", "typical"]

CANDIDATES = 4_000
"""Images in most doubt among which a list is chosen."""


@dataclass(frozen=True)
class Situation:
    """What is known when suggestions are made.

    Attributes:
        unit: unit vectors of all images, float32 (N, d).
        labels: int64 (N,), -1 where undecided, other negative values where left out.
        free: whether an image may be suggested, (N,).
        counts: labels of each class, (K,).
    """

    unit: Floats
    labels: Indices
    free: npt.NDArray[np.bool_]
    counts: Indices
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
        if self.kind == "typical":
            others = f"{self.size} similar images" if self.size > 1 else "images like it"
            return f"Typical of {others}, none of which has a label."
        if self.kind == "discovery":
            return "Unlike all labeled images: perhaps something new."
        if self.kind == "rare":
            return f"Perhaps {label!r}, a class with few labels."
        return f"In doubt between {' and '.join(map(repr, believed[:2]))}."


def suggestions(situation: Situation, most: int) -> list[Suggestion]:
    """Return at most *most* images to label next, best first, of all kinds in turn."""
    if situation.beliefs is None:
        return list(itertools.islice(_unique([typical(situation), far(situation)]), most))
    kinds: list[Iterator[Suggestion]] = [
        itertools.islice(kind, most)
        for kind in (rare(situation), doubtful(situation, most), far(situation))
    ]
    return list(itertools.islice(_unique(kinds), most))


def _unique(kinds: list[Iterator[Suggestion]]) -> Iterator[Suggestion]:
    """Yield suggestions of several kinds in turn, no image twice."""
    seen: set[int] = set()
    while kinds:
        for kind in list(kinds):
            for suggestion in kind:
                if suggestion.image not in seen:
                    seen.add(suggestion.image)
                    yield suggestion
                    break
            else:
                kinds.remove(kind)


def typical(situation: Situation) -> Iterator[Suggestion]:
    """Yield typical images of clusters without a label, the largest first."""
    sizes = np.bincount(situation.clusters.of, minlength=len(situation.clusters.centers))
    for image in typical_order(situation.unit, situation.clusters, situation.free):
        size = int(sizes[situation.clusters.of[image]])
        yield Suggestion(int(image), "typical", size=size)


def far(situation: Situation) -> Iterator[Suggestion]:
    """Yield images that are far from all labeled ones and from one another."""
    unit, free = situation.unit, np.flatnonzero(situation.free)
    decided = np.flatnonzero(situation.labels != -1)
    random = np.random.default_rng(len(decided))
    if len(free) > CANDIDATES:
        free = random.choice(free, CANDIDATES, replace=False)
    if len(decided) > CANDIDATES:
        decided = random.choice(decided, CANDIDATES, replace=False)
    rows = unit[free]
    nearest = (rows @ unit[decided].T).max(1) if len(decided) else np.full(len(free), -1.0)
    while len(free):
        at = int(nearest.argmin())
        if nearest[at] == np.inf:
            return
        yield Suggestion(int(free[at]), "discovery")
        nearest = np.maximum(nearest, rows @ rows[at])
        nearest[at] = np.inf


def rare(situation: Situation) -> Iterator[Suggestion]:
    """Yield images that are believed to be of the classes with fewest labels, in turn."""
    beliefs, counts = situation.beliefs, situation.counts.astype(np.float64)
    assert beliefs is not None
    present = np.flatnonzero(counts > 0)
    ranked: dict[int, Iterator[int]] = {}
    planned = counts.copy()
    while len(present):
        label = int(present[planned[present].argmin()])
        if label not in ranked:
            chances = np.where(situation.free, beliefs.of_class(label), -1)
            best = np.argsort(-chances, kind="stable")[:CANDIDATES]
            ranked[label] = iter(best[chances[best] > 0].tolist())
        image = next(ranked[label], None)
        if image is None:
            present = present[present != label]
            continue
        planned[label] += 1
        yield Suggestion(image, "rare", label)


def doubtful(situation: Situation, most: int) -> Iterator[Suggestion]:
    """Yield images between two classes, of which rare ones count more, without near copies."""
    beliefs, free = situation.beliefs, np.flatnonzero(situation.free)
    assert beliefs is not None
    chances = beliefs.probabilities[free]
    margin = chances[:, 0] - chances[:, 1]
    if len(free) > CANDIDATES:
        kept = np.sort(np.argpartition(margin, CANDIDATES)[:CANDIDATES])
        free = free[kept]
    if not len(free):
        return
    probs = beliefs.of(free)
    ranking = rank_to_label(
        probs, probs, situation.unit[free], np.maximum(situation.counts, 1), most
    )
    for place in ranking.place:
        yield Suggestion(int(free[place]), "doubt")
