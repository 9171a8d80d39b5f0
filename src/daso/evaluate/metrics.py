"""Classification metrics that show the rare classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daso.evaluate.reliability import reliability_bins

Array = npt.NDArray[Any]


def confusion_matrix(labels: Array, predictions: Array, num_classes: int) -> Array:
    """Return counts, int64 (K, K): row = true class, column = prediction; ignore labels < 0."""
    known = labels >= 0
    flat = labels[known] * num_classes + predictions[known]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall_precision(confusion: Array) -> tuple[Array, Array]:
    """Return per-class recall and precision, float (K,), of a confusion matrix.

    NaN for the recall of a class without images, and the precision of a class never predicted.
    """
    hits = np.diag(confusion).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / confusion.sum(1), hits / confusion.sum(0)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share of *hits* among *count* > 0 images (Wilson, 1927).

    Unlike the normal interval, it stays within 0 to 1 and is valid for few images.
    """
    z2 = 1.959964**2
    share, total = hits / count, count + z2
    middle = (hits + z2 / 2) / total
    half = (z2 * (share * (1 - share) * count + z2 / 4)) ** 0.5 / total
    # The ends are exact where rounding might say 0.9999999999999999 of a perfect answer.
    return middle - half if hits else 0.0, middle + half if hits < count else 1.0


def calibration_error(probs: Array, labels: Array, bins: int = 15) -> float:
    """Return the expected calibration error in [0, 1] over bins of equal width (Guo et al., 2017).

    The mean over images of |accuracy - confidence| of their confidence bin; NaN if a probability is
    NaN.
    """
    if not np.isfinite(probs).all():
        return float("nan")
    return reliability_bins(probs.max(1), probs.argmax(1) == labels, bins).error


def class_groups(class_counts: Array) -> dict[str, list[int]]:
    """Split the classes into thirds by their number of labeled images: many, medium, few.

    The usual thresholds of 100 and 20 images suit ImageNet-LT, not the few labels of
    semi-supervised learning. Ties are broken by class index. Below three classes, some groups are
    empty. If all numbers are equal, no class is rarer than another, and all groups are empty.
    """
    counts = np.asarray(class_counts)
    order = np.argsort(-counts, kind="stable")
    parts = np.array_split(order, 3)
    if len(counts) and (counts == counts[0]).all():
        parts = [order[:0]] * 3
    return {
        name: sorted(int(k) for k in part)
        for name, part in zip(("many", "medium", "few"), parts, strict=True)
    }


def log_softmax(logits: Array) -> Array:
    """Return the logarithms of the probabilities of logits, float64 (N, K)."""
    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def cross_entropy(log_probs: Array, labels: Array) -> float:
    """Return the mean negative log-likelihood of labels, int64 (N,)."""
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def _mean(values: Array) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def recall_means(recall: Array, class_counts: Array) -> dict[str, float]:
    """Return the means of the recalls (K,) of the classes that were measured.

    Args:
        class_counts: int64, (K,), labeled training images, which define the groups.

    Returns:
        ``balanced_accuracy`` (mean), ``geometric_mean`` (0 if a class is never found),
        ``recall_many``, ``recall_medium`` and ``recall_few``.
    """
    present = recall[~np.isnan(recall)]
    geometric = float(np.exp(np.log(present).mean())) if len(present) and present.min() > 0 else 0.0
    return {
        "balanced_accuracy": _mean(recall),
        "geometric_mean": geometric,
        **{f"recall_{name}": _mean(recall[of]) for name, of in class_groups(class_counts).items()},
    }


def classification_metrics(logits: Array, labels: Array, class_counts: Array) -> dict[str, Any]:
    """Measure logits against labels.

    Args:
        logits: float, (N, K).
        labels: int64, (N,), 0 <= label < K.
        class_counts: int64, (K,), labeled training images, which define the groups.

    Returns:
        ``accuracy``, ``recall`` and ``precision`` (K numbers), ``recall_means``, ``loss`` (mean
        cross-entropy), ``calibration_error``. All are in [0, 1] except the loss.
    """
    log_probs = log_softmax(logits)
    confusion = confusion_matrix(labels, logits.argmax(1), logits.shape[1])
    recall, precision = recall_precision(confusion)
    return {
        "accuracy": float(np.diag(confusion).sum() / len(labels)),
        **recall_means(recall, class_counts),
        "loss": cross_entropy(log_probs, labels),
        "calibration_error": calibration_error(np.exp(log_probs), labels),
        "recall": recall.tolist(),
        "precision": precision.tolist(),
    }


def adjust_logits(logits: Array, class_counts: Array, strength: float = 1.0) -> Array:
    """Subtract the log prior of the labeled images from logits (N, K).

    Post-hoc logit adjustment, Menon et al., ICLR 2021, equation 9, for balanced test classes.
    """
    prior = np.asarray(class_counts, dtype=np.float64)
    adjusted: Array = logits - strength * np.log(prior / prior.sum())
    return adjusted


def evaluate_logits(logits: Array, labels: Array, class_counts: Array) -> dict[str, Any]:
    """Return ``classification_metrics``, and the logit-adjusted ones as ``"logit_adjusted"``."""
    adjusted = classification_metrics(adjust_logits(logits, class_counts), labels, class_counts)
    return {**classification_metrics(logits, labels, class_counts), "logit_adjusted": adjusted}


def pseudo_label_metrics(confusion: Array) -> dict[str, Any]:
    """Measure pseudo-labels from their counts by true class.

    Args:
        confusion: int64, (K + 1, K): row = true class (last row: unknown), column = pseudo-label.

    Returns:
        ``distribution`` (share of each pseudo-label) and, if any truth is known, ``truth`` (share
        of each class), ``recall`` and ``precision`` per class, and ``accuracy``.
    """
    total = confusion.sum()
    known = confusion[:-1]
    metrics: dict[str, Any] = {"distribution": (confusion.sum(0) / max(total, 1)).tolist()}
    if known.sum():
        recall, precision = recall_precision(known)
        metrics |= {
            "truth": (known.sum(1) / known.sum()).tolist(),
            "recall": recall.tolist(),
            "precision": precision.tolist(),
            "accuracy": float(np.diag(known).sum() / known.sum()),
        }
    return metrics
