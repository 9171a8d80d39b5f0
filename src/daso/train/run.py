"""Train a run: from a configuration into a folder that explains itself.

The folder holds ``config.json`` (resolved), ``data.json``, ``environment.json``, ``metrics.jsonl``
(a row per event), ``checkpoints/`` and ``beliefs.safetensors`` (about the unlabeled images). A
finished run adds ``confusion.json`` (predictions on the test images, counted) and ``summary.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from daso.errors import DivergedError
from daso.evaluate.summary import summarize
from daso.files import (
    Row,
    append_line,
    flush_file,
    read_json,
    read_rows,
    remove_leftovers,
    save_sealed,
    seal,
    to_line,
    write_atomically,
)
from daso.nets.distributed import Processes
from daso.report.warnings.run_facts import watched_run
from daso.report.warnings.watch import Watch
from daso.train.beliefs.collect import write_beliefs
from daso.train.beliefs.schedule import BeliefsWriter
from daso.train.calibration import calibrate_run
from daso.train.encoder.embeddings import EmbeddedData, Progress
from daso.train.encoder.precision import choose_precision
from daso.train.encoder.pretrained import FOLDER as BACKBONE
from daso.train.evaluation import answers_of, count_confusions
from daso.train.folder.best import BEST, exhausted, improves
from daso.train.folder.checkpoint import (
    drop_later,
    has_checkpoint,
    load_checkpoint,
    refuse_changed_configuration,
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
from daso.train.loop import fit, never
from daso.train.prepare import Prepared, prepare_again
from daso.train.run_data import describe_data, read_config


def train_run(
    prepared: Prepared,
    folder: Path,
    stop: Callable[[], bool] = never,
    *,
    warn: Callable[[str], None] = lambda message: None,
    like: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """Train into a new run folder, yielding the rows of ``fit`` and one for each rollback.

    Args:
        stop: called after every step; if true, a checkpoint is saved and the training ends.
        like: the run that this one repeats, and the differences, for ``environment.json``.

    Raises:
        DivergedError: a loss or a weight became infinite or NaN, and no rollback is left.
        RunError: the folder is not empty, another process holds it, or it cannot be written.
    """
    with claim_folder(folder):
        environment = _environment(prepared) | ({} if like is None else {"like": like})
        save_sealed(folder / "environment.json", environment)
        data = describe_data(prepared.data, prepared.backbone, prepared.recipe)
        save_sealed(folder / "data.json", data)
        if prepared.backbone is not None:
            prepared.backbone.save(folder / BACKBONE)
        save_sealed(folder / "config.json", prepared.config.to_dict())
        yield from _continue(prepared, folder, stop, warn)


def resume_run(
    folder: Path,
    warn: Callable[[str], None] = lambda message: None,
    *,
    data: Path | None = None,
    device: str | None = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    stop: Callable[[], bool] = never,
    processes: Processes | None = None,
    encoder: nn.Module | None = None,
    progress: Progress | None = None,
) -> tuple[Prepared, Iterator[Row]]:
    """Resume a run from its newest complete checkpoint, or from the beginning without one.

    Later rows are dropped from ``metrics.jsonl``: the run writes them again.

    Args:
        on_divergence: replaces the run's option.
        stop: see ``train_run``.
        encoder: the custom module that ``prepare`` was given, if any.

    Returns:
        The prepared stage, and the remaining rows; none if the run was complete.

    Raises:
        RunError: the folder is no run, another process holds it, or its data or configuration
            changed.
    """
    config = read_config(folder, data, device)
    if on_divergence is not None:
        config = replace(config, train=replace(config.train, on_divergence=on_divergence))
    lock = lock_folder(folder)
    try:
        prepared = prepare_again(
            folder, config, processes=processes, encoder=encoder, progress=progress
        )
        checkpoints = folder / "checkpoints"
        for place in (folder, checkpoints):
            remove_leftovers(place)
        if has_checkpoint(checkpoints):
            checkpoint = load_checkpoint(checkpoints, warn)
            refuse_changed_configuration(
                folder, prepared.config.fingerprint(), checkpoint.configuration
            )
            prepared = prepared.at(checkpoint)
            _warn_of_lost_rows(prepared, folder, warn)
        else:
            warn(f"{folder} has no checkpoint: it starts from the beginning")
    except BaseException:
        lock.close()
        raise

    def rows() -> Iterator[Row]:
        with lock:
            yield from _continue(prepared, folder, stop, warn)

    return prepared, rows()


def _continue(
    prepared: Prepared, folder: Path, stop: Callable[[], bool], warn: Callable[[str], None]
) -> Iterator[Row]:
    """Train from the current step, writing rows, checkpoints and finally the summary."""
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["step"] <= prepared.step]
    _write_rows(folder, rows)
    drop_later(folder / "checkpoints" / BEST, prepared.step)
    if 0 < prepared.step < prepared.total_steps:
        _record_resumption(prepared, folder, warn)
    patience = prepared.config.train.patience

    def stops_early() -> bool:
        return prepared.is_last_stage and exhausted(rows, prepared.stage, patience)

    beliefs = BeliefsWriter(folder)
    try:
        while not stops_early():
            prepared.training.rate_factor = rate_factor(rows)
            try:
                for row in _train_stage(prepared, folder, rows, stop, beliefs):
                    rows.append(row)
                    yield row
                    if row["event"] == "evaluate" and stops_early():
                        break
            except DivergedError as error:
                prepared, rows = _roll_back(prepared, folder, error, warn)
                yield rows[-1]
                continue
            finished = prepared.training.step == prepared.training.options.steps
            if stops_early() or (finished and prepared.is_last_stage):
                break
            if prepared.any_process(stop()):
                return
            prepared = prepared.next_stage()
    finally:
        prepared.batches.close()
    _finish(prepared, folder, rows, stops_early(), warn)


def _warn_of_lost_rows(prepared: Prepared, folder: Path, warn: Callable[[str], None]) -> None:
    """Warn if rows that were written before the checkpoint are gone."""
    path, options = folder / "metrics.jsonl", prepared.config.train
    steps = [row["step"] for row in read_rows(path) if row["step"] <= prepared.step]
    last = max(steps, default=0)
    if prepared.step - last >= min(options.log_every, options.evaluation_period):
        warn(
            f"{path} has no row after step {last:,}, the checkpoint is of step {prepared.step:,}: "
            "the numbers between them are lost, and the summary is made of the others"
        )


def _write_rows(folder: Path, rows: Sequence[Row]) -> None:
    write_atomically(folder / "metrics.jsonl", "".join(to_line(seal(row)) for row in rows).encode())


def _environment(prepared: Prepared) -> dict[str, Any]:
    return describe_environment(prepared.data.labeled.images.device, prepared.config.method)


def _record_resumption(prepared: Prepared, folder: Path, warn: Callable[[str], None]) -> None:
    environment, now = read_json(folder / "environment.json"), _environment(prepared)
    if differences := describe_differences(environment, now):
        changes = "; ".join(differences)
        warn(f"the environment has changed since the run began: {changes}; the result may differ")
    began = read_json(folder / "data.json").get("embedding", {}).get("digest")
    if isinstance(prepared.data, EmbeddedData) and began not in (None, prepared.data.digest):
        warn("the embeddings were computed again and differ slightly; the result may differ")
    if prepared.training.network.precision == "bfloat16":
        frozen = prepared.config.train.freeze
        choice = choose_precision(prepared.data.labeled.images.device, frozen)
        if choice.precision == "float32":
            warn(f"the run began in bfloat16 and goes on in it, but here {choice.reason}")
    environment.setdefault("resumed", []).append({"from_step": prepared.step, **now})
    save_sealed(folder / "environment.json", environment)


def _finish(
    prepared: Prepared, folder: Path, rows: list[Row], early: bool, warn: Callable[[str], None]
) -> None:
    config, training = prepared.config, prepared.training
    last = len(prepared.plan.stages()) - 1
    best = prepared.load_best(folder, warn)
    deployed = prepared.step if best is None else best
    answers = answers_of(training, prepared.data)
    confusions = count_confusions(answers, prepared.data)
    if confusions is not None:
        write_atomically(folder / "confusion.json", to_line(seal(confusions)).encode())
    write_beliefs(folder, training, prepared.data, config.train.seed, deployed)
    custom = None if prepared.backbone is None else prepared.backbone.given
    calibrate_run(folder, prepared.data, answers, warn, custom)
    summary = {
        "method": config.method,
        "source": config.source,
        "seed": config.train.seed,
        "steps": prepared.step,
        "seconds": round(training.seconds, 3),
        "split_fingerprint": prepared.data.fingerprint,
        "deployed_step": deployed,
        "stopped_early": early,
        **summarize([row for row in rows if row.get("stage", 0) == last]),
    }
    save_sealed(folder / "summary.json", summary)


def _train_stage(
    prepared: Prepared,
    folder: Path,
    rows: Sequence[Row],
    stop: Callable[[], bool],
    beliefs: BeliefsWriter,
) -> Iterator[Row]:
    """Train to the end of a stage, or until *stop*; the caller appends to *rows*, those so far."""
    last = len(prepared.plan.stages()) - 1
    data = describe_data(prepared.data, recipe=prepared.recipe)
    watch = Watch(watched_run(prepared.config.to_dict(), data), rows)
    metrics, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    saved, period = time.monotonic(), 60 * prepared.config.train.save_minutes

    def pause() -> bool:
        return prepared.any_process(stop() or time.monotonic() - saved >= period)

    for row in fit(prepared.training, prepared.batches, prepared.data, pause, prepared.readout):
        if prepared.stage > 0 and prepared.training.step == 0:
            continue  # the checkpoint of this step is that of the stage before
        if last > 0:
            row |= {"step": row["step"] + prepared.first_step, "stage": prepared.stage}
        if row["event"] == "evaluate" and (passed_on := prepared.plan.describe()):
            row["plan"] = passed_on
        if row["event"] != "pause":
            if warnings := watch.see(row):
                row["warnings"] = warnings
            append_line(metrics, row)
        if row["event"] != "train":
            flush_file(metrics)  # before the checkpoint that vouches for these rows
            tensors = prepared.tensors()
            if prepared.processes is not None:
                prepared.processes.align(tensors.values())
            if prepared.config.train.deploy == "best" and improves(rows, row, last):
                # Before the checkpoint from which a run resumes: it does not evaluate again.
                network = {n: value for n, value in tensors.items() if n.startswith("average.")}
                _save(prepared, checkpoints / BEST, network)
            _save(prepared, checkpoints, tensors)
            saved = time.monotonic()
        beliefs.see(row, prepared)
        if row["event"] != "pause":
            yield row
        if row["event"] != "train" and prepared.any_process(stop()):
            return


def _save(prepared: Prepared, folder: Path, tensors: dict[str, Tensor]) -> None:
    training, fingerprint = prepared.training, prepared.config.fingerprint()
    output = training.average.network.output
    save_checkpoint(folder, tensors, prepared.step, training.seconds, fingerprint, output)


def _roll_back(
    prepared: Prepared, folder: Path, error: DivergedError, warn: Callable[[str], None]
) -> tuple[Prepared, list[Row]]:
    """Take a diverged run back to its newest checkpoint; return it and its rows.

    The last row records the rollback. Without a rollback left, the error is raised.
    """
    checkpoints = folder / "checkpoints"
    rows, options = read_rows(folder / "metrics.jsonl"), prepared.config.train
    step = error.step + prepared.first_step
    checkpoint = load_checkpoint(checkpoints, warn) if has_checkpoint(checkpoints) else None
    images = prepared.batches.indices(error.step - 1)
    saved = None if checkpoint is None else checkpoint.step
    full = record_divergence(folder, error, step, images, saved)
    if options.on_divergence == "stop" or count_rollbacks(rows) >= options.rollbacks:
        raise full from None
    prepared = prepared.begin_stage(0) if checkpoint is None else prepared.at(checkpoint)
    drop_later(checkpoints / BEST, prepared.step)
    rows = [row for row in rows if row["step"] <= prepared.step]
    factor = FACTOR * rate_factor(rows)
    warning = {
        "kind": ROLLBACK,
        "message": f"{error} (step {step:,} of the run): back to step {prepared.step:,}",
        "advice": f"From here on, the learning rate is multiplied by {factor:g}.",
        "classes": [],
    }
    row = {"event": ROLLBACK, "step": prepared.step, "diverged": step, "term": error.term}
    rows.append({**row, "learning_rate_factor": factor, "warnings": [warning]})
    _write_rows(folder, rows)
    return prepared, rows
