"""What a person sees while a run trains: a live view on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from daso.cli.terminal.live_view import View, shown_classes
from daso.files import Row
from daso.report.runs import duration

PLAIN_PERIOD = 15.0
"""Seconds between lines where the output is not a terminal; a hundredth of the time so far, if that is more."""


def _plain_line(view: View) -> str:
    stage = (
        f"  stage {view.evaluation['stage'] + 1}/{view.stages}"
        if "stage" in view.evaluation
        else ""
    )
    numbers = "  ".join(view.numbers())
    left = duration(view.seconds_left())
    return f"{view.label}{stage}  step {view.step}/{view.total}  {numbers}  {left} left"


def _last_line(view: View) -> str:
    said = []
    where, measured = view.measured()
    if measured:
        when = "at the end" if view.step >= view.total else "when last measured"
        said.append(
            f"balanced accuracy {measured['balanced_accuracy']:.1%} on {where} images {when}"
        )
    if "share_confident" in view.train:
        said.append(f"{view.train['share_confident']:.0%} of the pseudo-labels over the threshold")
    if worst := ", ".join(f"{name} {value:.0%}" for name, value in view.worst()):
        said.append(f"worst recall: {worst}")
    return f"{view.label}: {'; '.join(said)}" if said else ""


@contextmanager
def _live(console: Console, view: View, shown: bool) -> Iterator[None]:
    if not shown:
        yield
        return
    with Live(console=console, get_renderable=lambda: view, refresh_per_second=4, transient=True):
        yield


def follow(
    rows: Iterable[Row],
    *,
    total: int,
    done: int = 0,
    label: str = "training",
    data: Row | None = None,
    stages: int = 1,
    fold: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> list[Row]:
    """Consume the rows of a training while showing how it goes; return them.

    Args:
        rows: of ``train_run``.
        total: steps of the whole run.
        done: steps done before (a resumed run).
        label: shown at the front.
        data: what ``data.json`` says, to show the classes.
        stages: of the run.
        fold: whether it is one of a cross-validation: then the numbers are those of the images it holds out.
        quiet: show warnings only.
        console: to write to (default: standard error).
    """
    console = console or Console(file=sys.stderr)
    view = View(label, total, done, stages, fold=fold, **(shown_classes(data) if data else {}))
    view.plain = console.options.ascii_only
    live = console.is_terminal and not console.is_dumb_terminal and not quiet
    kept: list[Row] = []
    last_line = time.monotonic()
    with _live(console, view, live):
        for row in rows:
            kept.append(row)
            view.see(row)
            for warning in row.get("warnings", ()):
                text = f"warning, step {row['step']:,}: {warning['message']}. {warning['advice']}"
                console.print(
                    text, style="yellow", markup=False, highlight=False, soft_wrap=not live
                )
            now = time.monotonic()
            finished = row["event"] == "evaluate" and row["step"] == total
            period = max(PLAIN_PERIOD, (now - view.started) / 100)
            if not live and not quiet and (now - last_line > period or finished):
                _print(console, _plain_line(view))
                last_line = now
    if kept and not quiet and (line := _last_line(view)):
        _print(console, line)
    return kept


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.file.flush()
