"""Long-tailed, semi-supervised splits as pure functions over a label array.

The protocol is that of DASO (Oh, Kim, Kweon, CVPR 2022, section 4.1 and supplement C). A
class-balanced hold-out is taken first. Then every class gives its first N1 images, in shuffled
order, to the labeled pool and the next M1 to the unlabeled one, so the two are disjoint. Then each
pool is thinned to its class counts. Random draws follow the authors' code: their seeds give their
index sets.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from daso.errors import DataError, OptionError

Indices = npt.NDArray[np.int64]
Shape = Literal["consistent", "uniform", "reversed"]
SHAPES = "consistent, uniform or reversed"


@dataclass(frozen=True)
class SplitOptions:
    """Which images of a source are labeled, unlabeled and held out; the source decides the rest."""

    labeled_head: int | None = None
    """N1: labeled images of the largest class (default: all labeled images of the source)."""
    unlabeled_head: int | None = None
    """M1: unlabeled images of the largest class (default: the source's own unlabeled images)."""
    gamma_labeled: float | None = None
    """Imbalance ratio of the labeled images: largest class over smallest; 1 is balanced."""
    gamma_unlabeled: float | None = None
    """Imbalance ratio of the unlabeled images."""
    unlabeled_shape: Shape | None = None
    """Class distribution of the unlabeled images: as the labeled one, uniform, or reversed."""
    holdout: int | None = None
    """Images held out to choose a model on: a total, the same number of each class (0: none)."""
    folds: int | None = None
    """Number of folds for cross-validation (daso validate)."""
    fold: int | None = None
    """The fold that is held out, from 0."""

    def __post_init__(self) -> None:
        least = {"holdout": 0, "folds": 2, "fold": 0}
        for name, value in vars(self).items():
            if name == "unlabeled_shape" or value is None:
                continue
            if not least.get(name, 1) <= value < float("inf"):
                raise OptionError(f"{name} = {value!r}: must be at least {least.get(name, 1)}")
        if self.unlabeled_shape not in (None, "consistent", "uniform", "reversed"):
            raise OptionError(f"unknown unlabeled_shape {self.unlabeled_shape!r}; use {SHAPES}")
        if (self.folds is None) != (self.fold is None) or (self.fold or 0) >= (self.folds or 1):
            raise OptionError(f"fold = {self.fold} must be one of folds = {self.folds}, from 0")

    @property
    def mismatched(self) -> bool:
        """Whether unlabeled images are drawn from a different distribution than labeled ones."""
        ratios = [gamma or 1 for gamma in (self.gamma_labeled, self.gamma_unlabeled)]
        differs = self.unlabeled_shape in ("uniform", "reversed") or ratios[0] != ratios[1]
        return self.unlabeled_head is not None and differs

    def or_else(self, defaults: SplitOptions) -> SplitOptions:
        """Return these options, with those of *defaults* for the missing ones."""
        options = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(defaults, **options)


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


def longtail_counts(head: int, gamma: float, num_classes: int) -> Indices:
    """Return the class counts of an exponential long tail, int64 (K,), largest class first.

    ``n_k = floor(head * (1 / gamma) ** (k / (K - 1)))``, in double precision and in this order of
    operations, as the published counts were computed.

    Args:
        head: images of class 0, at least 1.
        gamma: imbalance ratio head / tail, at least 1.
        num_classes: K, at least 2.

    Raises:
        OptionError: an argument is out of range, or the tail would be empty.
    """
    if num_classes < 2:
        raise OptionError(f"a long tail needs at least 2 classes, got {num_classes}")
    if head < 1:
        raise OptionError(f"the head class needs at least 1 image, got {head}")
    if not gamma >= 1:
        raise OptionError(f"imbalance ratio must be at least 1, got {gamma}; see 'reversed'")
    last = num_classes - 1.0
    counts = [int(head * ((1.0 / gamma) ** (rank / last))) for rank in range(num_classes)]
    if counts[-1] < 1:
        raise OptionError(
            f"a head of {head} with imbalance ratio {gamma:g} leaves class {counts.index(0)} "
            f"empty; use a head of at least {int(np.ceil(gamma))} or a smaller ratio"
        )
    return np.array(counts, dtype=np.int64)


def unlabeled_counts(shape: Shape, head: int, gamma: float, num_classes: int) -> Indices:
    """Return the class counts of the unlabeled images, int64 (K,).

    ``consistent`` is long-tailed like the labeled images. ``uniform`` is *head* images of every
    class. ``reversed`` is the long tail in reversed class order (gamma_u = 1/gamma in the paper).
    """
    if shape == "uniform":
        return longtail_counts(head, 1.0, num_classes)
    counts = longtail_counts(head, gamma, num_classes)
    if shape == "consistent":
        return counts
    if shape == "reversed":
        return counts[::-1].copy()
    raise OptionError(f"unknown shape {shape!r}; use {SHAPES}")


def split_holdout(
    labels: npt.NDArray[np.int64], per_class: Indices, seed: int
) -> tuple[Indices, Indices]:
    """Hold out ``per_class[k]`` random images of class k: return (remaining, held out) indices.

    Both are grouped by class and shuffled within a class, as in the authors' code: later draws
    depend on that order.

    Raises:
        DataError: a class would have no image left.
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
) -> Split:
    """Split images into labeled, unlabeled and held-out ones, disjointly.

    Args:
        labels: int64, (N,), 0 <= label < K.
        labeled_counts: int64, (K,), at least 1.
        unlabeled_counts: int64, (K,), in any distribution, or None.
        holdout: images to hold out first, in all: ``holdout // K`` of every class.
        seed: 0 <= seed < 2**32; the same seed gives the same split everywhere.

    Raises:
        DataError: a class has too few images for its counts, or a label is out of range.
        OptionError: the counts do not fit each other.

    Departure from the authors' code: they silently take fewer images of a class that has too few;
    here that is an error. Every class with at least N1 + M1 images gives the same images as theirs.
    """
    num_classes = len(labeled_counts)
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"labels must be 0 to {num_classes - 1}, found {found}")
    if labeled_counts.min() < 1:
        raise OptionError(f"class {int(labeled_counts.argmin())} would have no labeled image")
    if unlabeled_counts is not None and (
        len(unlabeled_counts) != num_classes or unlabeled_counts.min() < 0
    ):
        raise OptionError(f"need {num_classes} unlabeled counts >= 0, got {unlabeled_counts}")

    remaining, held = np.arange(len(labels)), np.empty(0, dtype=np.int64)
    if holdout:
        if holdout < num_classes:
            raise OptionError(f"a hold-out of {holdout} is too small for {num_classes} classes")
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
                f"class {k} has {len(members)} images after the hold-out; the split needs "
                f"{labeled_counts[k]} labeled and {further[k]} unlabeled: use smaller heads or a "
                "smaller hold-out"
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
