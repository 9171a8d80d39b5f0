"""Whether classifiers are as often right as they are sure: their answers in bins of confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors
from safetensors import SafetensorError

from daso.errors import RunError
from daso.report.runs import Array, RunFolder


def reliability_bins(
    confidence: Array, correct: Any, bins: int = 15
) -> tuple[Array, Array, Array, Array]:
    """Return edges (bins + 1,) of bins of equal width; accuracy, mean confidence and images of each (bins,).

    Args:
        confidence: (N,), in [0, 1].
        correct: bool (N,).
        bins: how many; 15 as the calibration error of the metrics has.
    """
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(place, minlength=bins).astype(float)
    filled = np.maximum(counts, 1)
    accuracy = np.bincount(place, np.asarray(correct, float), minlength=bins) / filled
    return (
        np.linspace(0, 1, bins + 1),
        accuracy,
        np.bincount(place, confidence, minlength=bins) / filled,
        counts,
    )


def read_answers(run: RunFolder, logit_adjusted: bool = False) -> tuple[Array, Array] | None:
    """Return confidence (N,) and whether it is right, bool (N,), of a run's answers on its test, else hold-out, images.

    None where the run has not written them, or nothing was measured.

    Args:
        run: the run, complete or not.
        logit_adjusted: after post-hoc logit adjustment.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / "beliefs.safetensors"
    if not path.exists():
        return None
    kind = "adjusted_" if logit_adjusted else ""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            part = next((part for part in ("test", "holdout") if f"{part}.label" in names), None)
            if part is None:
                return None
            label = file.get_tensor(f"{part}.label")
            answer, confidence = (
                file.get_tensor(f"{part}.{kind}{name}") for name in ("answer", "confidence")
            )
            if (
                not label.shape == answer.shape == confidence.shape
                or not np.isfinite(confidence).all()
            ):
                raise ValueError("its answers do not fit each other")
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    return confidence.astype(float), answer == label
