"""Show the progress of a prediction: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from daso.cli.prediction.inputs import Inputs
from daso.cli.prediction.output import Cells
from daso.cli.terminal.counters import notice, tell
from daso.cli.terminal.tables import progress_bar

MAX_NAMED = 20
"""Unreadable images that are named on the terminal; the output names all."""
LINE_SECONDS = 15.0
"""Time between lines if the output is not a terminal."""


class Counter:
    """Shows how many inputs were classified, how fast, and the first unreadable ones.

    Args:
        inputs: counted first if a bar is shown.
        bar: whether a bar may be shown; not while the rows themselves are printed there.
        done: inputs that were classified before.
    """

    def __init__(self, inputs: Inputs, *, bar: bool, done: int = 0) -> None:
        self._progress = progress_bar(
            TextColumn("predicting"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            hidden=not bar,
        )
        total = None if self._progress.disable else inputs.count()
        self._task = self._progress.add_task("predicting", total=total, completed=done, rate="")
        self._done = done
        self.count = self.failed = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Counter:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def add(self, rows: Sequence[Cells]) -> None:
        """Count rows and print the errors of the first unreadable inputs."""
        failures = [row for row in rows if row[-1] is not None]
        for row in failures[: max(0, MAX_NAMED - self.failed)]:
            notice(f"{row[0]}: {row[-1]}")
        self.failed += len(failures)
        self.count += len(rows)
        now = time.monotonic()
        rate = f"{self.count / max(now - self._start, 1e-9):,.0f} images/s"
        self._progress.update(self._task, advance=len(rows), rate=rate)
        if self._progress.disable and now - self._last_line > LINE_SECONDS:
            tell(f"{self._done + self.count:,} images, {rate}")
            self._last_line = now
