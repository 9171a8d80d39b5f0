"""The live head: refitted to the features in about a second, while labeling goes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from daso.label.images import Floats, Indices, sample
from daso.readout.logistic import LinearHead
from daso.readout.mixture import MixtureOptions, fit_labeled, fit_mixture

SAMPLE = 2_000
"""Unlabeled images of a fit, at most."""
LABELED = 20_000
"""Labeled images of a fit, at most."""
MANY_CLASSES = 100
"""Classes from which on only the labeled images are fitted, from the last fit on."""
FEW_STEPS, LARGE_FIT = 10, 5_000_000
"""Steps from the last fit on; half as many if labeled images times classes are more."""
LEAST_SHARE = 1e-6
"""Share of a class that is expected at least."""
TOP = 3
"""Classes of each image that are kept with their probabilities."""
CHUNK = 8_192


@dataclass(frozen=True)
class Beliefs:
    """What the live head believes about all images.

    Attributes:
        fitted: the head for balanced classes.
        head: the same, with the estimated class shares of the undecided images in its bias.
        top, probabilities: the likeliest classes of each image, (N, <= 3), best first.
        expected: expected number of undecided images of each class, (K,).
    """

    features: Floats
    fitted: LinearHead
    head: LinearHead
    top: npt.NDArray[np.int32]
    probabilities: Floats
    expected: npt.NDArray[np.float64]

    def of(self, images: Indices) -> Floats:
        """Return the probabilities of all classes, (n, K)."""
        logits = self.head(torch.from_numpy(self.features[images].astype(np.float32)))
        return np.asarray(logits.softmax(1).numpy())


def fit_head(
    features: Floats, labels: Indices, classes: int, seed: int, start: LinearHead | None = None
) -> tuple[LinearHead, npt.NDArray[np.float64]] | None:
    """Fit the head for balanced classes; return it with the class shares of undecided images.

    Args:
        features: (N, d), of mean square about 1.
        labels: (N,), -1 where undecided, other negative values where the image is left out.
        classes: K.
        start: head of an earlier fit; where there are many classes, a few steps lead on from it.

    Returns:
        None if fewer than two classes have labels.
    """
    known, undecided = np.flatnonzero(labels >= 0), np.flatnonzero(labels == -1)
    if len(np.unique(labels[known])) < 2:
        return None
    random = np.random.default_rng(seed)
    known = np.sort(sample(known, LABELED, random))
    undecided = np.sort(sample(undecided, SAMPLE, random))
    labeled, unlabeled = (
        torch.from_numpy(features[rows].astype(np.float32)) for rows in (known, undecided)
    )
    targets = torch.from_numpy(labels[known])
    options = MixtureOptions(iterations=10, passes=1, steps=20)
    if classes >= MANY_CLASSES:
        counts = targets.bincount(minlength=classes).double()
        steps = FEW_STEPS if len(known) * classes <= LARGE_FIT else FEW_STEPS // 2
        steps = 50 if start is None else steps
        head = fit_labeled(labeled, targets, classes, options.penalty, steps, start)
        return head, (counts / counts.sum()).numpy()
    fit = fit_mixture(labeled, targets, unlabeled, classes, options)
    return fit.head, fit.prior.double().numpy()


def fit_live(
    features: Floats, labels: Indices, classes: int, seed: int, before: Beliefs | None = None
) -> Beliefs | None:
    """Fit the head, and apply it to all images; see ``fit_head``."""
    start = None if before is None else before.fitted
    fit = fit_head(features, labels, classes, seed, start)
    if fit is None:
        return None
    fitted, prior = fit
    shift = torch.from_numpy(np.log(np.maximum(prior, LEAST_SHARE))).to(fitted.bias)
    head = LinearHead(fitted.weight, fitted.bias + shift)
    undecided, width = torch.from_numpy(labels == -1), min(TOP, classes)
    top = np.empty((len(features), width), dtype=np.int32)
    chances = np.empty((len(features), width), dtype=np.float32)
    expected = np.zeros(classes)
    rows = max(256, CHUNK * 16 // max(16, classes))
    for at in range(0, len(features), rows):
        chunk = slice(at, at + rows)
        logits = head(torch.from_numpy(features[chunk].astype(np.float32)))
        probs = logits.softmax(1)
        best = probs.topk(width, dim=1)
        top[chunk], chances[chunk] = best.indices.numpy(), best.values.numpy()
        expected += probs[undecided[chunk]].sum(0).double().numpy()
    return Beliefs(features, fitted, head, top, chances, expected)


def unit_rows(features: Floats) -> Floats:
    """Return rows of length 1, float32."""
    rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    return np.asarray(F.normalize(rows, dim=1, eps=1e-8).numpy())
