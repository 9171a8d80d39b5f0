"""Choose, by the labels alone, whether and how unlabeled features are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from daso.readout.mixture import MixtureOptions, fit_labeled, fit_mixture

FOLDS, FOLDS_OF_MANY = 5, 2
MANY = 100
"""Classes from which on there are fewer folds."""
LABELED = 2_000
"""Labeled images that are predicted at most, balanced over the classes."""
UNLABELED = 2_000
"""Unlabeled features of a fold at most: the choice costs about as much as the fit."""
EXPECTED_GAIN = 0.15, 0.1
"""Mean and standard deviation of the gain in balanced log-loss by unlabeled features, before any
label is seen. Set by hand, from the gains of a few pilots (LOG.md), not estimated."""
EXPECTED_OF_JOINING = 0.04, 0.08
"""The same of joining patches with the embeddings of a frozen encoder (LOG.md, 2026-11-30)."""
TEMPERATURE_SPREAD = 0.35
"""Standard deviation of the logarithm of the temperature, before any label is seen."""
TEMPERATURES = tuple(float(2 ** (step / 4)) for step in range(-8, 9))


@dataclass(frozen=True)
class Candidate:
    """A way to fit a head, and how well it predicts labels that it was not given.

    Attributes:
        name: of the features.
        unlabeled_weight: c of the mixture; None: the labeled features only.
        loss: balanced log-loss: the mean over the classes of the mean over their images.
        temperature: by which logits are divided so that the loss is least.
    """

    name: str
    unlabeled_weight: float | None
    loss: float
    temperature: float


@dataclass(frozen=True)
class Choice:
    """The best candidate, and what decided.

    Attributes:
        candidates: those of the chosen kinds of features.
        gain, gain_error: by how much the best mixture is expected to lower the balanced log-loss of
            the best labeled head, with its standard error; 0 without unlabeled features.
    """

    best: Candidate
    candidates: tuple[Candidate, ...]
    gain: float
    gain_error: float

    def best_of(self, unlabeled_weight: float) -> Candidate:
        """Return the best candidate of a weight; without unlabeled features, the best of all."""
        of_weight = [c for c in self.candidates if c.unlabeled_weight == unlabeled_weight]
        return min(of_weight, key=_loss, default=self.best)

    def describe(self, used: Candidate) -> dict[str, Any]:
        """Return a candidate that is used, and what decided, as JSON values."""
        return {
            "unlabeled_weight": used.unlabeled_weight,
            "loss": used.loss,
            "temperature": used.temperature,
            "gain": self.gain,
            "gain_error": self.gain_error,
        }


@dataclass(frozen=True)
class Features:
    """Features of the same images in one form: float, (N, d) and (U, d).

    ``joins``: whether patches are joined with embeddings, which other forms leave alone.
    """

    name: str
    labeled: Tensor
    unlabeled: Tensor
    joins: bool = False


def choose(
    forms: Sequence[Features],
    labels: Tensor,
    classes: int,
    weights: Sequence[float],
    options: MixtureOptions,
    seed: int = 0,
) -> Choice:
    """Choose features and the weight of unlabeled ones, by cross-validation on the labels.

    Every fold predicts its labeled images from the other labels and the unlabeled features. Classes
    with fewer labels than folds are in some of them; a class with one label is predicted in none.

    Args:
        weights: c of the mixtures to try; a head on the labeled features alone is always tried.
    """
    rows = _balanced(labels.cpu().numpy(), seed).to(labels.device)
    labels = labels[rows]
    folds = _folds(labels.cpu().numpy(), FOLDS if classes < MANY else FOLDS_OF_MANY, seed)
    logits: dict[tuple[str, float | None], Tensor] = {}
    for form in forms:
        labeled = form.labeled[rows]
        unlabeled = form.unlabeled[:: max(1, math.ceil(len(form.unlabeled) / UNLABELED))]
        trials = [None, *weights] if len(unlabeled) else [None]
        for trial in trials:
            logits[form.name, trial] = labeled.new_zeros(len(labels), classes)
        for others, own in folds:
            rest, of_rest = labeled[others], labels[others]
            head = fit_labeled(rest, of_rest, classes, options.penalty)
            for trial in trials:
                fitted = head
                if trial is not None:
                    changed = replace(options, unlabeled_weight=trial, passes=1, steps=20)
                    fitted = fit_mixture(rest, of_rest, unlabeled, classes, changed, head).head
                logits[form.name, trial][own] = fitted(labeled[own])
    labels = labels.cpu()
    counts = labels.bincount(minlength=classes)
    tested = counts[labels] > 1
    losses = {key: _losses(values.cpu()[tested], labels[tested]) for key, values in logits.items()}
    shares = _shares(labels[tested], classes)
    candidates = [
        Candidate(*key, float(loss @ shares), temperature)
        for key, (loss, temperature) in losses.items()
    ]

    def gain_of(
        before: Candidate, after: Candidate, expected: tuple[float, float]
    ) -> tuple[float, float]:
        rows = [losses[c.name, c.unlabeled_weight][0] for c in (before, after)]
        single = int((counts == 1).sum())
        return _expected_gain(rows[0] - rows[1], labels[tested], single, expected)

    names = [{form.name for form in forms if form.joins is joins} for joins in (False, True)]
    alone, joined = ([c for c in candidates if c.name in some] for some in names)
    if alone and joined:
        bests = min(alone, key=_loss), min(joined, key=_loss)
        some = joined if gain_of(*bests, EXPECTED_OF_JOINING)[0] > 0 else alone
    else:
        some = candidates
    plain = min((c for c in some if c.unlabeled_weight is None), key=_loss)
    mixed = min((c for c in some if c.unlabeled_weight is not None), key=_loss, default=None)
    if mixed is None:
        return Choice(plain, tuple(some), 0.0, 0.0)
    gain, error = gain_of(plain, mixed, EXPECTED_GAIN)
    return Choice(mixed if gain > 0 else plain, tuple(some), gain, error)


def _loss(candidate: Candidate) -> float:
    return candidate.loss


def _balanced(labels: np.ndarray[Any, Any], seed: int) -> Tensor:
    """Return the rows of at most ``LABELED`` images, as many of each class as there can be."""
    if len(labels) <= LABELED:
        return torch.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    chosen = order[np.argsort(rank, kind="stable")[:LABELED]]
    return torch.from_numpy(np.sort(chosen))


def _folds(labels: np.ndarray[Any, Any], most: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Split the labeled images into folds; one that is alone in its class is in none of them."""
    random = np.random.default_rng(seed)
    fold = np.full(len(labels), -1)
    for k in np.flatnonzero(np.bincount(labels) > 1):
        rows = random.permutation(np.flatnonzero(labels == k))
        fold[rows] = (np.arange(len(rows)) + random.integers(most)) % most
    own = [torch.from_numpy(fold == number) for number in range(most)]
    return [((~mask).nonzero()[:, 0], mask.nonzero()[:, 0]) for mask in own if mask.any()]


