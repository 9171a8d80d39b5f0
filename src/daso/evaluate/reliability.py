"""Bins of confidence, and how far accuracy is from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Bins(NamedTuple):
    """Bins of confidence of equal width.

    Attributes:
        edges: (bins + 1,), from 0 to 1.
        accuracy, confidence: means of the images in each bin, (bins,); 0 in an empty one.
        counts: images in each bin, (bins,).
    """

    edges: Array
    accuracy: Array
    confidence: Array
    counts: Array

    @property
    def error(self) -> float:
        """Calibration error: the mean over images of the gap of their bin (Guo et al., 2017)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.counts * gaps).sum() / self.counts.sum())

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy, in [-1, 1]."""
        gaps = self.confidence - self.accuracy
        return float((self.counts * gaps).sum() / self.counts.sum())


def reliability_bins(confidence: Array, correct: Any, bins: int = 15) -> Bins:
    """Return bins of answers with their confidence, (N,), and whether they are right, (N,)."""
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(place, minlength=bins).astype(float)
    filled = np.maximum(counts, 1)
    accuracy = np.bincount(place, np.asarray(correct, float), minlength=bins) / filled
    mean = np.bincount(place, confidence, minlength=bins) / filled
    return Bins(np.linspace(0, 1, bins + 1), accuracy, mean, counts)
