"""Labels that are likely wrong: a head trained without them, and their neighbors, contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from daso.label.images import Floats, Indices, sample
from daso.label.live import MANY_CLASSES
from daso.readout.mixture import MixtureOptions, fit_labeled

FOLDS = 5
STEPS, STEPS_OF_MANY = 50, 20
"""Steps of a fit, and of one with many classes, which takes seconds: of 150 wrong ones among 3,000
labels of 1,000 classes 126 are found in place of 129, in 3.5 core-seconds in place of 8.5."""
FITTED = 10_000
"""Labeled images that a head is fitted to, at most."""
NEIGHBORS = 10
CHUNK = 1_000


@dataclass(frozen=True)
class LabelDoubt:
    """A label that the others contradict.

    Attributes:
        probability: of the guess, by a head that has not seen the label.
        neighbors, agree: nearest labeled images, and how many of them have the same label.
    """

    image: int
    label: int
    guess: int
    probability: float
    neighbors: int
    agree: int

    def reason(self, names: Sequence[str]) -> str:
        others = f"{self.neighbors - self.agree} of its {self.neighbors} nearest labeled images"
        looks = f"Without this label the model says {names[self.guess]!r}"
        return f"{looks}; {others} are of other classes." if self.neighbors else f"{looks}."


def doubtful_labels(
    features: Floats, unit: Floats, labels: Indices, classes: int
) -> list[LabelDoubt]:
    """Return the labeled images that are predicted to be of another class, most doubtful first.

    The doubt is the probability of the guess minus that of the label, by a head of the other folds,
    plus the share of the nearest labeled images with other labels.

    Args:
        features, unit: of all images, (N, d); unit vectors.
        labels: (N,), negative where there is none.
    """
    rows = np.flatnonzero(labels >= 0)
    own = labels[rows]
    if len(rows) < 3 or len(np.unique(own)) < 2:
        return []
    chances = _held_out(features[rows], own, classes)
    agree, count = _agreement(unit[rows], own)
    place = np.arange(len(rows))
    guess = chances.argmax(1)
    doubt = chances[place, guess] - chances[place, own] + (1 - agree / max(1, count))
    wrong = np.flatnonzero(guess != own)
    order = wrong[np.argsort(-doubt[wrong], kind="stable")]
    return [
        LabelDoubt(
            int(rows[at]),
            int(own[at]),
            int(guess[at]),
            float(chances[at, guess[at]]),
            count,
            int(agree[at]),
        )
        for at in order
    ]


def _held_out(features: Floats, labels: Indices, classes: int) -> Floats:
    """Return probabilities (n, K) of labeled images by heads that have not seen their labels."""
    random = np.random.default_rng(0)
    fold = random.permutation(len(labels)) % min(FOLDS, len(labels))
    steps = STEPS if classes < MANY_CLASSES else STEPS_OF_MANY
    rows = torch.from_numpy(features.astype(np.float32))
    targets = torch.from_numpy(labels)
    chances = np.zeros((len(labels), classes), dtype=np.float32)
    penalty = MixtureOptions().penalty
    for number in range(int(fold.max()) + 1):
        others = sample(np.flatnonzero(fold != number), FITTED, random)
        seen, held = torch.from_numpy(others), torch.from_numpy(np.flatnonzero(fold == number))
        head = fit_labeled(rows[seen], targets[seen], classes, penalty, steps)
        chances[held.numpy()] = head(rows[held]).softmax(1).numpy()
    return chances


def _agreement(unit: Floats, labels: Indices) -> tuple[Indices, int]:
    """Return how many of the nearest others have the same label, (n,), and how many there are."""
    count = min(NEIGHBORS, len(labels) - 1)
    agree = np.zeros(len(labels), dtype=np.int64)
    for at in range(0, len(labels), CHUNK):
        cosine = unit[at : at + CHUNK] @ unit.T
        cosine[np.arange(len(cosine)), at + np.arange(len(cosine))] = -2
        near = np.argpartition(-cosine, count - 1, axis=1)[:, :count]
        agree[at : at + CHUNK] = (labels[near] == labels[at : at + CHUNK, None]).sum(1)
    return agree, count
