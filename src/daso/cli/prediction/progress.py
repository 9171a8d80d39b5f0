"""How far a prediction is: a bar on a terminal, a line now and then elsewhere, and the first unreadable images."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from daso.cli.prediction.inputs import Inputs

NAMED = 20
"""Unreadable images that are named; the output names all."""
PLAIN_PERIOD = 15.0
"""Seconds between lines where the output is not a terminal."""


class Counter:
    """Shows how many inputs have been classified, and how fast.

    Args:
        inputs: all of them; they are counted first, where that can be done and a bar is shown.
        to_terminal: whether a bar may be drawn; not while the rows themselves go there.
        done: inputs that were classified before.
    """

    def __init__(self, inputs: Inputs, *, to_terminal: bool, done: int = 0) -> None:
        console = Console(file=sys.stderr)
        self._shown = console.is_terminal and to_terminal
        total = sum(1 for _ in inputs) if self._shown and inputs.can_be_counted else None
        self._progress = Progress(
            TextColumn("predicting"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._shown,
            transient=True,
        )
        self._task = self._progress.add_task("predicting", total=total, completed=done, rate="")
        self._count = self._failed = 0
        self._done = done
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Counter:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def add(self, rows: Sequence[list[Any]]) -> int:
        """Count rows and return how many are of inputs that could not be read."""
        failures = [row for row in rows if row[-1] is not None]
        for row in failures[: max(0, NAMED - self._failed)]:
            print(f"daso: {row[0]}: {row[-1]}", file=sys.stderr)
        self._failed += len(failures)
        self._count += len(rows)
        now = time.monotonic()
        rate = f"{self._count / max(now - self._start, 1e-9):,.0f} images/s"
        self._progress.update(self._task, advance=len(rows), rate=rate)
        if not self._shown and now - self._last_line > PLAIN_PERIOD:
            print(f"{self._done + self._count:,} images, {rate}", file=sys.stderr, flush=True)
            self._last_line = now
        return len(failures)