def _expected_gain(
    gains: Tensor, labels: Tensor, untested: int, expected: tuple[float, float]
) -> tuple[float, float]:
    """Return the expected gain in balanced log-loss, and its standard error.

    A few labels tell little, and about classes with one label nothing: the estimate is combined
    with what is *expected* before any label is seen, as the mean of normal distributions.

    Args:
        gains: float64, (N,), of each tested image.
        untested: number of classes that have labels, but no tested ones.
    """
    counts = labels.bincount().double()
    present = counts > 0
    means = (torch.zeros_like(counts).index_add_(0, labels, gains) / counts)[present]
    number = len(means)
    if number < 2:
        return expected
    shares = _shares(labels, len(counts))
    within = ((gains - means.mean()) * shares).square().sum()
    variance = max(float(within), float(means.var()) / number) + 1e-12
    all_classes = number + untested
    mean, error = expected
    measured = (number * float(means.mean()) + untested * mean) / all_classes
    variance *= (number / all_classes) ** 2
    precision = 1 / error**2 + 1 / variance
    return (mean / error**2 + measured / variance) / precision, precision**-0.5


def _losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Return the log-loss of each row at the temperature that is likeliest, given the labels."""
    shares = _shares(labels, logits.shape[1])
    number = 1 / float(shares.square().sum()) if len(shares) else 1.0
    best: tuple[float, Tensor, float] | None = None
    for temperature in TEMPERATURES:
        chances = (logits.double() / temperature).log_softmax(1)
        losses = -chances.gather(1, labels[:, None])[:, 0]
        far = math.log(temperature) / TEMPERATURE_SPREAD
        value = float(losses @ shares) + far**2 / (2 * number)
        if best is None or value < best[0]:
            best = value, losses, temperature
    assert best is not None
    return best[1], best[2]


def _shares(labels: Tensor, classes: int) -> Tensor:
    """Return the weight of each row in a mean over classes, float64 (N,), of sum 1."""
    counts = labels.bincount(minlength=classes)
    return 1 / (counts[labels].double() * max(1, int((counts > 0).sum())))
