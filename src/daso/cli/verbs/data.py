"""``daso data check``: look a data set over before training."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import wide_console
from daso.data.check.finding import CALLED, Finding
from daso.data.check.report import Report, check_data
from daso.data.formats.tar_shards import absolute_place
from daso.errors import DataError, OptionError, nearest
from daso.files import plain
from daso.presets.sources import CPU_SIZE

SHOWN = 5
"""Images that are named for a finding; --all names all of them."""
COLORS = {"refused": "red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True)
class CheckCommand:
    """Look a data set over before training: classes, sizes, what cannot be read, copies, leaks into the test set.

    The exit status is 1 if training would refuse it.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = ""
    """What daso train is given: a folder, a manifest, an .npz file, a data set's name."""
    data: Path | None = None
    """Where the files of a named source are; of a manifest, the folder that its paths start in and may not leave."""
    labeled: Path | None = None
    """Folder of labelled images, in a folder for each class; instead of SOURCE."""
    unlabeled: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|TARS")] = None
    """Folder of unlabelled images, or tar shards, if they are elsewhere; see daso train --help."""
    val: Path | None = None
    """Folder of validation images, if they are elsewhere."""
    test: Path | None = None
    """Folder of test images, if they are elsewhere."""
    size: int | None = None
    """Side in pixels that daso train will be given; images are compared as training takes them."""
    download: bool = False
    """Fetch a named source's files if they are missing."""
    all: bool = False
    """Name every image of a finding, not the first few."""
    json: bool = False
    """Print everything as JSON."""


def run(argv: Sequence[str]) -> int:
    """Check as the arguments say; 1 if training would refuse the data."""
    verb = argv[0] if argv else ""
    if verb in ("-h", "--help", ""):
        print(
            "usage: daso data check SOURCE [OPTIONS]\n\nLook a data set over before training. daso data check --help"
        )
        return 0 if verb else 2
    if verb != "check":
        raise OptionError(
            f"daso data knows no {verb!r}; it knows: check.{nearest(verb, ['check'])}"
        )
    command = parse(CheckCommand, argv[1:], "daso data check")
    if bool(command.source) == (command.labeled is not None):
        raise OptionError(
            "name a SOURCE to check, or --labeled FOLDER" + ("; not both" if command.source else "")
        )
    given = {"unlabeled": command.unlabeled, "val": command.val, "test": command.test}
    try:
        with _progress() as progress:
            report = check_data(
                command.source or str(command.labeled),
                data=command.data,
                folders={
                    name: absolute_place(folder)
                    for name, folder in given.items()
                    if folder is not None
                },
                size=command.size,
                download=command.download,
                progress=progress,
                shrink=_shrunk,
            )
    except DataError as error:
        if not command.json:
            raise
        print(
            json.dumps(
                {"source": command.source, "would_train": False, "error": str(error)}, indent=1
            )
        )
        return 1
    if command.json:
        print(json.dumps(plain(report.to_dict()), indent=1))
    else:
        _show(report, wide_console(), None if command.all else SHOWN)
    return 1 if report.refused else 0


def _shrunk(side: int) -> int | None:
    """Return the side to which training resizes images here, for want of an accelerator; None: it does not."""
    if side <= CPU_SIZE:
        return None
    # Only here is torch imported, to ask for devices.
    device = importlib.import_module("daso.train.step.state").choose_device("auto")
    return CPU_SIZE if device.type == "cpu" else None


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("looking at images"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bar:
        task = bar.add_task("", total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update


def _show(report: Report, console: Console, shown: int | None) -> None:
    for note in report.notes:
        console.print(escape(note), soft_wrap=True)
    console.print(_class_table(report))
    console.print(escape(_summary(report)), soft_wrap=True)
    for finding in report.findings:
        console.print()
        console.print(
            f"[{COLORS[finding.level]}]{finding.level}[/] {escape(finding.text)}",
            soft_wrap=True,
            highlight=False,
        )
        if finding.cure:
            console.print(f"  {escape(finding.cure)}", soft_wrap=True, highlight=False)
        for name, detail in finding.images[:shown]:
            console.print(f"    {escape(name)}: {escape(detail)}", soft_wrap=True, highlight=False)
        if shown is not None and len(finding.images) > shown:
            console.print(
                f"    and {len(finding.images) - shown:,} more (--all names them)", highlight=False
            )
    console.print()
    console.print(escape(_verdict(report.findings)), soft_wrap=True, highlight=False)


def _class_table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("class")
    parts = list(report.class_counts)
    for part in parts:
        table.add_column(CALLED[part], justify="right")
    for k, name in enumerate(report.class_names):
        table.add_row(escape(name), *(f"{report.class_counts[part][k]:,}" for part in parts))
    return table


def _summary(report: Report) -> str:
    counts = ", ".join(f"{count:,} {CALLED[part]}" for part, count in report.counts.items())
    lines = [f"{counts} images of {len(report.class_names)} classes"]
    if report.imbalance is not None:
        lines[0] += (
            f"; the most frequent class has {report.imbalance:.3g} labelled images for one of the rarest"
        )
    if report.widths and report.heights and report.shape:
        sizes = (
            f"all are {report.widths[0]} x {report.heights[0]} pixels"
            if report.sizes == 1
            else f"{report.widths[0]} to {report.widths[2]} pixels wide (median {report.widths[1]:g}), "
            f"{report.heights[0]} to {report.heights[2]} high (median {report.heights[1]:g})"
        )
        channels, height, width = report.shape
        color = "grey" if channels == 1 else "in colour"
        why = " on this machine, which has no accelerator" if report.shrunk else ""
        lines.append(
            f"{sizes}; training takes {width} x {height}, {color}{why}, unless told otherwise (--size)"
        )
    return "\n".join(lines)


def _verdict(findings: Sequence[Finding]) -> str:
    refused = [finding for finding in findings if finding.level == "refused"]
    warnings = [finding for finding in findings if finding.level == "warning"]
    if refused:
        fatal = any(finding.code in ("empty-class", "one-class") for finding in refused)
        cure = (
            "mend what is refused"
            if fatal
            else "mend what is refused, or leave it out with --skip-bad"
        )
        return f"Training refuses this data: {cure}."
    if warnings:
        return "Training goes, but the warnings above will hurt it, or what it measures."
    return "Nothing here will hurt a training."
