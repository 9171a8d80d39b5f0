"""Run, submit, list and show the cells of a campaign."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

from rich.markup import escape

from daso.cli.processes.signals import Stop
from daso.cli.processes.slurm import POLL_SECONDS, Jobs
from daso.cli.processes.workers import Workers
from daso.cli.terminal.counters import tell
from daso.cli.terminal.follow import follow, view_of
from daso.cli.terminal.tables import make_table, wide_console
from daso.errors import OptionError, RunError, how_many, nearest
from daso.files import Row
from daso.presets.benchmarks import PRESETS
from daso.report.figures.draw import draw_figures
from daso.reproduce.campaign import NOT_STARTED, Campaign
from daso.reproduce.cells import Cell, Outcome, run_cells
from daso.reproduce.compare import compare, figure_groups, write_tables
from daso.reproduce.paper_tables import PaperTable
from daso.train.prepare import Prepared

PSEUDO_LABELED = {"FixMatch": "fixmatch", "USADTM": "usadtm", "DASO": "fixmatch+daso"}
"""Methods in the figure of pseudo-labels, by label."""
CLASSIFIED = {"FixMatch": "fixmatch", "DASO": "fixmatch+daso", "ABC + DASO": "fixmatch+abc+daso"}
"""Methods in the figures of test images, by label."""


def list_cells(campaign: Campaign, cells: Sequence[Cell], refused: Sequence[str]) -> None:
    """Print cells and their states."""
    table = make_table(("setting", "method", "seed", "state"), left=4)
    for cell in cells:
        table.add_row(cell.preset, escape(cell.variant.name), str(cell.seed), campaign.state(cell))
    wide_console().print(table)
    for reason in refused:
        print(f"cannot be run: {reason}")


def show(campaign: Campaign, parts: Sequence[PaperTable]) -> None:
    """Print parts of tables, and write the whole tables."""
    console = wide_console()
    problems: list[str] = []
    paths = write_tables(campaign, parts)
    for part, path in zip(parts, paths, strict=True):
        comparison, wrong = compare(campaign, part)
        problems += wrong
        print(comparison.title)
        table = make_table(["", *comparison.columns], leading=1)
        for label, _, entries in comparison.rows:
            cells = [f"{entry.own_text}\n[dim]{entry.paper_text}[/dim]" for entry in entries]
            table.add_row(f"{escape(label)}\n[dim]  paper[/dim]", *cells)
        console.print(table)
        print("\n".join(comparison.notes))
        print(f"whole table: {path}, .csv, .tex\n")
    _tell_left_out(problems)


def draw(campaign: Campaign, columns: Sequence[str]) -> None:
    """Draw the figures of the named settings, or of all, that have runs for them."""
    for name in columns:
        if name not in PRESETS:
            raise OptionError(f"unknown column {name!r}.{nearest(name, PRESETS)}")
    drawn = False
    problems: list[str] = []
    for preset in columns or PRESETS:
        pseudo_labeled, wrong = figure_groups(campaign, preset, PSEUDO_LABELED)
        classified, more = figure_groups(campaign, preset, CLASSIFIED)
        problems += [*wrong, *more]
        for path in draw_figures(pseudo_labeled, classified, campaign.folder / "figures" / preset):
            drawn = True
            print(path)
    _tell_left_out(problems)
    if not drawn:
        labels = ", ".join({**PSEUDO_LABELED, **CLASSIFIED})
        raise OptionError(f"{campaign.folder} has no complete run of {labels}")


def _tell_left_out(problems: Iterable[str]) -> None:
    for problem in dict.fromkeys(problems):
        tell(f"left out: {problem}")


def run_all(
    campaign: Campaign, cells: Sequence[Cell], parts: Sequence[PaperTable], jobs: int, stop: Stop
) -> tuple[list[str], list[str]]:
    """Run the incomplete cells; a request to *stop* saves the running ones.

    Returns:
        What failed and why, and the cells that other processes run.
    """
    failed, incomplete = [], []
    for cell in cells:
        if campaign.state(cell) != "complete":
            incomplete.append(cell)
            continue
        try:
            campaign.record(cell)
        except RunError as error:
            failed.append(f"{cell}: {error}")
    done = len(cells) - len(incomplete)
    tell(f"{_counted(campaign, cells)}, {done} of them complete")
    for source, reason in campaign.unreadable(incomplete, keep=jobs == 1).items():
        lost = [cell for cell in incomplete if PRESETS[cell.preset].source == source]
        incomplete = [cell for cell in incomplete if cell not in lost]
        runs = f"{how_many(len(lost), 'run')} of {source}"
        failed.append(f"{runs}, see above")
        tell(f"{runs} cannot start: {reason}")

    def report(cell: Cell, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        text = f"{'failed: ' if outcome.state == 'failed' else ''}{outcome.message}"
        tell(f"[{done}/{len(cells)}] {cell}: {text}")
        write_tables(campaign, parts)

    def watch(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
        follow(rows, view_of(prepared, str(cell)))

    def in_turn(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        return ((cell, campaign.attempt(cell, watch, stop)) for cell in cells)

    with stop.listening(), Workers(campaign, jobs, stop) if jobs > 1 else nullcontext() as workers:
        left = run_cells(incomplete, workers.attempts if workers else in_turn, report)
    for cell, outcome in left:
        if outcome.state == "stopped" and outcome.message != NOT_STARTED:
            tell(f"{cell}: {outcome.message}")
    failed += [f"{cell}: {outcome.message}" for cell, outcome in left if outcome.state == "failed"]
    return failed, [str(cell) for cell, outcome in left if outcome.state == "in use"]


def _counted(campaign: Campaign, cells: Sequence[Cell]) -> str:
    return f"scale {campaign.scale.name}: {len(cells)} runs in {campaign.folder}"


def submit_all(
    campaign: Campaign,
    cells: Sequence[Cell],
    jobs: Jobs,
    parallel: int,
    words: Sequence[str],
    *,
    wait: bool,
) -> list[str]:
    """Submit the incomplete cells without a job, at most *parallel* at a time; print the jobs.

    *words* is the command that submits them. With *wait*, wait until all jobs have ended, and
    return the cells that failed, with their logs.
    """
    incomplete = {str(cell): cell for cell in cells if campaign.state(cell) != "complete"}
    submitted = jobs.submit([*incomplete.values()], parallel, words)
    done = len(cells) - len(incomplete)
    tell(f"{_counted(campaign, cells)}, {done} of them complete, {len(submitted)} with a job")
    for name, job in submitted.items():
        state = campaign.state(incomplete[name])
        tell(f"  {name}: job {job.job_id}, {state}, log {job.paths.stdout}")
    failed = []
    while wait and submitted:
        for name in [name for name, job in submitted.items() if job.done()]:
            log, state = submitted.pop(name).paths.stdout, campaign.state(incomplete[name])
            if state != "complete":
                failed.append(f"{name}: {state}, see {log}")
            tell(f"{name}: {state}")
        if submitted:
            time.sleep(POLL_SECONDS)
    return failed
