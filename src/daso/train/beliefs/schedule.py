"""Decide when to write beliefs.safetensors: periodically during training, or on demand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from daso.data.training_data import TrainingData
from daso.files import Row
from daso.train.beliefs.collect import FILE, MOST_IMAGES, write_beliefs
from daso.train.encoder.embeddings import Progress
from daso.train.folder.checkpoint import load_checkpoint
from daso.train.prepare import Prepared, prepare_again
from daso.train.run_data import read_config

SHARE = 0.02
"""Share of the training time that writing beliefs may take."""
FIRST_SHARE = SHARE / 2
"""Share of the whole run's expected time that the first writing may take, however early."""
OVERHEAD_SECONDS = 1.0
"""Assumed time for galleries, thumbnails and the map until it has been measured."""


class BeliefsWriter:
    """Writes ``beliefs.safetensors`` at evaluations, within 2% of the time.

    The first file is written as soon as it takes no more than 1% of the whole run's expected time,
    mostly at the first evaluation. The time is estimated from that of the evaluation.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.spent = 0.0
        self._clock = clock
        self._began = self._before = clock()
        self._cost: float | None = None

    def see(self, row: Row, prepared: Prepared) -> None:
        """Write beliefs if a row is an evaluation and time allows; its checkpoint must be saved."""
        start = self._clock()
        due = row["event"] == "evaluate" and prepared.step < prepared.total_steps
        if due and prepared.any_process(self._affords(prepared, start)):  # they compute together
            seed = prepared.config.train.seed
            write_beliefs(self.folder, prepared.training, prepared.data, seed, prepared.step)
            self._cost = self._clock() - start
            self.spent += self._cost
        self._before = self._clock()

    def _affords(self, prepared: Prepared, now: float) -> bool:
        cost = self._cost
        if cost is None:
            cost = OVERHEAD_SECONDS + (now - self._before) * _relative_images(prepared.data)
            whole = prepared.training.seconds * prepared.total_steps / max(prepared.step, 1)
            if cost <= FIRST_SHARE * whole and not (self.folder / FILE).exists():
                return True
        return self.spent + cost <= SHARE * (now - self._began)


def _relative_images(data: TrainingData) -> float:
    measured = sum(len(pool) for pool in (data.test, data.holdout) if pool is not None)
    pools = (data.unlabeled, data.labeled)
    others = sum(min(len(pool), MOST_IMAGES) for pool in pools if pool is not None)
    return others / max(measured, 1)


def refresh_beliefs(
    folder: Path,
    warn: Callable[[str], None],
    *,
    data: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write ``beliefs.safetensors`` from a run's newest complete checkpoint; return its step.

    The run may be training. A complete run that deploys its best network uses that one.

    Raises:
        RunError: the folder is no run, its data has changed, or it has no complete checkpoint.
    """
    config = read_config(folder, data, device)
    checkpoint = load_checkpoint(folder / "checkpoints", warn)  # fails before any work
    prepared = prepare_again(folder, config, progress=progress).at(checkpoint)
    step = checkpoint.step
    if (folder / "summary.json").exists():
        best = prepared.load_best(folder, warn)
        step = step if best is None else best
    write_beliefs(folder, prepared.training, prepared.data, config.train.seed, step)
    return step
