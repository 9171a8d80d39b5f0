"""``daso data check``: check a data set before training."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from daso.cli.terminal.parse import Argument, parse
from daso.cli.terminal.tables import wide_console
from daso.data.check.findings import CALLED, Finding
from daso.data.check.report import Report, check_data
from daso.data.formats.tar_shards import absolute_place
from daso.data.open import NAMES
from daso.errors import DataError, OptionError, nearest
from daso.files import plain
from daso.presets.sources import CPU_SIZE

SHOWN = 5
"""Images listed for a finding without --all."""
COLORS = {"refused": "red", "warning": "yellow", "note": "dim"}


@dataclass(frozen=True)
class CheckCommand:
    """Check a data set before training: classes, sizes, unreadable images, copies, test leaks.

    The exit status is 1 if training would refuse the data.
    """

    source: Annotated[str, Argument("SOURCE", positional=True)] = ""
    """A folder, a manifest, an .npz file or the name of a data set, as for daso train."""
    data: Path | None = None
    """Folder of a named source's files, or the folder that holds all images of a manifest."""
    labeled: Path | None = None
    """Folder of labeled images, with a folder for each class. Replaces SOURCE."""
    unlabeled: Annotated[str | None, Argument("FOLDER|TARS")] = None
    """Folder or tar shards of unlabeled images, if elsewhere; see daso train --help."""
    val: Path | None = None
    """Folder of validation images, if elsewhere."""
    test: Path | None = None
    """Folder of test images, if elsewhere."""
    size: int | None = None
    """Side of the images in pixels, as for daso train; images are compared at that size."""
    download: bool = False
    """Fetch missing files of a named source."""
    all: bool = False
    """List every image of a finding, not only the first few."""
    json: bool = False
    """Print everything as JSON."""


def run(argv: Sequence[str]) -> int:
    """Run the command; return 1 if training would refuse the data."""
    verb = argv[0] if argv else ""
    if verb in ("-h", "--help", ""):
        print("usage: daso data check SOURCE [OPTIONS]\n\nCheck a data set before training.")
        return 0 if verb else 2
    if verb != "check":
        raise OptionError(f"unknown command: data {verb}; use check.{nearest(verb, ['check'])}")
    command = parse(CheckCommand, argv[1:], "daso data check")
    if bool(command.source) == (command.labeled is not None):
        raise OptionError("give either SOURCE or --labeled FOLDER")
    source = command.source or str(command.labeled)
    places = {"unlabeled": command.unlabeled, "val": command.val, "test": command.test}
    folders = {name: absolute_place(place) for name, place in places.items() if place is not None}
    try:
        with _progress() as progress:
            report = check_data(
                source,
                data=command.data,
                folders=folders,
                size=command.size,
                download=command.download,
                progress=progress,
                largest_side=None if command.size or source in NAMES else _largest_side(),
            )
    except DataError as error:
        if not command.json:
            raise
        print(json.dumps({"source": source, "would_train": False, "error": str(error)}, indent=1))
        return 1
    if command.json:
        print(json.dumps(plain(report.to_dict()), indent=1))
    else:
        _show(report, wide_console(), None if command.all else SHOWN)
    return 1 if report.refused else 0


def _largest_side() -> int | None:
    # torch is imported only here, to look for an accelerator.
    device = importlib.import_module("daso.train.step.state").choose_device("auto")
    return CPU_SIZE if device.type == "cpu" else None


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(file=sys.stderr, emoji=False)
    columns = (
        TextColumn("reading images"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show(report: Report, console: Console, shown: int | None) -> None:
    def show(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    for note in report.notes:
        show(escape(note))
    console.print(_class_table(report))
    show(escape(_summary(report)))
    for finding in report.findings:
        show(f"\n[{COLORS[finding.level]}]{finding.level}[/] {escape(finding.text)}")
        if finding.cure:
            show(f"  {escape(finding.cure)}")
        for name, detail in finding.images[:shown]:
            show(f"    {escape(name)}: {escape(detail)}")
        if shown is not None and len(finding.images) > shown:
            show(f"    and {len(finding.images) - shown:,} more (--all lists them)")
    show(f"\n{escape(_verdict(report.findings))}")


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
        ratio = f"{report.imbalance:.3g}"
        lines[0] += f"; the largest class has {ratio} times the labels of the smallest"
    if report.widths and report.heights and report.shape:
        sizes = f"all are {report.widths[0]} x {report.heights[0]} pixels"
        if report.sizes > 1:
            (low, median, high), (lowest, middle, highest) = report.widths, report.heights
            sizes = (
                f"{low} to {high} pixels wide (median {median:g}), {lowest} to {highest} high "
                f"(median {middle:g})"
            )
        channels, height, width = report.shape
        color = "gray" if channels == 1 else "in color"
        why = " on this machine, which has no accelerator" if report.shrunk else ""
        lines.append(f"{sizes}; training uses {width} x {height}, {color}{why} (--size changes it)")
    return "\n".join(lines)


def _verdict(findings: Sequence[Finding]) -> str:
    levels = {finding.level for finding in findings}
    if "refused" in levels:
        fatal = any(finding.code in ("empty-class", "one-class") for finding in findings)
        cure = "" if fatal else ", or leave it out with --skip-bad"
        return f"Training refuses this data: correct what is refused{cure}."
    if "warning" in levels:
        return "Training will run, but the warnings above may affect its results."
    return "No problems found."
