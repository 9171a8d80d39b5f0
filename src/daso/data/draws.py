"""Long-tailed, semi-supervised splits as pure functions over a label array.

The protocol is that of DASO (Oh, Kim, Kweon, CVPR 2022, section 4.1 and supplement C). A
class-balanced hold-out is taken first. Then every class gives its first N1 images, in shuffled
order, to the labeled pool and the next M1 to the unlabeled one, so the two are disjoint. Then each
pool is thinned to its class counts. Random draws follow the authors' code: their seeds give their
index sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daso.data.longtail import Indices
from daso.errors import DataError, OptionError


@dataclass(frozen=True)
class Split:
    """Disjoint index arrays, int64, into a source's labeled images.

    Attributes:
        labeled: images whose label training sees.
        unlabeled: images whose label only evaluation sees.
        holdout: images that training never sees.
    """

    labeled: Indices
    unlabeled: Indices
    holdout: Indices

    def fingerprint(self, labels: npt.NDArray[np.int64]) -> str:
        """Return 16 hexadecimal digits that depend on indices and labels, not on their order."""
        digest = hashlib.sha256()
        for part in (self.labeled, self.unlabeled, self.holdout):
            ordered = np.sort(part)
            digest.update(np.ascontiguousarray(ordered, dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(labels[ordered], dtype="<i8").tobytes())
            digest.update(b"|")
        return digest.hexdigest()[:16]


def split_holdout(
    labels: npt.NDArray[np.int64], per_class: Indices, seed: int
) -> tuple[Indices, Indices]:
    """Hold out ``per_class[k]`` random images of class k: return (remaining, held out) indices.

    Both are grouped by class and shuffled within a class, as in the authors' code: later draws
    depend on that order.
    """
    random = np.random.RandomState(seed)
    remaining, held = [], []
    for k, number in enumerate(per_class):
        members = np.flatnonzero(labels == k)
        if number >= max(len(members), 1):
            raise DataError(
                f"class {k} has {len(members)} images: a hold-out of {number} per class leaves "
                "none; use a smaller hold-out (0: none)"
            )
        random.shuffle(members)
        remaining.append(members[number:])
        held.append(members[:number])
    return np.concatenate(remaining), np.concatenate(held)


def deal_folds(labels: npt.NDArray[np.int64], folds: int, seed: int) -> Indices:
    """Deal the images of every class to folds in turn: return the fold of each image, int64 (N,).

    Folds have almost equal sizes and shares of each class. The only image of a class is in no fold
    (-1): training without it would not know the class.
    """
    random = np.random.RandomState(seed)
    dealt, turn = np.full(len(labels), -1, dtype=np.int64), 0
    for k in range(labels.max(initial=-1) + 1):
        members = np.flatnonzero(labels == k)
        random.shuffle(members)
        if len(members) > 1:
            dealt[members] = (turn + np.arange(len(members))) % folds
            turn += len(members)
    return dealt


def _thin(
    labels: npt.NDArray[np.int64], pool: Indices, counts: Indices, seed: int, reverse: bool
) -> Indices:
    random = np.random.RandomState(seed)
    chosen = []
    for k in reversed(range(len(counts))) if reverse else range(len(counts)):
        members = pool[labels[pool] == k]
        random.shuffle(members)
        chosen.append(members[: counts[k]])
    return np.concatenate(chosen)


def longtail_split(
    labels: npt.NDArray[np.int64],
    labeled_counts: Indices,
    unlabeled_counts: Indices | None,
    *,
    holdout: int = 0,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> Split:
    """Split images into labeled, unlabeled and held-out ones, disjointly.

    Args:
        labels: int64, (N,), 0 <= label < K.
        labeled_counts: int64, (K,), at least 1.
        unlabeled_counts: int64, (K,), in any distribution, or None.
        holdout: images to hold out first, in all: ``holdout // K`` of every class.
        seed: 0 <= seed < 2**32; the same seed gives the same split everywhere.
        class_names: for the error; none: classes are numbered.

    Raises:
        DataError: a class has too few images for its counts.
        OptionError: the hold-out has no image for each class.

    Departure from the authors' code: they silently take fewer images of a class that has too few;
    here that is an error. Every class with at least N1 + M1 images gives the same images as theirs.
    """
    num_classes = len(labeled_counts)
    remaining, held = np.arange(len(labels)), np.empty(0, dtype=np.int64)
    if holdout:
        if holdout < num_classes:
            raise OptionError(
                f"a hold-out of {holdout} is too small for {num_classes} classes: it takes as many "
                f"images of each; give --holdout {num_classes} or more"
            )
        remaining, held = split_holdout(labels, np.full(num_classes, holdout // num_classes), seed)

    random = np.random.RandomState(seed)
    further = np.zeros_like(labeled_counts) if unlabeled_counts is None else unlabeled_counts
    head, unlabeled_head = int(labeled_counts.max()), int(further.max())
    labeled_pool, unlabeled_pool = [], []
    for k in range(num_classes):
        members = remaining[labels[remaining] == k]
        random.shuffle(members)
        if len(members) < labeled_counts[k] + further[k]:
            raise DataError(
                f"class {repr(class_names[k]) if class_names else k} has {len(members)} images "
                f"after the hold-out; the split needs {labeled_counts[k]} labeled and {further[k]} "
                "unlabeled: use a smaller --labeled-head, --unlabeled-head or --holdout"
            )
        # As in the authors' code, the first N1 images may be labeled and the next M1 unlabeled.
        # A class with fewer images gives what its own counts need.
        cut = head if len(members) >= head + unlabeled_head else int(labeled_counts[k])
        labeled_pool.append(members[:cut])
        unlabeled_pool.append(members[cut : cut + max(unlabeled_head, int(further[k]))])

    labeled = _thin(labels, np.concatenate(labeled_pool), labeled_counts, seed, reverse=False)
    unlabeled = np.empty(0, dtype=np.int64)
    if unlabeled_counts is not None:
        # The authors visit the classes from the largest to the smallest.
        rising = bool(unlabeled_counts[0] < unlabeled_counts[-1])
        pool = np.concatenate(unlabeled_pool)
        unlabeled = _thin(labels, pool, unlabeled_counts, seed, reverse=rising)
    return Split(labeled, unlabeled, held)
