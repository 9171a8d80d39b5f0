"""Section: is the classifier right as often as its confidence says?"""

from __future__ import annotations

from daso.evaluate.reliability import Bins, reliability_bins
from daso.files import Row
from daso.report.html import diagrams
from daso.report.html.run import Run
from daso.report.html.template import percent
from daso.report.reliability import answers_on, read_calibrated
from daso.report.runs import number
from daso.report.wording import POOLS

SMALL_BIAS = 0.02


def calibration(run: Run) -> Row | None:
    """Return reliability diagrams: as predicted, as trained and with logit adjustment."""
    part = run.measured_on or "test"
    label = run.arrays.get(f"{part}.label")
    if label is None or not len(label):
        return None
    several: dict[str, Bins] = {}
    for adjusted, name in ((False, "as trained"), (True, "logit-adjusted")):
        answers = answers_on(run.arrays, part, adjusted)
        if answers is not None and not (adjusted and run.balanced_by):
            several[name] = reliability_bins(*answers)
    if (bins := read_calibrated(run.calibration.get("answered"), part)) is not None:
        several = {"as daso predict answers": bins} | several
    drawn = [
        {
            "name": name,
            "error": percent(bins.error),
            "bias": _bias(bins.overconfidence),
            "chart": diagrams.reliability(f"Reliability, {name}", bins),
        }
        for name, bins in several.items()
    ]
    if not drawn:
        return None
    return {
        "diagrams": drawn,
        "images": len(label),
        "part": POOLS[part],
        "when": run.believed_when,
        "temperature": _temperature(run),
    }


def _bias(over: float) -> str:
    if abs(over) <= SMALL_BIAS:
        return "no overall bias"
    return f"{'over' if over > 0 else 'under'}confident by {100 * abs(over):.1f} points"


def _temperature(run: Run) -> str:
    names = ("temperature", "images", "error_before", "error_after")
    values = [number(run.calibration.get(name)) for name in names]
    if None in values or not values[1]:
        return ""
    temperature, images, before, after = values
    if temperature == 1:
        return "No temperature was fitted: daso predict answers as trained."
    kind = "hold-out" if run.calibration.get("given") is None else "further labeled"
    return (
        f"daso predict divides the logits by a temperature of {temperature:.3f}. It was fitted on "
        f"{images:,.0f} {kind} images and changes their calibration error from "
        f"{percent(before)}% to {percent(after)}% (calibration.json)."
    )
