"""Compare confidence with accuracy: answers in bins of confidence."""

from __future__ import annotations

from typing import Any

import numpy as np

from daso.errors import RunError
from daso.evaluate.reliability import Bins
from daso.files import read_arrays
from daso.report.runs import Array, RunFolder, as_array

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


def read_answers(run: RunFolder, logit_adjusted: bool = False) -> tuple[Array, Array] | None:
    """Return the confidence (N,) of a run's answers and whether they are right, bool (N,).

    On the test images, or the hold-out without any. None if the run has not written its answers.

    Args:
        logit_adjusted: after post-hoc logit adjustment.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / "beliefs.safetensors"
    if not path.exists():
        return None
    kind = "adjusted_" if logit_adjusted else ""
    try:
        arrays, _ = read_arrays(path, "beliefs")
        part = next((part for part in ("test", "holdout") if f"{part}.label" in arrays), None)
        if part is None:
            return None
        label, answer, confidence = (
            arrays[f"{part}.{name}"] for name in ("label", f"{kind}answer", f"{kind}confidence")
        )
        fits = label.shape == answer.shape == confidence.shape
        if not fits or not np.isfinite(confidence).all():
            raise ValueError("its answers do not fit each other")
    except (OSError, LookupError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    return confidence.astype(float), answer == label
