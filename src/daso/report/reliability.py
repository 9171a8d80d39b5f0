"""Compare confidence with accuracy: answers in bins of confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.evaluate.reliability import Bins
from daso.report.runs import Array, as_array

FEW_IMAGES = 10
"""Bins with fewer images are pale: their accuracy says little."""


def read_calibrated(answered: Any, part: str) -> Bins | None:
    """Return the bins of the answers of ``daso predict``, from a run's ``calibration.json``.

    None if there are none of this part of the images.

    Raises:
        ValueError, TypeError: the values do not fit each other.
    """
    if not isinstance(answered, dict) or answered.get("measured_on") != part:
        return None
    names = ("accuracy", "confidence", "counts")
    accuracy, confidence, counts = (as_array(answered.get(name)) for name in names)
    if not accuracy.shape == confidence.shape == counts.shape == (len(counts),):
        raise ValueError("the bins of calibration.json do not fit each other")
    return Bins(np.linspace(0, 1, len(counts) + 1), accuracy, confidence, counts)


def answers_on(
    arrays: Mapping[str, npt.NDArray[Any]], part: str, logit_adjusted: bool = False
) -> tuple[Array, Array] | None:
    """Return the confidence (N,) of the answers on some images, and whether they are right (N,).

    None if the arrays of ``beliefs.safetensors`` have none.

    Args:
        part: ``"test"`` or ``"holdout"``.
        logit_adjusted: after post-hoc logit adjustment.

    Raises:
        ValueError: the arrays do not fit each other.
    """
    kind = "adjusted_" if logit_adjusted else ""
    names = (f"{part}.label", f"{part}.{kind}answer", f"{part}.{kind}confidence")
    if not all(name in arrays for name in names):
        return None
    label, answer, confidence = (arrays[name] for name in names)
    fits = label.shape == answer.shape == confidence.shape
    if not fits or not np.isfinite(confidence).all():
        raise ValueError("its answers do not fit each other")
    return confidence.astype(float), answer == label
