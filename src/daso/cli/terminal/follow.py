"""Show a training: a live view in a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from daso.cli.terminal.live_view import View
from daso.cli.terminal.tables import error_console
from daso.files import Row
from daso.report.wording import chosen_readout, duration, of_classes

if TYPE_CHECKING:
    from daso.train.prepare import Prepared

PLAIN_PERIOD_SECONDS = 15.0
"""Least time between two lines outside a terminal; a hundredth of the time so far, if longer."""


def _plain_line(view: View) -> str:
    stage = ""
    if "stage" in view.evaluation:
        stage = f"  stage {view.evaluation['stage'] + 1}/{view.stages}"
    left = [f"{duration(view.seconds_left())} left"] if view.step < view.total else []
    step = f"{view.label}{stage}  step {view.step}/{view.total}"
    return "  ".join([step, *view.numbers(), *left])


def _last_line(view: View) -> str:
    parts = []
    where, measured = view.measured()
    if measured:
        when = "at the end" if view.step >= view.total else "when last measured"
        value = measured["balanced_accuracy"]
        of = of_classes(measured["recall"])
        parts.append(f"balanced accuracy {value:.1%}{of} on {where} images {when}")
    if "share_confident" in view.train:
        parts.append(f"{view.train['share_confident']:.0%} of the pseudo-labels over the threshold")
    if worst := ", ".join(f"{name} {value:.0%}" for name, value in view.worst()):
        parts.append(f"worst recall: {worst}")
    return f"{view.label}: {'; '.join(parts)}" if parts else ""


def view_of(prepared: Prepared, label: str) -> View:
    """Return the view of a training that goes on from its present step."""
    names, counts = prepared.data.class_names, prepared.data.class_counts.tolist()
    total, stages = prepared.total_steps, len(prepared.plan.stages())
    is_fold = prepared.config.split.fold is not None
    return View(label, total, prepared.step, stages, names, counts, is_fold)


def follow(
    rows: Iterable[Row], view: View, *, quiet: bool = False, console: Console | None = None
) -> None:
    """Consume the rows of a training while showing its progress.

    Args:
        quiet: show warnings only.
        console: to write to (default: standard error).
    """
    console = console or error_console()
    view.plain = console.options.ascii_only
    in_terminal = console.is_terminal and not console.is_dumb_terminal and not quiet
    last_line, shown = view.started, view.step
    live = Live(console=console, get_renderable=lambda: view, refresh_per_second=4, transient=True)
    with live if in_terminal else contextlib.nullcontext():
        for row in rows:
            view.see(row)
            for warning in row.get("warnings", ()):
                text = f"warning, step {row['step']:,}: {warning['message']}. {warning['advice']}"
                console.print(
                    text, style="yellow", markup=False, highlight=False, soft_wrap=not in_terminal
                )
            if not quiet and (chosen := chosen_readout(row.get("readout", {}))):
                _print(console, chosen)
            now = time.monotonic()
            period = max(PLAIN_PERIOD_SECONDS, (now - view.started) / 100)
            due = now - last_line > period and row["step"] != shown
            if row["step"] == view.total:  # the evaluation after the last step is the last line
                due = row["event"] == "evaluate"
            if not in_terminal and not quiet and due:
                _print(console, _plain_line(view))
                last_line, shown = now, row["step"]
    if not quiet and (line := _last_line(view)):
        _print(console, line)


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
