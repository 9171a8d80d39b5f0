"""A training from its parsed request to its run folder, new or resumed."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from daso.balance import balanced_by
from daso.cli.processes.signals import Stop, if_stopped
from daso.cli.processes.torchrun import Team, team
from daso.cli.terminal.counters import embedding_progress, notice, tell
from daso.cli.terminal.follow import follow, view_of
from daso.cli.terminal.tables import class_table, summary_table, wide_console
from daso.cli.training import notes
from daso.cli.training.command import REPEAT, TrainRequest
from daso.cli.training.defaults import configure, configure_like
from daso.cli.training.like import compare_with
from daso.cli.training.refusals import refuse_early
from daso.cli.training.source import defaults_for, read_source
from daso.errors import RunError, how_many, typed
from daso.evaluate.calibration import FEWEST_IMAGES
from daso.files import Row, read_json
from daso.report.wording import duration, percent
from daso.track import check_installed, tracked, used_before
from daso.train.allocator import keep_freed_memory
from daso.train.calibration import read_calibration
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.encoder.precision import choose_precision
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import CONFIG, free_folder, refuse_taken
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from daso.train.run_data import describe_data, open_configured


def announce(prepared: Prepared, folder: Path) -> None:
    """Print the coming training and notes about its data to standard error."""
    data, config, batches = prepared.data, prepared.config, prepared.batches
    pools = {"unlabeled": data.unlabeled, "hold-out": data.holdout, "test": data.test}
    parameters = sum(p.numel() for p in prepared.training.network.parameters())
    shape = "x".join(map(str, data.labeled.images.shape[2:]))
    images = f"images {shape}"
    if isinstance(data, EmbeddedData):
        how = "" if data.engine == "torch" else f" by {data.engine}"
        images = f"images, embedded as {shape} numbers{how},"
    elif data.are_vectors:
        images = f"vectors of {shape}"
    unlabeled = f" and {batches.unlabeled_batch} unlabeled" if batches.unlabeled_views else ""
    tell(
        f"{config.source}: {len(data.labeled)} labeled {images} of {len(data.class_names)} classes "
        f"({data.class_counts.max()} of the most frequent, {data.class_counts.min()} of the rarest)"
        + "".join(f", {len(pool)} {name}" for name, pool in pools.items() if pool is not None)
    )
    tell(
        f"{config.method}: {config.train.network}, {parameters:,} parameters, "
        f"{prepared.total_steps:,} steps of {config.train.batch} labeled images{unlabeled}, "
        f"on {data.labeled.images.device}, {prepared.training.network.precision}"
    )
    tell(f"run folder: {folder}")
    for note in notes.notes_on_data(prepared):
        tell(f"note: {note}")


def conclude(prepared: Prepared, folder: Path) -> None:
    """Draw the plots of a finished run and print its results."""
    # Matplotlib takes most of a second, and memory that training may need.
    from daso.report.figures.draw import draw_run

    summary = read_json(folder / "summary.json")
    try:
        with if_stopped(f"the run is complete; 'daso plot {typed(folder)}' draws its plots"):
            draw_run(folder)
    except RunError as error:
        tell(f"no plots: {error}; 'daso plot {typed(folder)}' draws them")
    console = wide_console()
    if "measured_on" in summary:
        data = describe_data(prepared.data, recipe=prepared.recipe)
        balancing = balanced_by(prepared.config.to_dict(), data)
        names, counts = prepared.data.class_names, prepared.data.class_counts.tolist()
        measured = data[f"{summary['measured_on']}_counts"]
        console.print(summary_table(summary, balancing, measured, counts))
        when = f"median of last {summary['evaluations']}" if summary["evaluations"] > 1 else ""
        console.print(class_table(names, counts, summary["median_of_last"], when))
    else:
        print(f"no test or hold-out images: nothing was measured; {notes.to_hold_out(prepared, 1)}")
    calibration = read_calibration(folder, summary["deployed_step"])
    if (answered := calibration.answered) is not None:
        print(
            f"calibration error of daso predict: {percent(answered['error'])}%, with a temperature "
            f"of {calibration.temperature:.3f} (fitted on {calibration.images:,} "
            f"{'held-out' if calibration.given is None else 'further labeled'} images)"
        )
    if calibration.note is not None:
        tell(
            f"note: probabilities are not calibrated: {calibration.note}. Predicted classes are "
            f"not affected. To calibrate, {notes.to_hold_out(prepared, FEWEST_IMAGES)}; or give "
            f"{FEWEST_IMAGES} other labeled images: 'daso calibrate {typed(folder)} IMAGES'"
        )
    early = f" of {prepared.total_steps:,}, stopped early" if summary.get("stopped_early") else ""
    steps = f"{how_many(summary['steps'], 'step')}{early}"
    print(f"{steps} in {duration(summary['seconds'])}; run folder: {folder}")


def follow_run(
    prepared: Prepared,
    rows: Iterator[Row],
    folder: Path,
    stop: Stop,
    together: Team | None = None,
    *,
    quiet: bool = False,
    track: Sequence[str] = (),
) -> int:
    """Follow a training and return the exit status, 0 if it was completed.

    A first signal ends the training after a checkpoint, a second one at once. The first of several
    processes, *together*, tracks it and prints its results.
    """
    keep_freed_memory()
    config, is_first = prepared.config, together is not None and together.is_first
    seen = tracked(rows, track if is_first else (), folder, tell, prepared.step)
    try:
        with contextlib.closing(seen), stop.listening():
            label = f"{config.method} on {Path(config.source).name}"
            follow(seen, view_of(prepared, label), quiet=quiet)
    except KeyboardInterrupt:
        stop.signal = stop.signal or signal.SIGINT
    if not stop() or (folder / "summary.json").exists():
        if is_first:
            conclude(prepared, folder)
        return 0
    saved = newest_step(folder / "checkpoints")
    if not (folder / CONFIG).exists():
        tell(f"stopped before the training began; {REPEAT}")
    elif saved is None:
        tell(f"stopped before the first checkpoint; 'daso resume {typed(folder)}' starts again")
    else:
        tell(
            f"stopped after step {saved:,} of {prepared.total_steps:,}; "
            f"'daso resume {typed(folder)}' resumes from there"
        )
    return stop.status


def resume(
    folder: Path,
    together: Team,
    *,
    data: Path | None = None,
    device: str | None = None,
    on_divergence: Literal["stop", "rollback"] | None = None,
    quiet: bool = False,
) -> int:
    """Resume a run, alone or as one of the processes of torchrun; return the exit status."""
    stop = Stop()
    with together.folder(folder, resumed=True) as own:
        work = partial(
            resume_run,
            own,
            notice,
            data=data,
            device=device if together.processes is None else together.device,
            on_divergence=on_divergence,
            stop=stop,
            processes=together.processes,
            progress=embedding_progress(),
        )
        with if_stopped("the run is as before, and the same command resumes it"):
            prepared, rows = together.do(work)
        together.compare(prepared)
        summary = folder / "summary.json"  # of fewer steps, if --patience ended them
        steps = read_json(summary)["steps"] if summary.exists() else prepared.total_steps
        if prepared.step == steps:
            tell(f"{folder} is complete")
        elif not quiet:
            announce(prepared, folder)
            tell(f"resuming from step {prepared.step:,}")
        track = used_before(folder)
        return follow_run(prepared, rows, own, stop, together, quiet=quiet, track=track)


def train(request: TrainRequest) -> int:
    """Train, alone or as one of the processes of torchrun; return the exit status."""
    command = request.command
    check_installed(command.track)
    with team(request.train.device) as together:
        stem = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(command.source).name).strip("-.") or "data"
        method = re.sub(r"[^A-Za-z0-9.]+", "-", request.method)
        folder = command.out or free_folder(f"{stem}-{method}")
        if together.restarted and (folder / "config.json").exists():
            return resume(folder, together, quiet=command.quiet)
        if together.is_first:
            refuse_taken(folder)
        with if_stopped(REPEAT):
            together.do(partial(refuse_early, request, shared=together.processes is not None))
        if together.processes is not None:
            request = request.on_device(together.device)
        with if_stopped(REPEAT):
            prepared, like = _prepare(request, folder, together)
        stop = Stop()
        with together.folder(folder) as own:
            rows = train_run(prepared, own, stop, warn=tell, like=like)
            quiet, track = command.quiet, command.track
            return follow_run(prepared, rows, own, stop, together, quiet=quiet, track=track)


def _prepare(
    request: TrainRequest, folder: Path, together: Team
) -> tuple[Prepared, dict[str, Any] | None]:
    """Read the images and prepare the training; print what there is to know about it.

    The source's images that the split does not take are freed on return.
    """
    command = request.command
    if command.like is not None:
        config = configure_like(command.like, request)
        source = open_configured(config)
    else:
        source = read_source(request)
        config, chosen = configure(request, defaults_for(request, source))
        for text in () if command.quiet else chosen:
            tell(text)
    idle = notes.idle_options(config, request.given, source)
    for note in (*idle, *notes.stripped_classes(config, source)):
        tell(f"note: {note}")
    for path, reason in source.skipped:
        tell(f"skipped {path}: {reason}")
    for note in source.notes:
        tell(f"note: {note}")
    shared, progress = together.processes, embedding_progress()
    keep_freed_memory()  # embedding gains; reading would keep images that are not taken
    prepared = together.do(partial(prepare, config, source, processes=shared, progress=progress))
    together.compare(prepared)
    if not command.quiet:
        if config.train.precision == "auto" and source.train.images.ndim == 4:
            device = prepared.data.labeled.images.device
            tell(choose_precision(device, config.train.freeze).reason)
        announce(prepared, folder)
    longest = max(stage.steps for stage in prepared.plan.stages() if stage.method is None)
    remarks = prepared.recipe.remarks(prepared.config.method_options, longest)
    for note in (*remarks, *notes.pretrained_may_help(prepared)):
        tell(f"note: {note}")
    like = None if command.like is None else compare_with(command.like, prepared, source, tell)
    return prepared, like
