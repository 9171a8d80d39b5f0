"""A training from its parsed command to its run folder; and what resumed and validated runs share with it."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from daso.balance import balancing_parts
from daso.cli.processes.signals import Stop
from daso.cli.processes.torchrun import Team, team
from daso.cli.terminal.counters import decoding_progress, embedding_progress
from daso.cli.terminal.follow import follow
from daso.cli.terminal.live_view import duration
from daso.cli.terminal.tables import class_table, summary_table, wide_console
from daso.cli.training.command import OWN_METHOD, TrainCommand, given_options
from daso.cli.training.defaults import to_config
from daso.cli.training.like import compare_with, config_like
from daso.cli.training.notes import from_nothing, idle_options, late_blend
from daso.cli.training.setting import as_in_paper
from daso.compose import Recipe
from daso.data.images.cache import Cache
from daso.data.open import NAMES, is_named, open_source
from daso.data.source import Source
from daso.errors import OptionError, RunError
from daso.evaluate.calibration import FEWEST_IMAGES
from daso.files import Row, read_json
from daso.presets.benchmarks import PRESETS, meant
from daso.presets.own_data import choose_for
from daso.presets.sources import CPU_SIZE, SOURCES, SourceDefaults
from daso.track import Tracking, check_installed
from daso.train.allocator import keep_freed_memory
from daso.train.calibration import read_calibration
from daso.train.encoder.pretrained import is_pretrained
from daso.train.encoder.resolution import ENLARGED, choose_resolution
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import refuse_taken
from daso.train.prepare import Prepared, describe_data, open_configured, prepare
from daso.train.run import train_run
from daso.train.step.state import choose_device


def free_folder(source: str, method: str) -> Path:
    """Return the first of runs/SOURCE-METHOD-1, -2, ... that does not exist."""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(source).name or "data").strip("-.") or "data"
    name = f"{stem}-{re.sub(r'[^A-Za-z0-9.]+', '-', method)}"
    return next(
        folder for n in itertools.count(1) if not (folder := Path("runs") / f"{name}-{n}").exists()
    )


def announce(prepared: Prepared, folder: Path) -> None:
    """Print, to standard error, what is about to be trained on what."""
    data, config = prepared.data, prepared.config
    pools = {"unlabelled": data.unlabeled, "hold-out": data.holdout, "test": data.test}
    parameters = sum(p.numel() for p in prepared.training.network.parameters())
    shape = "x".join(map(str, data.labeled.images.shape[2:]))
    images = f"images {shape}"
    if data.are_vectors:
        images = (
            f"vectors of {shape}"
            if not config.train.freeze
            else f"images, embedded as {shape} numbers,"
        )
    print(
        f"{config.source}: {len(data.labeled)} labelled {images} of {len(data.class_names)} classes "
        f"({data.class_counts.max()} of the most frequent, {data.class_counts.min()} of the rarest)"
        + "".join(f", {len(pool)} {name}" for name, pool in pools.items() if pool is not None)
        + f"\n{config.method}: {config.train.network}, {parameters:,} parameters, "
        f"{prepared.total_steps:,} steps of {config.train.batch} labelled images"
        + (
            f" and {prepared.batches.unlabeled_batch} unlabelled"
            if prepared.batches.unlabeled_views
            else ""
        )
        + f", on {data.labeled.images.device}, {prepared.training.network.precision}\nrun folder: {folder}",
        file=sys.stderr,
    )
    sizes = {"labelled": (data.labeled, config.train.batch)}
    if prepared.batches.unlabeled_views and data.unlabeled is not None:
        sizes["unlabelled"] = (data.unlabeled, prepared.batches.unlabeled_batch)
    for name, (pool, batch) in sizes.items():
        if len(pool) < batch:
            _notice(
                f"note: {len(pool)} {name} images are fewer than a batch of {batch}: it repeats some of them"
            )
    chosen = {
        "--patience": config.train.patience is not None,
        "--deploy best": config.train.deploy == "best",
    }
    for option in (name for name, is_given in chosen.items() if is_given and data.holdout is None):
        _notice(
            f"note: {option} has no effect: nothing is held out to choose by (--holdout N, or val/)"
        )
    if data.test is None and data.holdout is None:
        _notice(
            "note: no test or hold-out images: nothing will be measured (--holdout N sets some aside)"
        )
    elif data.test is None and data.holdout is not None:
        missing = sorted(set(range(len(data.class_names))) - set(data.holdout.labels.tolist()))
        names = ", ".join(data.class_names[k] for k in missing)
        _notice(
            f"note: no test images: measured on {len(data.holdout)} labelled images that are held out"
            + (
                f"; too few labels to hold any of {names} out, so not measured (daso validate: from two labels on)"
                if names
                else ""
            )
        )


def conclude(prepared: Prepared, folder: Path) -> None:
    """Draw the pictures of a finished run and print what came out."""
    # Matplotlib takes most of a second, and memory that training may need.
    from daso.report.figures.draw import draw_run

    summary = read_json(folder / "summary.json")
    try:
        draw_run(folder)
    except RunError as error:
        _notice(f"no pictures: {error}; 'daso plot {folder}' draws them")
    console = wide_console()
    if "measured_on" in summary:
        config, data = prepared.config, describe_data(prepared.data)
        balanced_by = balancing_parts(config.method, config.train.labeled_sampling)
        console.print(summary_table(summary, balanced_by, data[f"{summary['measured_on']}_counts"]))
        names, counts = prepared.data.class_names, prepared.data.class_counts.tolist()
        console.print(class_table(names, counts, summary["median_of_last"]))
    else:
        print("no test or hold-out images: nothing was measured (--holdout sets some aside)")
    if (calibration := read_calibration(folder, summary["deployed_step"])).note is not None:
        _notice(
            f"note: probabilities are not calibrated: {calibration.note}. Answers are the same; for calibrated "
            f"probabilities set {FEWEST_IMAGES} images or more aside (val/ or --holdout N)"
        )
    print(f"{summary['steps']:,} steps in {duration(summary['seconds'])}; run folder: {folder}")


def read_source(command: TrainCommand) -> Source:
    """Read the images that a command names."""
    return open_source(
        command.source,
        data=command.data,
        folders=command.folders,
        size=command.size,
        skip_bad=command.skip_bad,
        download=command.download,
        progress=_report_download(),
        cache=None
        if command.cache is None
        else Cache(command.cache.expanduser(), decoding_progress()),
        shrink=_shrink if _shrinks(command) else None,
    )


def _report_download() -> Callable[[str, int, int | None], None]:
    shown: dict[str, int] = {}

    def report(name: str, done: int, total: int | None) -> None:
        tenths = done // 10_000_000
        if shown.get(name) != tenths:
            shown[name] = tenths
            of = "" if total is None else f" of {total / 1e6:.0f}"
            print(f"{name}: {done / 1e6:.0f}{of} MB", file=sys.stderr)

    return report


def resolve_preset(command: TrainCommand) -> tuple[TrainCommand, SourceDefaults | None]:
    """Return a command with a preset's name replaced by its source, and what the preset decides, if it is one.

    Raises:
        OptionError: the source looks like a misspelt name: it is none, and no path that exists.
    """
    name = command.source
    if name in PRESETS:
        return dataclasses.replace(command, source=PRESETS[name].source), PRESETS[name].defaults
    if not is_named(name) and not Path(name).expanduser().exists():
        hint = meant(name, NAMES)
        if hint:
            raise OptionError(
                f"{name!r} is neither a data set's name ({', '.join(NAMES)}), nor a preset's (see daso presets), "
                f"nor a file or folder that exists.{hint}"
            )
    return command, None


def _shrinks(command: TrainCommand) -> bool:
    """Whether images are made small because no accelerator is there."""
    on_cpu = choose_device(command.train.device).type == "cpu"
    return on_cpu and command.source not in NAMES and not is_pretrained(command.train)


def _shrink(side: int) -> int | None:
    """Return the side that images get without an accelerator, and say so; None if they are not larger."""
    if side <= CPU_SIZE:
        return None
    _notice(
        f"no accelerator: images are resized to {CPU_SIZE} x {CPU_SIZE} pixels; --size {side} keeps {side}"
    )
    return CPU_SIZE


def choose_defaults(command: TrainCommand, source: Source) -> SourceDefaults:
    """Return what to take for what a command leaves open."""
    if command.source in SOURCES:
        return SOURCES[command.source]
    return choose_for(source, choose_device(command.train.device))


def with_resolution(
    command: TrainCommand, source: Source, defaults: SourceDefaults
) -> SourceDefaults:
    """Return defaults of a source with the side at which a pretrained encoder sees its images, if there is one.

    Without an accelerator small images are not enlarged to the encoder's own side.
    """
    if not is_pretrained(command.train) or source.train.images.ndim != 4:
        return defaults
    found = None
    if choose_device(command.train.device).type == "cpu":
        found = choose_resolution(command.train, max(source.train.images.shape[2:]))
    if found is None:
        return dataclasses.replace(defaults, resolution=None)
    reason = (
        f"{ENLARGED} times the images' side, not the encoder's {found.own}, which would take "
        f"{(found.own / found.chosen) ** 2:.2g} times as long, on a CPU, and be a little better"
    )
    reasons = {**defaults.reasons, "resolution": reason}
    return dataclasses.replace(defaults, resolution=found.chosen, reasons=reasons)


def _notice(message: str) -> None:
    print(message, file=sys.stderr)


def follow_run(
    prepared: Prepared,
    rows: Iterator[Row],
    folder: Path,
    stop: Stop,
    *,
    quiet: bool = False,
    track: Sequence[str] = (),
) -> int:
    """Show a training as it goes, or *quiet* only its warnings; return the exit status, 0 if it came to its end.

    The rows go to the trackers *track* too. What *stop* hears of meanwhile ends the training with a checkpoint, a
    second signal without; how to go on is said then.
    """
    keep_freed_memory()
    config, done = prepared.config, prepared.step
    tracking = Tracking(track, folder, _notice, done)

    def counted() -> Iterator[Row]:
        for row in rows:
            tracking.write(row)
            yield row

    try:
        with stop.listening():
            follow(
                counted(),
                total=prepared.total_steps,
                done=done,
                label=f"{config.method} on {Path(config.source).name}",
                data=describe_data(prepared.data),
                stages=len(prepared.plan.stages()),
                fold=config.split.fold is not None,
                quiet=quiet,
            )
    except KeyboardInterrupt:
        stop.signal = stop.signal or signal.SIGINT
    finally:
        tracking.close()
    if not stop() or (folder / "summary.json").exists():
        return 0
    saved = newest_step(folder / "checkpoints")
    if saved is None:
        _notice(f"stopped before anything was saved; 'daso resume {folder}' starts anew")
    else:
        _notice(
            f"stopped after step {saved:,} of {prepared.total_steps:,}; 'daso resume {folder}' goes on from there"
        )
    return stop.status


def train(command: TrainCommand, method_options: dict[str, Any], argv: Sequence[str]) -> int:
    """Train as a parsed command says, alone or as one of the processes of torchrun; return the exit status."""
    check_installed(command.track)
    Recipe.parse(command.method)  # before anything is read
    with team(command.train.device) as together:
        folder = command.out or free_folder(command.source, command.method)
        if together.restarted and (folder / "config.json").exists():
            resume = importlib.import_module("daso.cli.verbs.resume")
            return int(resume.go_on(resume.ResumeCommand(folder, quiet=command.quiet), together))
        if together.is_first:
            refuse_taken(folder)
        device = dataclasses.replace(command.train, device=together.device)
        return _train(
            dataclasses.replace(command, train=device), method_options, argv, folder, together
        )


def _train(
    command: TrainCommand,
    method_options: dict[str, Any],
    argv: Sequence[str],
    folder: Path,
    together: Team,
) -> int:
    notice = (lambda _: None) if command.quiet else _notice
    if command.like is not None:
        config = config_like(command.like, command, method_options, argv)
        source = open_configured(config)
    else:
        command, method_options = as_in_paper(command, method_options, argv, notice)
        command, preset = resolve_preset(command)
        source = read_source(command)
        defaults = preset
        if defaults is None:
            defaults = choose_defaults(command, source)
            if command.method == OWN_METHOD and "method" not in given_options(argv):
                notice(
                    f"--method {OWN_METHOD}: logit adjustment (la) makes rare classes count like the others"
                )
        defaults = with_resolution(command, source, defaults)
        config = to_config(command, method_options, argv, defaults, notice)
    for note in idle_options(config, given_options(argv)):
        _notice(f"note: {note}")
    for path, reason in source.skipped:
        _notice(f"skipped {path}: {reason}")
    for note in source.notes:
        _notice(f"note: {note}")
    shared, progress = together.processes, embedding_progress()
    work = partial(prepare, config, source, processes=shared, progress=progress)
    prepared = together.prepare(work, lambda it: it)
    if not command.quiet:
        announce(prepared, folder)
    stages = prepared.plan.stages()
    if (
        late := late_blend(prepared.config, max(s.steps for s in stages if s.method is None))
    ) is not None:
        _notice(f"note: {late}")
    if (scratch := from_nothing(prepared.config, prepared.data, prepared.backbone)) is not None:
        _notice(f"note: {scratch}")
    like = None if command.like is None else compare_with(command.like, prepared, source, _notice)
    # The split has copied what it takes; all of it would stay in memory for the whole training.
    del source, work
    stop = Stop()
    with together.folder(folder) as own:
        rows = train_run(prepared, own, stop, warn=_notice, like=like)
        track = command.track if together.is_first else ()
        status = follow_run(prepared, rows, own, stop, quiet=command.quiet, track=track)
        if not status and together.is_first:
            conclude(prepared, folder)
    return status
