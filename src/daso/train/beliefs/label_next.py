"""Choose the unlabeled images to show, and those to label next, from arrays of beliefs.

Shape letters: N images, K classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]

CONSIDERED = 2000
"""Images with the highest scores from which those to label next are chosen."""


def best_per_group(groups: Indices, score: Floats, most: int) -> Indices:
    """Return the indices of the *most* best scores (N,) of every group (N,); ties by index."""
    by_group = np.lexsort((-score, groups))
    ordered = groups[by_group]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else ordered
    rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    kept = np.sort(by_group[rank < most])
    return kept[np.argsort(-score[kept], kind="stable")]


def disagreements(linear: Floats, semantic: Floats, per_pair: int, most: int) -> Indices:
    """Return the images on which two classifiers (N, K) disagree, the most confident first.

    There are at most *per_pair* for each pair of classes, so that no pair fills the list.
    """
    first, second = linear.argmax(1), semantic.argmax(1)
    differ = np.flatnonzero(first != second)
    surety = linear.max(1)[differ] * semantic.max(1)[differ]
    pairs = first[differ] * linear.shape[1] + second[differ]
    return differ[best_per_group(pairs, surety, per_pair)][:most]


@dataclass(frozen=True)
class Ranking:
    """Images to label next, best first; every array is (M,).

    Attributes:
        place: index of the image among the N.
        score: uncertainty * rarity * novelty.
        uncertainty: 1 - (b_a - b_c), in [0, 1]; a and c are the classes of the highest mean belief
            b of both classifiers. High where the classifiers disagree or neither is confident.
        rarity: mean of sqrt(n_min / n_k) over these two classes, weighted by b; class k has n_k
            labeled images.
        novelty: cosine distance to the nearest earlier image of the list, over the median distance
            of an image to its nearest neighbor, at most 1: low for near copies.
        likely, other: the classes a and c.
    """

    place: Indices
    score: Floats
    uncertainty: Floats
    rarity: Floats
    novelty: Floats
    likely: Indices
    other: Indices


def rank_to_label(
    linear: Floats, semantic: Floats, features: Floats, class_counts: Indices, most: int
) -> Ranking:
    """Rank the images whose labels would help the rare classes most.

    The image with the highest score is taken, which lowers the novelty of its near copies, and so
    on: the list does not ask for the same image a hundred times. Spreading it further does not pay:
    images that may be rare lie close together (docs/report.md has numbers).

    Args:
        linear, semantic: probabilities (N, K) by the classifier and by the similarity to
            prototypes.
        features: (N, D).
    """
    belief = (linear + semantic) / 2
    rows = np.arange(len(belief))
    likely = belief.argmax(1)
    without = belief.copy()
    without[rows, likely] = -1
    other = without.argmax(1)
    first, second = belief[rows, likely], belief[rows, other]
    uncertainty = np.clip(1 - (first - second), 0, 1)
    rare = np.sqrt(class_counts.min() / np.maximum(class_counts, 1))
    rarity = (first * rare[likely] + second * rare[other]) / np.maximum(first + second, 1e-12)

    worth = uncertainty * rarity
    considered = np.argsort(-worth, kind="stable")[:CONSIDERED]
    lengths = np.linalg.norm(features[considered], axis=1, keepdims=True)
    near = features[considered] / np.maximum(lengths, 1e-8)
    spacing = _spacing(near)
    novelty = np.ones(len(considered))
    taken: list[int] = []
    novelties: list[float] = []
    for _ in range(min(most, len(considered))):
        value = worth[considered] * novelty
        value[taken] = -1
        best = int(value.argmax())
        taken.append(best)
        novelties.append(float(novelty[best]))
        novelty = np.minimum(novelty, np.clip((1 - near @ near[best]) / spacing, 0, 1))
    place = considered[taken]
    novel = np.array(novelties)
    parts = (uncertainty[place], rarity[place], novel, likely[place], other[place])
    return Ranking(place, worth[place] * novel, *parts)


def _spacing(unit: Floats) -> float:
    """Return the median cosine distance of unit vectors (N, D) to their neighbors; 1 for N = 1."""
    if len(unit) < 2:
        return 1.0
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    return max(float(np.median(distances.min(1))), 1e-6)
