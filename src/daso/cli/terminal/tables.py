"""Tables that the command line prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

POOLS = {"test": "test", "holdout": "held-out"}
"""What the images are called that a run is measured on."""


def wide_console(least: int = 100) -> Console:
    """Return a console for tables, *least* columns wide at least, also where the output is not a terminal."""
    return Console(width=max(least, Console().width))


def percent(value: float | None) -> str:
    """Format a share of 1 as a percentage; ``-`` where there is none."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def summary_table(
    summary: dict[str, Any], balanced_by: Sequence[str] = (), measured: Sequence[int] | None = None
) -> Group:
    """Show the answers of a run's summary side by side, each named.

    Args:
        summary: as ``summary.json`` has it.
        balanced_by: what has balanced the classifier in training; if anything has, logit-adjusted numbers, which
            would correct a second time, are left out.
        measured: images of each class that it was measured on, (K,); None: not known.
    """
    answers = {"median_of_last": f"median of last {summary['evaluations']}", "last": "last"}
    answers["best_on_holdout"] = "best on hold-out"
    rows = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "geometric_mean": "geometric mean of recalls",
        "recall_many": "recall, many labels",
        "recall_medium": "recall, medium",
        "recall_few": "recall, few labels",
        "calibration_error": "calibration error",
    }
    shown = [name for name in answers if name in summary]
    table = Table(
        title=f"on {POOLS[summary['measured_on']]} images, in %",
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    table.add_column("")
    for name in shown:
        table.add_column(answers[name], justify="right")
        if not balanced_by:
            table.add_column("adjusted", justify="right")
    for key, label in rows.items():
        cells = []
        for name in shown:
            cells.append(percent(summary[name][key]))
            if not balanced_by:
                cells.append(percent(summary[name]["logit_adjusted"][key]))
        table.add_row(label, *cells)
    captions = []
    if measured is not None:
        import numpy as np  # here, so that lists of methods and presets are quick

        from daso.report.uncertainty import interval

        recall = np.array(summary["median_of_last"]["recall"], dtype=np.float64)
        half = interval(recall, np.array(measured, dtype=np.float64))
        if half is not None:
            captions.append(
                f"balanced accuracy is known to within ± {100 * half:.1f} points (95%), from {sum(measured):,} images"
            )
    if not balanced_by:
        captions.append(
            "adjusted: by the log of the labelled frequencies, for images of balanced classes"
        )
    return Group(table, *captions, *([""] if captions else []))


def class_table(
    class_names: Sequence[str], labeled_counts: Sequence[int], metrics: dict[str, Any]
) -> Table:
    """Show recall and precision of each class, beside its number of labelled images."""
    table = Table(title="per class, in %", title_justify="left", box=SIMPLE_HEAD)
    for column in ("class", "labelled", "recall", "precision"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for k, name in enumerate(class_names):
        table.add_row(
            escape(name),
            str(labeled_counts[k]),
            percent(metrics["recall"][k]),
            percent(metrics["precision"][k]),
        )
    return table
