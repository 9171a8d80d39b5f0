"""Rows of a results file: one line per finished run, with what is needed to repeat it."""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daso.errors import RunError
from daso.files import Row, append_whole, reported
from daso.report.runs import RunFolder

QUOTED = (
    *("accuracy", "balanced_accuracy", "geometric_mean", "recall_many", "recall_medium"),
    *("recall_few", "calibration_error"),
)


def _percent(values: Any) -> Any:
    if isinstance(values, list):
        return [_percent(value) for value in values]
    return None if values is None else round(100 * values, 2)


def result_row(run: RunFolder) -> Row:
    """Return a finished run as one flat row.

    Shares are in percent; medians of the last evaluations unless named.

    Raises:
        RunError: the run is not complete, or nothing was measured.
    """
    if "median_of_last" not in run.summary:
        raise RunError(f"{run.path} is not complete, or nothing was measured")
    train, summary, environment = run.config["train"], run.summary, run.environment
    median = summary["median_of_last"]
    pseudo_labels = run.evaluations()[-1].get("pseudo_labels", {})
    row = {
        "source": run.config["source"],
        "unlabeled_shape": run.config["split"]["unlabeled_shape"],
        "split_options": json.dumps(run.config["split"]),
        "method": run.method,
        "method_options": json.dumps(run.config["method_options"]),
        "seed": train["seed"],
        "network": train["network"],
        "batch": train["batch"],
        "learning_rate": train["learning_rate"],
        "precision": train["precision"],
        "steps": summary["steps"],
        "split": summary["split_fingerprint"],
        "commit": environment["commit"],
        "hardware": f"{environment['hardware']}, {environment['threads']} thread(s)",
        "torch": environment["torch"],
        "command": environment["command"],
        "seconds": round(summary["seconds"]),
        "evaluations": summary["evaluations"],
        **{name: _percent(median[name]) for name in QUOTED},
        "balanced_accuracy_logit_adjusted": _percent(median["logit_adjusted"]["balanced_accuracy"]),
        "balanced_accuracy_last": _percent(summary["last"]["balanced_accuracy"]),
        "balanced_accuracy_best_on_holdout": _percent(
            summary.get("best_on_holdout", {}).get("balanced_accuracy")
        ),
        "recall": json.dumps(_percent(median["recall"])),
        "share_confident": _percent(pseudo_labels.get("share_confident")),
    }
    for part in ("linear", "semantic", "final"):
        for number in ("recall", "precision"):
            values = pseudo_labels.get(part, {}).get(number)
            row[f"pseudo_label_{part}_{number}"] = json.dumps(_percent(values))
    return row


def _whole_rows(content: bytes) -> tuple[int, csv.DictReader[str]]:
    """Return the size in bytes of a CSV file's whole rows, and these rows."""
    size = content.rfind(b"\n") + 1
    return size, csv.DictReader(io.StringIO(content[:size].decode(), newline=""))


def has_row(path: Path, key: Mapping[str, str]) -> bool:
    """Tell whether a CSV file has a row with the values of *key*."""
    return path.exists() and any(
        key.items() <= row.items() for row in _whole_rows(path.read_bytes())[1]
    )


def append_row(path: Path, row: Row, key: Mapping[str, str] | None = None) -> None:
    """Append a row to a CSV file, after a header if the file is new.

    The file is locked. The row is written as a whole or not at all; half a row, left by a killed
    process, is removed. Nothing is appended if a row has the values of *key*.

    Raises:
        RunError: the file has other columns, or cannot be written.
    """
    with reported(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            size, rows = _whole_rows(file.readall())
            header = None if rows.fieldnames is None else list(rows.fieldnames)
            if header is not None and header != list(row):
                raise RunError(f"{path} has other columns: {sorted(set(header) ^ set(row))}")
            if key is not None and any(key.items() <= there.items() for there in rows):
                return
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, list(row))
            if header is None:
                writer.writeheader()
            writer.writerow(row)
            append_whole(file, size, text.getvalue().encode())
