"""What a person sees while a run trains: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Row = dict[str, Any]

PLAIN_PERIOD = 15.0
"""Seconds between lines where the output is not a terminal."""


def _state(train: Row, evaluation: Row) -> str:
    parts = [f"loss {train['loss']:.3f}"] if train else []
    if len(train.get("losses", {})) > 1:
        parts.append("(" + " ".join(f"{name} {value:.3f}" for name, value in train["losses"].items()) + ")")
    if "share_confident" in train:
        parts.append(f"over threshold {train['share_confident']:.0%}")
    measured = evaluation.get("test") or evaluation.get("holdout")
    if measured:
        parts.append(f"balanced accuracy {measured['balanced_accuracy']:.1%}")
    if train:
        parts.append(f"{train['steps_per_second']:.1f} steps/s")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def follow(rows: Iterable[Row], *, total: int, done: int = 0, label: str = "training") -> list[Row]:
    """Consume the rows of a training while showing how it goes; return them.

    Args:
        rows: of ``fit``.
        total: steps of the whole training.
        done: steps done before (a resumed run).
        label: shown at the front.
    """
    console = Console(file=sys.stderr)
    kept: list[Row] = []
    latest: dict[str, Row] = {"train": {}, "evaluate": {}}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done, state="")
        for row in rows:
            kept.append(row)
            latest[row["event"]] = row
            state = _state(latest["train"], latest["evaluate"])
            progress.update(task, completed=row["step"], state=state)
            finished = row["event"] == "evaluate" and row["step"] == total
            if not console.is_terminal and (time.monotonic() - last_line > PLAIN_PERIOD or finished):
                left = _duration((total - row["step"]) / latest["train"]["steps_per_second"])
                print(
                    f"{label}  step {row['step']}/{total}  {state}  {left} left", file=sys.stderr, flush=True
                )
                last_line = time.monotonic()
    return kept
