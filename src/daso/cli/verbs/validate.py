"""``daso validate``: estimate the quality of a run by cross-validation over its labeled images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daso.cli.processes.signals import if_stopped
from daso.cli.terminal.arguments import RunArgument
from daso.cli.terminal.counters import notice
from daso.errors import how_many
from daso.files import Row, check_writable, save_json

if TYPE_CHECKING:  # help and wrong options need no torch
    from daso.data.source import Source
    from daso.train.config import RunConfig

AGAIN = "the same command resumes the validation"


@dataclass(frozen=True)
class ValidateCommand:
    """Estimate a run's quality by cross-validation over its labeled images.

    The run's training is repeated for each part of the labeled images, without that part, and
    tested on it.

    Every labeled image is tested once, so classes with a handful of images are measured too. The
    only image of a class is never tested. The run does not change; the result is written to its
    folder. Repeat the command to resume a stopped validation.
    """

    folder: RunArgument
    """The run folder."""
    folds: int = 5
    """Number of parts, at least 2; each takes one training."""
    steps: int | None = None
    """Steps of each training (default: as many as the run). Fewer steps are faster but
    less accurate."""
    data: Path | None = None
    """New location of the run's images, if they were moved."""
    device: str | None = None
    """cpu, cuda or mps (default: the device of the run)."""
    quiet: bool = False
    """Show only warnings and the result."""
    json: bool = False
    """Print the result as JSON."""


def run(command: ValidateCommand) -> int:
    """Validate a run; return the exit status."""
    check_writable(command.folder)
    import numpy as np

    from daso.train import cross_validation
    from daso.train.run_data import open_configured, read_config

    config = read_config(command.folder, command.data, command.device)
    steps = config.train.steps if command.steps is None else command.steps
    suffix = "" if steps == config.train.steps else f"-{steps}-steps"
    place = command.folder / f"{command.folds}-folds{suffix}"
    folds = {
        place / str(number): cross_validation.fold_config(config, command.folds, number, steps)
        for number in range(command.folds)
    }
    with if_stopped(AGAIN):
        source = open_configured(config)
        cross_validation.check_folds(source.train.labels, command.folds)
        images = cross_validation.require_data_of_run(command.folder, config, source)
        for folder, fold in folds.items():
            cross_validation.check_fold(folder, fold, source, images)
    for number, (folder, fold) in enumerate(folds.items(), 1):
        if (folder / cross_validation.ANSWERS).exists():
            continue
        notice(f"fold {number} of {command.folds}: {folder}")
        with if_stopped(AGAIN):
            status = _train_fold(command, fold, source, folder, images)
        if status:
            notice(AGAIN)
            return status
    counts = np.bincount(source.train.labels, minlength=len(source.class_names)).tolist()
    summary = cross_validation.summarize_folds(list(folds), source.class_names, counts)
    result = {**summary, "steps": steps}
    written = command.folder / f"cross_validation{suffix}.json"
    save_json(written, result)
    if command.json:
        print(json.dumps(result, indent=1))
    else:
        _show(result, config.train.steps)
        print(written)
    return 0


def _train_fold(
    command: ValidateCommand, config: RunConfig, source: Source, folder: Path, images: Row
) -> int:
    from daso.cli.processes.signals import Stop
    from daso.cli.training.session import follow_run
    from daso.train.cross_validation import answer_fold
    from daso.train.prepare import prepare
    from daso.train.run import resume_run, train_run

    stop = Stop()
    if (folder / "config.json").exists():
        prepared, rows = resume_run(
            folder, notice, data=command.data, device=command.device, stop=stop
        )
    else:
        folder.parent.mkdir(exist_ok=True)
        prepared = prepare(config, source)
        rows = train_run(prepared, folder, stop, warn=notice)
    status = follow_run(prepared, rows, folder, stop, quiet=command.quiet)
    if not status:
        answer_fold(folder, prepared.data, images)
    return status


def _show(result: Row, steps: int) -> None:
    import numpy as np
    from rich.markup import escape

    from daso.cli.terminal.tables import make_table, wide_console
    from daso.report.uncertainty import interval
    from daso.report.wording import of_classes, percent

    console = wide_console()
    recall, counts = (np.array(result[name], dtype=np.float64) for name in ("recall", "measured"))
    half = interval(recall, counts)
    console.print(
        f"{result['images']} labeled images, each tested by a training without it "
        f"({result['folds']} folds): accuracy {percent(result['accuracy'])}%, balanced accuracy "
        f"{percent(result['balanced_accuracy'])}%{of_classes(result['recall'])}"
        + ("" if half is None else f" ± {percent(half)} (95%)"),
        soft_wrap=True,
    )
    if result["steps"] != steps:
        console.print(
            f"each training had {how_many(result['steps'], 'step')}; the run has {steps:,}"
        )
    columns = ("class", "labeled", "tested", "recall", "95% interval", "precision")
    table = make_table(columns, "per class, in %")
    for k, name in enumerate(result["class_names"]):
        bounds = result["recall_interval"][k]
        table.add_row(
            escape(name),
            str(result["labeled"][k]),
            str(result["measured"][k]),
            percent(result["recall"][k]),
            "-" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}",
            percent(result["precision"][k]),
        )
    console.print(table)
