"""Tables that the command line prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.markup import escape
from rich.padding import Padding
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

from daso.errors import how_many
from daso.report.wording import POOLS, of_classes, percent

WIDEST = 10_000
"""Characters of a line of a table, at most."""
ROWS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "geometric_mean": "geometric mean of recalls",
    "recall_many": "recall, many labels",
    "recall_medium": "recall, medium",
    "recall_few": "recall, few labels",
    "calibration_error": "calibration error",
}


def wide_console(least: int = 100) -> Console:
    """Return a console for tables, as wide as the terminal, or *least* columns outside one.

    A class called ``:cat:`` stays a word.
    """
    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = max(least, console.width)
    return console


def print_text(*lines: str) -> None:
    """Print lines, which a terminal shows broken between words."""
    console = Console(emoji=False, markup=False, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)


def error_console() -> Console:
    """Return a console on standard error."""
    return Console(file=sys.stderr, emoji=False)


def progress_bar(*columns: ProgressColumn, hidden: bool = False) -> Progress:
    """Return a bar on standard error that is shown in a terminal, until it is complete."""
    console = error_console()
    hidden = hidden or not console.is_terminal
    return Progress(*columns, console=console, disable=hidden, transient=True)


class FittingTable(Table):
    """A table that is shown row by row, a cell a line, where its longest words do not fit."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = self.__rich_measure__(console, options.update(width=WIDEST)).minimum
        if least <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        yield Text.from_markup(f"{self.title or ''}\n")
        for name, *cells in zip(*(column.cells for column in self.columns), strict=True):
            yield Text.from_markup(f"[bold]{name}[/bold]")
            for column, cell in zip(self.columns[1:], cells, strict=True):
                if cell:
                    text = Text.from_markup(f"{column.header}: {cell}".replace("\n", " "))
                    yield Padding(text, (0, 0, 0, 2))


def make_table(
    columns: Iterable[str], title: str | None = None, *, left: int = 1, **look: Any
) -> Table:
    """Return an empty table; its *left* first columns are aligned to the left, others to the right.

    Nothing is cut: what is too wide takes several lines. See also ``FittingTable``.
    """
    table = FittingTable(title=title, title_justify="left", box=SIMPLE_HEAD, **look)
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    return table


def summary_table(
    summary: dict[str, Any],
    balanced_by: Sequence[str],
    measured: Sequence[int],
    labeled: Sequence[int],
) -> Group:
    """Show the results of a run's summary side by side.

    Args:
        balanced_by: parts that balanced the classifier in training. With any, logit-adjusted
            numbers, which would correct twice, are left out.
        measured: evaluated images of each class, (K,).
        labeled: labeled images of each class, (K,), which make the thirds.
    """
    import numpy as np  # here, so that lists of methods and presets are quick

    from daso.evaluate.metrics import class_groups
    from daso.report.uncertainty import interval, is_wide

    titles = {
        "median_of_last": f"median of last {summary['evaluations']}",
        "last": "last",
        "best_on_holdout": "best on hold-out",
    }
    columns: list[tuple[str, dict[str, Any]]] = []
    for name, title in titles.items():
        if name in summary:
            columns.append((title, summary[name]))
            if not balanced_by:
                columns.append(("adjusted", summary[name]["logit_adjusted"]))
    heading = f"on {POOLS[summary['measured_on']]} images, in %"
    table = make_table(("", *(title for title, _ in columns)), heading)
    recall = np.array(summary["median_of_last"]["recall"], dtype=np.float64)
    thirds = {f"recall_{name}": some for name, some in class_groups(np.array(labeled)).items()}
    for key, label in ROWS.items():
        if key in thirds:
            some = recall[thirds[key]]
            if not len(some):
                continue
            part = of_classes(some) if np.isfinite(some).any() else ""
            label += part or f" ({how_many(len(some), 'class', 'classes')})"
        elif key == "balanced_accuracy":
            label += of_classes(recall)
        table.add_row(label, *(percent(metrics[key]) for _, metrics in columns))
    captions = []
    half = interval(recall, np.array(measured, dtype=np.float64))
    if half is not None:
        captions.append(
            f"95% interval of balanced accuracy: ± {100 * half:.1f} points, from "
            f"{how_many(sum(measured), 'image')}"
            + ("; smaller differences between runs mean nothing" if is_wide(half) else "")
        )
    if not balanced_by:
        captions.append(
            "adjusted: logits minus the log of the labeled class frequencies, for images with "
            "balanced classes"
        )
    return Group(table, *captions, *[""][: len(captions)])


def class_table(
    class_names: Sequence[str],
    labeled_counts: Sequence[int],
    metrics: dict[str, Any],
    when: str = "",
) -> Table:
    """Show recall and precision of each class, beside its number of labeled images."""
    heading = ", ".join(filter(None, ("per class", when, "in %")))
    table = make_table(("class", "labeled", "recall", "precision"), heading)
    for k, name in enumerate(class_names):
        recall, precision = metrics["recall"][k], metrics["precision"][k]
        table.add_row(escape(name), str(labeled_counts[k]), percent(recall), percent(precision))
    return table
