"""Choose the checkpoint that is a run's model, and when to stop early, by the hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from daso.files import Row

BEST = "best"
"""Folder, among the checkpoints, of the network that was best on the hold-out."""


def held_out(rows: Sequence[Row], stage: int) -> list[float]:
    """Return the balanced accuracy on the hold-out at each evaluation of a stage."""
    measured = [row for row in rows if row["event"] == "evaluate" and row.get("stage", 0) == stage]
    return [row["holdout"]["balanced_accuracy"] for row in measured if "holdout" in row]


def improves(rows: Sequence[Row], row: Row, stage: int) -> bool:
    """Return whether an evaluation is the best on the hold-out so far; a tie counts."""
    now = held_out([row], stage)
    return bool(now) and now[0] >= max(held_out(rows, stage), default=0)


def exhausted(rows: Sequence[Row], stage: int, patience: int | None) -> bool:
    """Return whether the last *patience* evaluations of a stage brought no improvement."""
    scores = held_out(rows, stage)
    if patience is None or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def model_folder(run: Path, deploy: str) -> Path:
    """Return the folder of a run's deployed checkpoint; *deploy* is "best" or "last"."""
    checkpoints = run / "checkpoints"
    return checkpoints / BEST if deploy == "best" and (checkpoints / BEST).is_dir() else checkpoints
