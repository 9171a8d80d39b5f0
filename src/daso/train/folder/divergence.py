"""What becomes of a run in which a loss or a weight became infinite or NaN."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from daso.errors import DivergedError, RunError
from daso.files import Row, save_json

ROLLBACK = "rollback"
"""The event of a row that says that a run went back to a checkpoint."""
FACTOR = 0.5
"""Of the learning rate, for each time that a run was rolled back."""
NAME = "divergence.json"


def rate_factor(rows: Sequence[Row]) -> float:
    """Return the factor of the learning rate after the rollbacks among the rows of a run."""
    return FACTOR ** count_rollbacks(rows)


def count_rollbacks(rows: Sequence[Row]) -> int:
    """Return how often the run of some rows was rolled back."""
    return sum(row["event"] == ROLLBACK for row in rows)


def record_divergence(
    folder: Path, error: DivergedError, step: int, batch: dict[str, list[int]], saved: int | None
) -> DivergedError:
    """Write ``divergence.json`` into a run folder; return the error with all that is known.

    Args:
        folder: of the run.
        error: that the training raised.
        step: of the run, earlier stages included, counted from 1.
        batch: places of the step's images in their pools, by the pool's name.
        saved: step of the newest checkpoint, or None.
    """
    message = str(error).replace(f"step {error.step}", f"step {step}", 1)
    kept = (
        "no checkpoint was saved before"
        if saved is None
        else f"the checkpoint of step {saved} is kept"
    )
    written = {
        "step": step,
        "term": error.term,
        "message": message,
        "images": batch,
        "checkpoint": saved,
    }
    with contextlib.suppress(RunError):  # a full disk must not hide what happened
        save_json(folder / NAME, written)
    images = "; ".join(
        f"{name} {', '.join(map(str, at[:8]))}{', ...' if len(at) > 8 else ''}"
        for name, at in batch.items()
    )
    return DivergedError(
        f"{message}. The step learned from these images, by their place in their pool: {images} (all of them in "
        f"{folder / NAME}). {kept}: 'daso resume {folder} --on-divergence rollback' goes on from there with half "
        f"the learning rate",
        step,
        error.term,
    )
