"""Handle diverged runs: NaN or infinity in a loss or a weight."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from daso.errors import DivergedError, RunError, typed
from daso.files import Row, save_json

ROLLBACK = "rollback"
"""Event of the row that records a return to a checkpoint."""
FACTOR = 0.5
"""Factor of the learning rate per rollback."""
NAME = "divergence.json"
NAMED_IMAGES = 8
"""Images of each pool that the message names."""


def rate_factor(rows: Sequence[Row]) -> float:
    """Return the factor of the learning rate after the rollbacks among a run's rows."""
    return FACTOR ** count_rollbacks(rows)


def count_rollbacks(rows: Sequence[Row]) -> int:
    """Return the number of rollbacks among a run's rows."""
    return sum(row["event"] == ROLLBACK for row in rows)


def record_divergence(
    folder: Path, error: DivergedError, step: int, batch: dict[str, list[int]], saved: int | None
) -> DivergedError:
    """Write ``divergence.json`` into a run folder; return the error with all details.

    *step* counts from 1 and includes earlier stages; *batch* has its images by pool.
    """
    message = str(error).replace(f"step {error.step}", f"step {step}", 1)
    details = {"step": step, "term": error.term, "message": message, "images": batch}
    with contextlib.suppress(RunError):  # a full disk must not hide the divergence
        save_json(folder / NAME, details | {"checkpoint": saved})
    images = "; ".join(
        f"{name} {', '.join(map(str, index[:NAMED_IMAGES]))}"
        + (", ..." if len(index) > NAMED_IMAGES else "")
        for name, index in batch.items()
    )
    kept = "No checkpoint was saved" if saved is None else f"The checkpoint of step {saved} is kept"
    start = "starts again" if saved is None else "continues from there"
    text = (
        f"{message}. Images of the step, by index in their pool: {images} (all are in "
        f"{folder / NAME}). {kept}: 'daso resume {typed(folder)} --on-divergence rollback' "
        f"{start} with half the learning rate"
    )
    return DivergedError(text, step, error.term)
