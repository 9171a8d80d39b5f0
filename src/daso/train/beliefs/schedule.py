"""When what a run believes is written: now and then while it trains, and from its checkpoint when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daso.data.training_data import TrainingData
from daso.errors import RunError
from daso.files import Row, read_json
from daso.train.beliefs.collect import FILE, MOST_IMAGES, write_beliefs
from daso.train.config import RunConfig
from daso.train.encoder.embeddings import Progress
from daso.train.encoder.pretrained import refuse_other
from daso.train.folder.best import BEST, model_folder
from daso.train.folder.checkpoint import load_checkpoint
from daso.train.prepare import Prepared, describe_data, moved, prepare

SHARE = 0.02
"""Of the time of a training, that it may take to write now and then what it believes."""
FIRST = SHARE / 2
"""Of the time that the whole training will take, that it may take to write it for the first time, however early."""
OVERHEAD = 1.0
"""Seconds that it takes beside computing features: galleries, thumbnails, a map. A guess until it has been measured."""


class NowAndThen:
    """Writes ``beliefs.safetensors`` at evaluations, so seldom that it takes no more than 2% of the time.

    For the first time as soon as that will be no more than 1% of the time of the whole training, at the speed so far:
    mostly at the first evaluation. How long it will take is guessed from how long the evaluation took.

    Args:
        folder: of the run.
        clock: seconds that pass.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self.spent = 0.0
        self._clock = clock
        self._began = self._before = clock()
        self._cost: float | None = None

    def see(self, row: Row, prepared: Prepared) -> None:
        """Write, after a row of a training whose checkpoint is saved, if it is an evaluation and there is time.

        Raises:
            RunError: the file cannot be written.
        """
        start = self._clock()
        if row["event"] == "evaluate" and prepared.step < prepared.total_steps:
            due = self._affords(prepared, start)
            if prepared.processes is not None:
                due = prepared.processes.any(due)  # they compute features together
            if due:
                seed = prepared.config.train.seed
                write_beliefs(self.folder, prepared.training, prepared.data, seed, prepared.step)
                self._cost = self._clock() - start
                self.spent += self._cost
        self._before = self._clock()

    def _affords(self, prepared: Prepared, now: float) -> bool:
        cost = self._cost
        if cost is None:
            cost = OVERHEAD + (now - self._before) * _looked_at(prepared.data)
            whole = prepared.training.seconds * prepared.total_steps / max(prepared.step, 1)
            if cost <= FIRST * whole and not (self.folder / FILE).exists():
                return True
        return self.spent + cost <= SHARE * (now - self._began)


def _looked_at(data: TrainingData) -> float:
    """Return how many images are looked at for each that an evaluation measures on."""
    measured = sum(len(pool) for pool in (data.test, data.holdout) if pool is not None)
    pools = (data.unlabeled, data.labeled)
    others = sum(min(len(pool), MOST_IMAGES) for pool in pools if pool is not None)
    return (measured + others) / max(measured, 1)


def refuse_changed(folder: Path, saved: dict[str, Any], data: TrainingData) -> None:
    """Check that the data of a run is what it was when the run began.

    Args:
        folder: of the run.
        saved: its ``data.json``.
        data: as it is now.

    Raises:
        RunError: the split or the images are others.
    """
    found = describe_data(data)
    for key, what in (("split_fingerprint", "split"), ("images_fingerprints", "images")):
        if saved.get(key) != found[key]:
            raise RunError(
                f"the data of {folder} has changed: the fingerprint of its {what} was {saved.get(key)}, "
                f"the same options now give {found[key]}"
            )


def refresh_beliefs(
    folder: Path,
    warn: Callable[[str], None],
    *,
    data: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> int:
    """Write ``beliefs.safetensors`` from the newest whole checkpoint of a run, which may be training meanwhile.

    Of a complete run that keeps the network which was best on the hold-out, from that one.

    Args:
        folder: of the run.
        warn: is told of damaged checkpoints.
        data: where the run's files are now, if they have moved.
        device: another one than the run's.
        progress: is told how many images are embedded, of how many, where the encoder is frozen.

    Returns:
        The step of the checkpoint.

    Raises:
        RunError: the folder is no run, its data has changed, or it has no whole checkpoint.
    """
    config = RunConfig.read(folder)
    saved = read_json(folder / "data.json")
    checkpoint = load_checkpoint(folder / "checkpoints", warn)  # before any work: there may be none
    prepared = prepare(moved(config, data, device), folder=folder, progress=progress)
    refuse_changed(folder, saved, prepared.data)
    refuse_other(folder, saved, prepared.backbone)
    prepared = prepared.at(checkpoint)
    step, best = checkpoint.step, model_folder(folder, config.train.deploy)
    if best.name == BEST and (folder / "summary.json").exists():
        chosen = load_checkpoint(best, warn)
        step = chosen.step
        network = {name[len("average.") :]: value for name, value in chosen.tensors.items()}
        prepared.training.average.network.load_state_dict(network)
    write_beliefs(folder, prepared.training, prepared.data, config.train.seed, step)
    return step
