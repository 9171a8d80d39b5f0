"""``daso validate``: how good a run's recipe is, by cross-validation over its labelled images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from daso.cli.processes.signals import Stop
from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import percent, wide_console
from daso.cli.training.session import follow_run
from daso.data.source import Source
from daso.errors import RunError
from daso.files import read_json, save_json
from daso.report.uncertainty import interval
from daso.train.config import RunConfig
from daso.train.cross_validation import ANSWERS, answer_fold, fold_config, summarize_folds
from daso.train.prepare import moved, open_configured, prepare
from daso.train.run import resume_run, train_run

RESULT = "cross_validation"
"""JSON file with the result, in the run folder."""


@dataclass(frozen=True)
class ValidateCommand:
    """Train a run's recipe anew for each part of its labelled images, without that part, and measure it there.

    Every labelled image is measured once, so classes with a handful of images are measured too; only the single image
    of a class never is. The run itself is left as it is; the result goes into its folder. What is done is never done
    again: a validation that was stopped goes on.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run folder."""
    folds: int = 5
    """Parts, 2 or more: as many trainings."""
    steps: int | None = None
    """Another length of each training than the run's: fewer steps tell sooner and less."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str | None = None
    """Another device than the run's: cpu, cuda, mps."""
    quiet: bool = False
    """Show only warnings while it trains, and the result."""
    json: bool = False
    """Print the result as JSON."""


def run(argv: Sequence[str]) -> int:
    """Validate as the arguments say."""
    command = parse(ValidateCommand, argv, "daso validate")
    config = RunConfig.read(command.folder)
    config = moved(config, command.data, command.device)
    steps = config.train.steps if command.steps is None else command.steps
    configs = [fold_config(config, command.folds, fold, steps) for fold in range(command.folds)]
    source = open_configured(config)
    _refuse_other_images(command.folder, source)
    stop = Stop()
    name = f"{command.folds}-folds" + ("" if steps == config.train.steps else f"-{steps}-steps")
    folders = [command.folder / name / str(fold) for fold in range(command.folds)]
    for number, (folder, wanted) in enumerate(zip(folders, configs, strict=True), 1):
        if (folder / ANSWERS).exists():
            continue
        _say(f"fold {number} of {command.folds}: {folder}")
        if (folder / "config.json").exists():
            prepared, rows = resume_run(
                folder, _say, data=command.data, device=command.device, stop=stop
            )
        else:
            folder.parent.mkdir(exist_ok=True)
            prepared = prepare(wanted, source)
            rows = train_run(prepared, folder, stop, warn=_say)
        status = follow_run(prepared, rows, folder, stop, quiet=command.quiet)
        if status:
            again = f" --steps {steps}" if steps != config.train.steps else ""
            _say(
                f"'daso validate {command.folder} --folds {command.folds}{again}' goes on with all of it"
            )
            return status
        answer_fold(folder, prepared.data)
    labels = source.train.labels
    counts = [int((labels == k).sum()) for k in range(len(source.class_names))]
    result = {**summarize_folds(folders, source.class_names, counts), "steps": steps}
    written = (
        command.folder / f"{RESULT}{'' if steps == config.train.steps else f'-{steps}-steps'}.json"
    )
    save_json(written, result)
    if command.json:
        print(json.dumps(result, indent=1))
    else:
        _show(result, config.train.steps)
        print(written)
    return 0


def _refuse_other_images(folder: Path, source: Source) -> None:
    saved = read_json(folder / "data.json")
    if saved.get("class_names") != list(source.class_names):
        raise RunError(
            f"these are other images than the run's: its classes were {saved.get('class_names')}, "
            f"now {list(source.class_names)}"
        )


def _say(message: str) -> None:
    print(f"daso: {message}", file=sys.stderr)


def _show(result: dict[str, Any], steps: int) -> None:
    console = wide_console()
    recall, counts = (np.array(result[name], dtype=np.float64) for name in ("recall", "measured"))
    half = interval(recall, counts)
    console.print(
        f"{result['images']} labelled images, each measured by a training without it ({result['folds']} folds): "
        f"accuracy {percent(result['accuracy'])}%, balanced accuracy {percent(result['balanced_accuracy'])}%"
        + ("" if half is None else f" ± {percent(half)} (95%)"),
        soft_wrap=True,
    )
    if result["steps"] != steps:
        console.print(f"by trainings of {result['steps']:,} steps; the run itself had {steps:,}")
    table = Table(title="per class, in %", title_justify="left", box=SIMPLE_HEAD)
    for column in ("class", "labelled", "measured", "recall", "95% interval", "precision"):
        table.add_column(column, justify="left" if column == "class" else "right")
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
