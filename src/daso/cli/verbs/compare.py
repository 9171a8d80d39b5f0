"""``daso compare``: runs across methods and seeds."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import wide_console
from daso.errors import OptionError, RunError, nearest
from daso.files import write_atomically
from daso.report.compare.groups import group_runs, read_runs
from daso.report.compare.page import to_html
from daso.report.compare.tables import (
    Compared,
    choose_baseline,
    leave_out_damaged,
    to_csv,
    to_markdown,
)

SHOWN = ("method", "runs", "balanced accuracy", "logit-adjusted", "accuracy", "recall, few labels")
"""Columns of the table on the terminal; the files have them all."""


@dataclass(frozen=True)
class CompareCommand:
    """Compare complete runs across methods and seeds, and write tables and a page.

    Runs that differ only in the seed are one row. Differences are of the same seed, split and images.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders, or folders with run folders in them, such as a campaign's."""
    out: Path | None = None
    """Folder to write into (default: runs/compare-1, -2, ...)."""
    baseline: str | None = None
    """The row that differences are to (default: fixmatch, or supervised, or the first one)."""


def _terminal_table(rows: Sequence[Sequence[str]], title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
    for name, *cells in zip(*rows, strict=True):
        longest = min(36, max(map(len, cells))) if name == "method" else None
        justify: Literal["left", "right"] = "left" if name in ("method", "number") else "right"
        table.add_column(escape(name), justify=justify, overflow="fold", min_width=longest)
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    return table


def _columns(rows: list[list[str]], names: Sequence[str]) -> list[list[str]]:
    kept = [number for number, name in enumerate(rows[0]) if name in names]
    return [[row[number] for number in kept] for row in rows]


def run(argv: Sequence[str]) -> None:
    """Compare as the arguments say."""
    command = parse(CompareCommand, argv, "daso compare")
    if not command.paths:
        raise OptionError("name run folders, or a folder that holds some")
    found, problems = read_runs(command.paths)
    runs, damaged = leave_out_damaged(found)
    problems += damaged
    for problem in problems:
        print(problem, file=sys.stderr)
    if not runs:
        raise RunError("no complete run to compare")
    settings = group_runs(runs)
    names = {group.name for setting in settings for group in setting.groups}
    if command.baseline is not None and command.baseline not in names:
        raise OptionError(
            f"no run of {command.baseline!r}; there are {', '.join(sorted(names))}.{nearest(command.baseline, names)}"
        )
    compared = [
        Compared(setting, choose_baseline(setting, command.baseline)) for setting in settings
    ]
    out = command.out or next(
        path for n in itertools.count(1) if not (path := Path("runs") / f"compare-{n}").exists()
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror}") from error
    files = {
        "comparison.md": to_markdown(compared, problems),
        "comparison.csv": to_csv(compared),
        "comparison.html": to_html(compared, problems),
    }
    for name, text in files.items():
        write_atomically(out / name, text.encode())
    console = wide_console()
    for one in compared:
        console.print(_terminal_table(_columns(one.table(), SHOWN), f"{one.setting.title}, in %"))
        differences = one.difference_table()
        if any(row[differences[0].index("pairs")] != "0" for row in differences[1:]):
            hidden = ("95% interval", "p (t test)", "p (sign flips)")  # they are in the files
            kept = [name for name in differences[0] if name not in hidden]
            console.print(
                _terminal_table(_columns(differences, kept), f"differences to {one.baseline.name}")
            )
        for note in one.notes()[1:]:
            print(f"note: {note}")
        print()
    print(*(out / name for name in files), sep="\n")
