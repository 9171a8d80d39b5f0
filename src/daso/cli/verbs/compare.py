"""``daso compare``: runs across methods and seeds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daso.cli.terminal.counters import tell
from daso.cli.terminal.parse import Argument
from daso.errors import OptionError, RunError, nearest
from daso.files import make_folder, write_text
from daso.train.folder.lock import free_folder

SHOWN = ("method", "runs", "balanced accuracy", "logit-adjusted", "accuracy", "recall, few labels")
"""Columns of the table in the terminal; the files have all."""
HIDDEN = ("p (t test)", "p (sign flips)")
WIDEST_NAME, WIDEST_HEAD = 36, 16
"""Characters of a line of a method's name and of a column's name, at most."""
MOST_CLASSES = 20
"""With more, differences by class are in the files only."""


@dataclass(frozen=True)
class CompareCommand:
    """Compare complete runs across methods and seeds, and write tables and a page.

    Runs that differ only in the seed form one row. Runs on other images or labels, as before and
    after labeling more, form rows of their own. Differences are between runs with the same seed,
    split and images, or between the rows of one method on other data.
    """

    paths: Annotated[tuple[Path, ...], Argument("RUN", positional=True)]
    """Run folders, or folders that contain some, such as that of a campaign."""
    out: Path | None = None
    """Folder for the results (default: runs/compare-1, -2, ...)."""
    baseline: str | None = None
    """The row to compare with (default: fixmatch, or supervised, or the first row)."""


def _print_table(rows: list[list[str]], columns: Sequence[str], title: str, left: int = 1) -> None:
    """Print some columns; no cell is cut.

    In a terminal, long names of methods and columns take several lines, which begin with a part.
    Elsewhere each row is a line, however long.
    """
    from rich.markup import escape

    from daso.cli.terminal.tables import WIDEST, make_table, wide_console

    console = wide_console(WIDEST)
    shown = [place for place, name in enumerate(rows[0]) if name in columns]
    head, *body = ([escape(row[place]) for place in shown] for row in rows)
    if console.is_terminal:
        head = [_in_lines(name, WIDEST_HEAD) for name in head]
        body = [[*(_in_lines(name, WIDEST_NAME) for name in r[:left]), *r[left:]] for r in body]
    table = make_table(head, escape(title), left=left)
    for row in body:
        table.add_row(*row)
    console.print(table)


def _in_lines(name: str, width: int) -> str:
    """Return a name in lines of *width* characters, more where a part or a word is longer."""
    lines = [""]
    for part in re.findall(r"^[^ +]*|[ +][^ +]*", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part if lines[-1] else part.lstrip()
    return "\n".join(lines)


def run(command: CompareCommand) -> None:
    """Compare the runs."""
    from daso.cli.terminal.tables import print_text
    from daso.report.compare import tables
    from daso.report.compare.groups import group_runs, read_runs
    from daso.report.compare.page import to_html

    if not command.paths:
        raise OptionError("no RUN given: name run folders, or folders that contain some")
    runs, problems = read_runs(command.paths)
    runs, damaged = tables.leave_out_damaged(runs)
    problems += damaged
    for problem in problems:
        tell(problem)
    if not runs:
        raise RunError("no run to compare: none of them is complete and measured")
    settings = group_runs(runs)
    names = {group.name for setting in settings for group in setting.groups}
    baseline = command.baseline
    if baseline is not None and baseline not in names:
        listed = ", ".join(sorted(names))
        raise OptionError(
            f"--baseline {baseline}: no such row; choose from {listed}.{nearest(baseline, names)}"
        )
    compared = [tables.Compared(one, tables.choose_baseline(one, baseline)) for one in settings]
    out = command.out or free_folder("compare")
    make_folder(out)
    files = {
        "comparison.md": tables.to_markdown(compared, problems),
        "comparison.csv": tables.to_csv(compared),
        "comparison.html": to_html(compared, problems),
    }
    for name, text in files.items():
        write_text(out / name, text)
    for one in compared:
        _print_table(one.table(), SHOWN, f"{one.setting.title}, in %")
        rows = one.difference_table()
        if any(row[rows[0].index("pairs")] != "0" for row in rows[1:]):
            columns = [name for name in rows[0] if name not in HIDDEN]
            title = f"differences from {one.baseline.name}"
            _print_table(rows, columns, title, left=2)
            if len(rows := one.class_table()) <= MOST_CLASSES + 1:
                _print_table(rows, rows[0], "recall per class, in %")
        for note in one.notes()[1:]:
            print_text(f"note: {note}")
        print()
    print(*(out / name for name in files), sep="\n")
