"""Temperature scaling: probabilities that are right as often as they say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.evaluate.metrics import calibration_error

Array = npt.NDArray[Any]

FEWEST_IMAGES = 50
"""With fewer, the temperature from a hold-out was worse than 1 on test images about every other time."""
FEWEST_OF_A_CLASS = 10
"""With fewer, a class distribution that was estimated by the confusion was worse than none."""
MOST_CLASSES = 100
"""Whose confusion is kept."""
SPREAD = 0.25
"""Standard deviation of log T that is expected beforehand; of 0.15 to 1 about the best on test images."""


@dataclass(frozen=True)
class Calibration:
    """The temperature of a model and what it is worth, measured on the images that it was fitted on.

    Attributes:
        temperature: logits are divided by it before the softmax, > 0; 1: probabilities are as the network gives them.
        step: training steps of the checkpoint that it belongs to.
        images: of the hold-out.
        loss_before, loss_after: mean negative log-likelihood of the hold-out; None without one.
        error_before, error_after: expected calibration error of the hold-out, in [0, 1]; None without one.
        note: why the temperature was not fitted, or None.
        confusion: K rows of K numbers; column k is the mean of the calibrated probabilities over the held-out images of
            class k. None if a class has fewer than 10, or there are more than 100 classes.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the temperature T for which the softmax of logits / T fits the labels best.

    Guo, Pleiss, Sun, Weinberger: *On Calibration of Modern Neural Networks*, ICML 2017, arXiv 1706.04599, section
    4.2: the negative log-likelihood of held-out images is least. To their sum (log T)^2 / (2 SPREAD^2) is added, a
    normal distribution expected beforehand: without it a network that makes no mistake on a small hold-out gets T = 0.

    Args:
        logits: float, (N, K).
        labels: int64, (N,), 0 <= label < K.
    """
    # Half a second, which only the end of a run needs.
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, dtype=np.float64)

    def cost(log_temperature: float) -> float:
        loss = _loss(logits / np.exp(log_temperature), labels) * len(labels)
        return loss + 0.5 * (log_temperature / SPREAD) ** 2

    return float(np.exp(minimize_scalar(cost, bounds=(-4, 4), method="bounded").x))


def calibrate(logits: Array, labels: Array, step: int) -> Calibration:
    """Fit a temperature to held-out images, every image alike.

    Every image counts alike, not every class: with one or two images of a rare class a class-balanced likelihood
    would be the noise of these few; and a network that learned from imbalanced labels carries their prior in its
    logits, which the likelihood of balanced classes would take for over-confidence. What other class frequencies
    change is ``prior.shift``'s matter.

    Args:
        logits: float, (N, K), of the hold-out; N may be 0.
        labels: int64, (N,), 0 <= label < K.
        step: of the checkpoint that the logits are from.
    """
    if len(labels) == 0:
        return Calibration(1.0, step, 0, note="there is no hold-out to fit a temperature on")
    few = len(labels) < FEWEST_IMAGES
    temperature = 1.0 if few else fit_temperature(logits, labels)
    after = np.asarray(logits, dtype=np.float64) / temperature
    probs = np.exp(_log_softmax(after))
    return Calibration(
        temperature,
        step,
        len(labels),
        _loss(logits, labels),
        _loss(after, labels),
        calibration_error(np.exp(_log_softmax(logits)), labels),
        calibration_error(probs, labels),
        f"{len(labels)} held-out images are too few to fit a temperature on: {FEWEST_IMAGES} are needed"
        if few
        else None,
        _confusion(probs, labels),
    )


def _confusion(probs: Array, labels: Array) -> list[list[float]] | None:
    classes = probs.shape[1]
    if classes > MOST_CLASSES or np.bincount(labels, minlength=classes).min() < FEWEST_OF_A_CLASS:
        return None
    columns = np.stack([probs[labels == label].mean(0) for label in range(classes)], 1)
    return [[round(value, 6) for value in row] for row in columns.tolist()]


def _loss(logits: Array, labels: Array) -> float:
    log_probs = _log_softmax(logits)
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: Array) -> Array:
    from scipy.special import log_softmax

    result: Array = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return result
