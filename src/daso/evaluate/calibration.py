"""Temperature scaling of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daso.evaluate.metrics import Array, calibration_error, cross_entropy, log_softmax

FEWEST_IMAGES = 50
"""With fewer, a fitted temperature was worse than 1 on test images about every other time."""
FEWEST_OF_A_CLASS = 10
"""With fewer, a class distribution estimated by the confusion was worse than none."""
MOST_CLASSES = 100
"""With more classes, no confusion is kept."""
SPREAD = 0.25
"""Standard deviation of the prior on log T; about the best of 0.15 to 1 on test images."""


@dataclass(frozen=True)
class Calibration:
    """The temperature of a model and its effect on the hold-out that it was fitted on.

    Attributes:
        temperature: divides the logits before the softmax, > 0; 1 changes nothing.
        step: training steps of the checkpoint.
        images: number of hold-out images.
        loss_before, loss_after: mean negative log-likelihood; None without a hold-out.
        error_before, error_after: expected calibration error, in [0, 1]; None without a hold-out.
        note: why the temperature was not fitted, or None.
        confusion: K rows of K numbers; column k is the mean of the calibrated probabilities over
            the held-out images of class k. None if a class has fewer than 10, or there are more
            than 100 classes.
        answered: reliability of the calibrated probabilities, which ``daso predict`` gives, on the
            images that the run is measured on: ``measured_on``, ``images``, ``error``, and
            ``counts``, ``accuracy`` and ``confidence`` of 15 bins. None if nothing was fitted.
        given: place of the images that ``daso calibrate`` was given in place of the hold-out.
        model: with *given*, a digest of the weights that it was fitted for.
    """

    temperature: float
    step: int
    images: int
    loss_before: float | None = None
    loss_after: float | None = None
    error_before: float | None = None
    error_after: float | None = None
    note: str | None = None
    confusion: list[list[float]] | None = None
    answered: dict[str, Any] | None = None
    given: str | None = None
    model: str | None = None


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the temperature T for which the softmax of logits / T fits the labels best.

    Guo, Pleiss, Sun, Weinberger: *On Calibration of Modern Neural Networks*, ICML 2017, arXiv
    1706.04599, section 4.2, minimize the negative log-likelihood of held-out images. A normal prior
    on log T adds (log T)^2 / (2 SPREAD^2): without it, a network without mistakes on a small
    hold-out gets T = 0.

    Args:
        logits: float, (N, K).
        labels: int64, (N,), 0 <= label < K.
    """
    # This import takes half a second and is only needed at the end of a run.
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, dtype=np.float64)

    def cost(log_temperature: float) -> float:
        loss = cross_entropy(log_softmax(logits / np.exp(log_temperature)), labels)
        return loss * len(labels) + 0.5 * (log_temperature / SPREAD) ** 2

    return float(np.exp(minimize_scalar(cost, bounds=(-4, 4), method="bounded").x))


def calibrate(logits: Array, labels: Array, step: int) -> Calibration:
    """Fit a temperature to held-out images, which all have the same weight.

    A class-balanced likelihood would depend on the one or two images of a rare class. It would also
    take the label prior in the logits of an imbalanced training for overconfidence. ``prior.shift``
    corrects for other class frequencies.

    Args:
        logits: float, (N, K), of the hold-out; N may be 0.
        labels: int64, (N,), 0 <= label < K.
        step: training steps of the checkpoint.
    """
    if len(labels) == 0:
        return Calibration(1.0, step, 0, note="there is no hold-out to fit a temperature on")
    note, temperature = None, 1.0
    if len(labels) >= FEWEST_IMAGES:
        temperature = fit_temperature(logits, labels)
    else:
        are = "image is" if len(labels) == 1 else "images are"
        note = f"{len(labels)} held-out {are} too few to fit a temperature: at least "
        note += f"{FEWEST_IMAGES} are needed"
    before = log_softmax(logits)
    after = log_softmax(np.asarray(logits, dtype=np.float64) / temperature)
    probs = np.exp(after)
    return Calibration(
        temperature,
        step,
        len(labels),
        cross_entropy(before, labels),
        cross_entropy(after, labels),
        calibration_error(np.exp(before), labels),
        calibration_error(probs, labels),
        note,
        _confusion(probs, labels),
    )


def calibrated(logits: Array, temperature: float) -> Array:
    """Return the softmax of logits / temperature, float64 (N, K): what ``daso predict`` gives."""
    return np.asarray(np.exp(log_softmax(np.asarray(logits, dtype=np.float64) / temperature)))


def _confusion(probs: Array, labels: Array) -> list[list[float]] | None:
    classes = probs.shape[1]
    if classes > MOST_CLASSES or np.bincount(labels, minlength=classes).min() < FEWEST_OF_A_CLASS:
        return None
    columns = np.stack([probs[labels == label].mean(0) for label in range(classes)], 1)
    return [[round(value, 6) for value in row] for row in columns.tolist()]
