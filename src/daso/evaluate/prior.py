"""Correct for a class distribution that differs between training and use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from daso.errors import DataError
from daso.evaluate.metrics import Array

MOST_ROUNDS, TOLERANCE = 1000, 1e-6
"""Of the estimation, which stops when no share changes by more."""
FEW_POINTS = 10.0
"""Half of a share's 95% interval, in points, above which an estimate is called uncertain."""


MOST_NAMED = 20
"""Classes that a note names."""


def uncertainty(prior: Array, images: int) -> float:
    """Return half of the 95% interval of the most uncertain share, in points, at the least.

    1.96 sqrt(p (1 - p) / n) with p nearest to a half: what n images leave open even if each is
    known. Shares count one image more and one less, so that a share of 0 is not certain.
    """
    shares = (np.asarray(prior, dtype=np.float64) * images + 1) / (images + 2)
    return 196 * float(np.sqrt((shares * (1 - shares)).max() / images))


def doubts(estimate: Array, class_names: Sequence[str], images: int) -> Iterator[str]:
    """Yield why an estimated class distribution of some images may mislead."""
    if (points := uncertainty(estimate, images)) > FEW_POINTS:
        yield (
            f"few images to estimate a distribution from ({images:,}): its shares are "
            f"uncertain by ± {points:.0f} points or more; give known ones with --prior FILE.json "
            "(in Python as prior), or classify more images at once"
        )
    lost = [name for name, share in zip(class_names, estimate, strict=True) if share * images < 0.5]
    if lost:
        others = " and others" if len(lost) > MOST_NAMED else ""
        yield (
            f"by this estimate there is no image of {', '.join(lost[:MOST_NAMED])}{others}, "
            "so none is classified as such; if that is wrong, use another --prior (in Python prior)"
        )


def shift(probs: Array, from_prior: Array, to_prior: Array) -> Array:
    """Return the probabilities, float64 (N, K), for another class distribution.

    Saerens, Latinne, Decaestecker: *Adjusting the Outputs of a Classifier to New a Priori
    Probabilities: A Simple Procedure*, Neural Computation 14, 2002, equation 2.4: p'(k | x) is
    proportional to p(k | x) to_k / from_k, if the images of each class look the same in both.

    Args:
        probs: (N, K), rows sum to 1.
        from_prior: (K,), class distribution of the probabilities, > 0.
        to_prior: (K,), the new class distribution, >= 0.
    """
    shifted = np.asarray(probs, dtype=np.float64) * (to_prior / from_prior)
    total = shifted.sum(1, keepdims=True)
    # An image whose possible classes all have a prior of 0 gets the prior.
    return np.where(total > 0, shifted / np.where(total > 0, total, 1), to_prior / np.sum(to_prior))


def estimate_prior(chunks: Callable[[], Iterable[Array]], from_prior: Array) -> Array:
    """Estimate the class distribution of unlabeled images, float64 (K,), from probabilities.

    The expectation-maximization algorithm of Saerens et al., 2002, equation 2.9, starts at
    *from_prior*: shift the probabilities to the current estimate; their mean is the next. Each
    round raises the likelihood. The probabilities must be calibrated, and the images of each class
    must look the same in training and use.

    Args:
        chunks: starts a pass over the probabilities, (n, K) each, with at least one row in total.
        from_prior: (K,), class distribution of the probabilities, > 0.

    Raises:
        DataError: there is no row.
    """
    prior = np.asarray(from_prior, dtype=np.float64)
    for _ in range(MOST_ROUNDS):
        total, count = np.zeros_like(prior), 0
        for probs in chunks():
            total += shift(probs, from_prior, prior).sum(0)
            count += len(probs)
        if not count:
            raise DataError("no image to estimate a class distribution from")
        before, prior = prior, total / count
        if np.abs(prior - before).max() <= TOLERANCE:
            break
    estimate: Array = prior / prior.sum()
    return estimate
