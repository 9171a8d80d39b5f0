"""A run: a configuration, a folder that explains itself, and the training between them.

The folder holds ``config.json`` (everything resolved), ``data.json`` (classes, counts, normalisation, the split's
fingerprint), ``environment.json``, ``metrics.jsonl`` (a row per event), ``checkpoints/`` and, once the training is
over, ``confusion.json`` (the answers on the test images, counted) and ``summary.json``; and, from time to time and at
the end, ``beliefs.safetensors`` (what the model believes about the unlabelled images).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from daso.errors import DivergedError, RunError
from daso.evaluate.summary import summarize
from daso.files import (
    append_line,
    flush_file,
    plain,
    read_json,
    read_rows,
    remove_leftovers,
    save_json,
    to_line,
    write_atomically,
)
from daso.nets.distributed import Processes
from daso.report.warnings.run_facts import watched_run
from daso.report.warnings.watch import Watch
from daso.train.beliefs.collect import write_beliefs
from daso.train.beliefs.schedule import NowAndThen, refuse_changed
from daso.train.calibration import calibrate_run
from daso.train.config import RunConfig
from daso.train.encoder.embeddings import Progress
from daso.train.encoder.pretrained import FOLDER as BACKBONE
from daso.train.encoder.pretrained import refuse_other
from daso.train.folder.best import BEST, exhausted, improves, model_folder
from daso.train.folder.checkpoint import (
    drop_later,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from daso.train.folder.divergence import (
    FACTOR,
    ROLLBACK,
    count_rollbacks,
    rate_factor,
    record_divergence,
)
from daso.train.folder.environment import describe_differences, describe_environment
from daso.train.folder.lock import claim_folder, lock_folder
from daso.train.loop import Row, count_confusions, fit, never
from daso.train.prepare import Prepared, describe_data, moved, prepare


def _notice(message: str) -> None:
    """Drop a message."""


def train_run(
    prepared: Prepared,
    folder: Path,
    stop: Callable[[], bool] = never,
    *,
    warn: Callable[[str], None] = _notice,
    like: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """Train into a new run folder, yielding the rows that ``fit`` yields, and one for each rollback.

    Args:
        prepared: the first stage.
        folder: of the run.
        stop: is asked after every step whether to save a checkpoint and end here, to be resumed.
        warn: is told of damaged checkpoints.
        like: the run that this one repeats, and what differs, for ``environment.json``.

    Raises:
        DivergedError: a loss or a weight became infinite or NaN, and the run is not, or no more, to be rolled back.
        RunError: the folder holds something already, another process has it, or it cannot be written.
    """
    with claim_folder(folder):
        environment = describe_environment(
            prepared.data.labeled.images.device, prepared.config.method
        )
        save_json(
            folder / "environment.json", environment | ({} if like is None else {"like": like})
        )
        save_json(
            folder / "data.json", describe_data(prepared.data, prepared.backbone, prepared.recipe)
        )
        if prepared.backbone is not None:
            prepared.backbone.save(folder / BACKBONE)
        save_json(folder / "config.json", prepared.config.to_dict())
        yield from _go_on(prepared, folder, stop, warn)


def resume_run(
    folder: Path,
    warn: Callable[[str], None] = _notice,
    *,
    data: Path | None = None,
    device: str | None = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    stop: Callable[[], bool] = never,
    processes: Processes | None = None,
    encoder: nn.Module | None = None,
    progress: Progress | None = None,
) -> tuple[Prepared, Iterator[Row]]:
    """Go on with a run from its newest whole checkpoint; a run without one starts anew.

    Rows after the checkpoint are dropped from ``metrics.jsonl``: the run writes them again.

    Args:
        folder: of the run.
        warn: is told of damaged checkpoints, and of what differs from where the run began.
        data: where the run's files are now, if they have moved.
        device: another one than the run's.
        on_divergence: another way than the run's to meet a divergence.
        stop: is asked after every step whether to save a checkpoint and end here.
        processes: this process among those that train together; None: it is alone.
        encoder: the module that ``prepare`` was given, if it was.
        progress: is told how many images are embedded, of how many, where the encoder is frozen.

    Returns:
        What was prepared, and the remaining rows, none if the run was complete.

    Raises:
        RunError: the folder is no run, another process has it, or its data or configuration has changed.
    """
    config = RunConfig.from_dict(read_json(folder / "config.json"), str(folder / "config.json"))
    if on_divergence is not None:
        config = dataclasses.replace(
            config, train=dataclasses.replace(config.train, on_divergence=on_divergence)
        )
    saved = read_json(folder / "data.json")
    lock = lock_folder(folder)
    try:
        prepared = prepare(
            moved(config, data, device),
            processes=processes,
            encoder=encoder,
            folder=folder,
            progress=progress,
        )
        refuse_changed(folder, saved, prepared.data)
        refuse_other(folder, saved, prepared.backbone)
        checkpoints = folder / "checkpoints"
        for place in (folder, checkpoints):
            remove_leftovers(place)
        if has_checkpoint(checkpoints):
            checkpoint = load_checkpoint(checkpoints, warn)
            if checkpoint.configuration != prepared.config.fingerprint():
                raise RunError(
                    f"the checkpoint is of another configuration: {folder / 'config.json'} has been changed since; "
                    f"undo that, or train anew with 'daso train'"
                )
            prepared = prepared.at(checkpoint)
        else:
            warn(f"{folder} has no checkpoint: it starts from the beginning")
    except BaseException:
        lock.close()
        raise

    def rows() -> Iterator[Row]:
        with lock:
            yield from _go_on(prepared, folder, stop, warn)

    return prepared, rows()


def _go_on(
    prepared: Prepared, folder: Path, stop: Callable[[], bool], warn: Callable[[str], None]
) -> Iterator[Row]:
    """Train on from where the training stands, writing rows, checkpoints and at the end the summary."""
    if prepared.processes is not None:
        stop = _agreed(stop, prepared.processes)
    metrics = folder / "metrics.jsonl"
    rows = [row for row in read_rows(metrics) if row["step"] <= prepared.step]
    write_atomically(metrics, "".join(map(to_line, rows)).encode())
    drop_later(folder / "checkpoints" / BEST, prepared.step)
    if 0 < prepared.step < prepared.total_steps:
        environment = read_json(folder / "environment.json")
        now = describe_environment(prepared.data.labeled.images.device, prepared.config.method)
        if differences := describe_differences(environment, now):
            warn(
                f"not as when the run began: {'; '.join(differences)}; it may not end as it would have"
            )
        environment.setdefault("resumed", []).append({"from_step": prepared.step, **now})
        save_json(folder / "environment.json", environment)
    facts = watched_run(
        prepared.config.to_dict(), describe_data(prepared.data, recipe=prepared.recipe)
    )
    watch = Watch(facts, rows)
    last, patience = len(prepared.plan.stages()) - 1, prepared.config.train.patience
    beliefs = NowAndThen(folder)
    while True:
        prepared.training.rate_factor = rate_factor(rows)
        early = prepared.stage == last and exhausted(rows, last, patience)
        try:
            for row in () if early else _train_stage(prepared, folder, rows, watch, stop, beliefs):
                rows.append(row)
                yield row
                if (
                    row["event"] == "evaluate"
                    and prepared.stage == last
                    and exhausted(rows, last, patience)
                ):
                    early = True
                    break
        except DivergedError as error:
            prepared, rows = _roll_back(prepared, folder, error, warn)
            watch = Watch(facts, rows)
            yield rows[-1]
            continue
        finished = prepared.training.step == prepared.training.options.steps
        if early or (finished and prepared.stage == last):
            break
        if stop():
            return
        prepared = prepared.next_stage()
    best = model_folder(folder, prepared.config.train.deploy)
    step = prepared.step
    if best.name == BEST:
        chosen = load_checkpoint(best, warn)
        step = chosen.step
        network = {n[len("average.") :]: t for n, t in chosen.tensors.items()}
        prepared.training.average.network.load_state_dict(network)
    confusions = count_confusions(prepared.training.average.network, prepared.data)
    if confusions is not None:
        write_atomically(folder / "confusion.json", to_line(confusions).encode())
    write_beliefs(folder, prepared.training, prepared.data, prepared.config.train.seed, step)
    calibrate_run(
        folder, prepared.data, warn, None if prepared.backbone is None else prepared.backbone.given
    )
    summary = {
        "method": prepared.config.method,
        "source": prepared.config.source,
        "seed": prepared.config.train.seed,
        "steps": prepared.step,
        "seconds": round(prepared.training.seconds, 3),
        "split_fingerprint": prepared.data.fingerprint,
        "deployed_step": step,
        "stopped_early": early,
        **summarize([row for row in rows if row.get("stage", 0) == last]),
    }
    save_json(folder / "summary.json", plain(summary))


def _train_stage(
    prepared: Prepared,
    folder: Path,
    rows: Sequence[Row],
    watch: Watch,
    stop: Callable[[], bool],
    beliefs: NowAndThen,
) -> Iterator[Row]:
    """Train to the end of a stage, or until *stop*, writing rows, warnings among them, and checkpoints.

    *rows* are those so far, which the caller adds to.
    """
    last = len(prepared.plan.stages()) - 1
    metrics = folder / "metrics.jsonl"
    several = len(prepared.plan.stages()) > 1
    saved, period = time.monotonic(), 60 * prepared.config.train.save_minutes

    def due() -> bool:
        return time.monotonic() - saved >= period

    if prepared.processes is not None:
        due = _agreed(due, prepared.processes)

    def pause() -> bool:
        return stop() or due()

    for row in fit(prepared.training, prepared.batches, prepared.data, pause):
        if several:
            row |= {"step": row["step"] + prepared.first_step, "stage": prepared.stage}
        if row["event"] == "evaluate" and (handed_on := prepared.plan.describe()):
            row["plan"] = handed_on
        if row["event"] != "pause":
            if warnings := watch.see(row):
                row["warnings"] = warnings
            append_line(metrics, row)
        if row["event"] != "train":
            flush_file(metrics)  # a checkpoint vouches for the rows before it, too
            tensors = prepared.tensors()
            if prepared.processes is not None:
                prepared.processes.align(tensors.values())
            if prepared.config.train.deploy == "best" and improves(rows, row, last):
                # Before the checkpoint, from which a run goes on: what that one has seen is not measured again.
                network = {
                    name: value for name, value in tensors.items() if name.startswith("average.")
                }
                _save(prepared, folder / "checkpoints" / BEST, network)
            _save(prepared, folder / "checkpoints", tensors)
            saved = time.monotonic()
        beliefs.see(row, prepared)
        if row["event"] != "pause":
            yield row
        if row["event"] != "train" and stop():
            return


def _save(prepared: Prepared, folder: Path, tensors: dict[str, Tensor]) -> None:
    save_checkpoint(
        folder,
        tensors,
        prepared.step,
        prepared.training.seconds,
        prepared.config.fingerprint(),
        prepared.training.network.output,
    )


def _agreed(ask: Callable[[], bool], processes: Processes) -> Callable[[], bool]:
    """Return a question whose answer is yes in all processes once it is yes in any."""
    return lambda: processes.any(ask())


def _roll_back(
    prepared: Prepared, folder: Path, error: DivergedError, warn: Callable[[str], None]
) -> tuple[Prepared, list[Row]]:
    """Take a run that diverged back to its newest checkpoint; return it, and its rows with one that says so.

    Raises:
        DivergedError: the run is to stop, or was rolled back often enough.
    """
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    rows, options = read_rows(metrics), prepared.config.train
    step = error.step + prepared.first_step
    checkpoint = load_checkpoint(checkpoints, warn) if has_checkpoint(checkpoints) else None
    images = prepared.batches.indices(error.step - 1)
    full = record_divergence(
        folder, error, step, images, None if checkpoint is None else checkpoint.step
    )
    if options.on_divergence == "stop" or count_rollbacks(rows) >= options.rollbacks:
        raise full from None
    prepared = prepared.begin_stage(0) if checkpoint is None else prepared.at(checkpoint)
    drop_later(checkpoints / BEST, prepared.step)
    rows = [row for row in rows if row["step"] <= prepared.step]
    factor = FACTOR * rate_factor(rows)
    warning = {
        "kind": ROLLBACK,
        "message": f"{error} of the run's {step:,}: back to step {prepared.step:,}",
        "advice": f"The learning rate is {factor:g} times what it was to be from here on.",
        "classes": [],
    }
    row = {"event": ROLLBACK, "step": prepared.step, "diverged": step, "term": error.term}
    rows.append({**row, "learning_rate_factor": factor, "warnings": [warning]})
    write_atomically(metrics, "".join(map(to_line, rows)).encode())
    return prepared, rows
