"""Whether the classifier is as often right as it is sure."""

from __future__ import annotations

import numpy as np

from daso.files import Row
from daso.report.html import charts
from daso.report.html.overview import POOLS
from daso.report.html.run import Run, number
from daso.report.html.template import percent
from daso.report.reliability import reliability_bins


def calibration(run: Run) -> Row | None:
    """Return a reliability diagram of the answers, with and without logit adjustment."""
    part = run.measured_on or "test"
    label = run.arrays.get(f"{part}.label")
    if label is None or not len(label):
        return None
    diagrams = []
    ways = (("", "as trained"), *(() if run.balanced_by else (("adjusted_", "logit-adjusted"),)))
    for prefix, name in ways:
        answer, confidence = (
            run.arrays.get(f"{part}.{prefix}{what}") for what in ("answer", "confidence")
        )
        if answer is None or confidence is None:
            continue
        if not np.isfinite(confidence).all():
            raise ValueError(f"{part}.{prefix}confidence holds NaN")
        bins = reliability_bins(confidence.astype(float), answer == label)
        edges, accuracy, mean, counts = bins
        error = float((counts * np.abs(accuracy - mean)).sum() / counts.sum())
        over = float((counts * (mean - accuracy)).sum() / counts.sum())
        diagrams.append(
            {
                "name": name,
                "error": percent(error),
                "tendency": "sure too often"
                if over > 0.02
                else "not sure often enough"
                if over < -0.02
                else "about right",
                "over": f"{100 * over:+.1f}",
                "chart": charts.reliability(f"Reliability, {name}", edges, accuracy, mean, counts),
            }
        )
    if not diagrams:
        return None
    return {
        "diagrams": diagrams,
        "images": len(label),
        "part": POOLS[part],
        "when": run.seen_at,
        "temperature": _temperature(run),
    }


def _temperature(run: Run) -> str:
    """Return what the temperature that was fitted on the hold-out does there."""
    values = [
        number(run.calibration.get(name))
        for name in ("temperature", "images", "error_before", "error_after")
    ]
    if None in values or not values[1]:
        return ""
    temperature, images, before, after = values
    return (
        f"A temperature of {temperature:.2f}, fitted on {images:,.0f} hold-out images, takes the error there from "
        f"{percent(before)}% to {percent(after)}% (calibration.json)."
    )
