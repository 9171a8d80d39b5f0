"""``daso reproduce``: the tables and figures of the paper, from as many runs as are there."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

import tyro
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from daso.cli.processes.signals import Stop
from daso.cli.processes.slurm import LOOK, Engine, Jobs
from daso.cli.processes.workers import Workers
from daso.cli.terminal.follow import follow
from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import wide_console
from daso.errors import OptionError, RunError, nearest
from daso.files import Row
from daso.presets.benchmarks import PRESETS
from daso.report.compare.with_paper import Comparison
from daso.report.figures.draw import draw_figures
from daso.reproduce.campaign import NOT_BEGUN, Campaign, Outcome, run_cells
from daso.reproduce.cells import Cell, table_cells
from daso.reproduce.compare import compare, figure_groups, write_tables
from daso.reproduce.paper_tables import PaperTable, TableColumn, TableRow, paper_tables
from daso.track import Kind, check_installed
from daso.train.allocator import keep_freed_memory
from daso.train.prepare import Prepared, describe_data

FIGURES = "figures"
GUESSING = {"FixMatch": "fixmatch", "USADTM": "usadtm", "DASO": "fixmatch+daso"}
ANSWERING = {"FixMatch": "fixmatch", "DASO": "fixmatch+daso", "ABC + DASO": "fixmatch+abc+daso"}


@dataclass(frozen=True)
class ReproduceCommand:
    """Run what is missing of tables of the paper, and print and write them beside the paper's numbers.

    What is done is never done again: a campaign that was stopped goes on, and several processes, also on several
    machines, may work on one folder.
    """

    tables: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TABLE")]
    """One or more of 1 to 8 and 11 to 17; or figures."""
    rows: tuple[str, ...] = ()
    """Run only these rows: labels, methods, or names that --list shows (default: all)."""
    columns: tuple[str, ...] = ()
    """Run only these columns: settings, see daso presets (default: all)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Runs of each cell, one for each seed; a seed decides the split too."""
    scale: Literal["full", "lite", "smoke"] | None = None
    """full: as in the paper; lite: for a CPU; smoke: a few steps, to see that it works (default: the scale of --out,
    or full)."""
    jobs: int = 1
    """Processes, of one thread each if several; more can be started by hand on the same folder. With --engine: jobs
    that run at a time."""
    engine: Literal["slurm", "local"] | None = None
    """Submit the runs to a scheduler, each as a job of an array, and return; the same command later shows how far they
    are, submits again what failed, and prints the tables. local: all at once on this machine, to try it."""
    engine_options: tuple[str, ...] = ()
    """What a job needs, in submitit's words: timeout_min=1440 gpus_per_node=1 cpus_per_task=4 slurm_partition=gpu."""
    wait: bool = False
    """With --engine: return when all jobs have ended."""
    out: Path | None = None
    """Folder of the campaign (default: runs/reproduce-SCALE)."""
    data: Path | None = None
    """Where the data sets are: in folders called as the sources, or itself the one needed (default: the usual
    places)."""
    weights: Path | None = None
    """File of ImageNet weights, safetensors, that ResNet-34 starts from on Semi-Aves (Table 4), as the paper's does;
    noted in --out."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the first accelerator there is."""
    track: tyro.conf.UseAppendAction[tuple[Kind, ...]] = ()
    """Send the numbers of the runs to a tracker too; may be given again for another one."""
    list: bool = False
    """Show the runs and how far they are; run nothing."""
    table_only: bool = False
    """Print and write the tables of what is there; run nothing."""


@dataclass(frozen=True)
class Selection:
    """A table and the part of it that is wanted."""

    table: PaperTable
    rows: tuple[TableRow, ...]
    columns: tuple[TableColumn, ...]


def select(tables: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> list[Selection]:
    """Return the wanted part of each table; tables in which nothing is wanted are left out.

    Raises:
        OptionError: there is no such table, row or column; the nearest one is named.
    """
    known = {str(number): table for number, table in paper_tables().items()}
    for name in tables:
        if name not in known:
            raise OptionError(
                f"there is no table {name!r} to reproduce; there are {', '.join(known)}, {FIGURES}"
            )
    chosen = [known[name] for name in dict.fromkeys(tables)]
    names_of = {id(row): _names(row, table) for table in chosen for row in table.rows}
    row_names = set().union(*names_of.values())
    column_names = {column.preset for table in chosen for column in table.columns}
    for wanted, names, what in ((rows, row_names, "row"), (columns, column_names, "column")):
        for name in wanted:
            if name.lower() not in names:
                raise OptionError(
                    f"no such {what}: {name!r}.{nearest(name.lower(), sorted(names))}"
                )
    wanted_rows, wanted_columns = (
        {name.lower() for name in rows},
        {name.lower() for name in columns},
    )
    parts = [
        Selection(
            table,
            tuple(row for row in table.rows if not wanted_rows or wanted_rows & names_of[id(row)]),
            tuple(c for c in table.columns if not wanted_columns or c.preset in wanted_columns),
        )
        for table in chosen
    ]
    return [part for part in parts if part.rows and part.columns]


def _names(row: TableRow, table: PaperTable) -> set[str]:
    """Return what a row may be called: its own names, and those of its runs, which ``--list`` shows."""
    cells, _ = table_cells([([row], table.columns)], [0])
    return row.names | {cell.variant.name.lower() for cell in cells}


def comparison_table(comparison: Comparison) -> Table:
    """Show own numbers, and below each the paper's."""
    table = Table(box=SIMPLE_HEAD, leading=1)
    table.add_column("")
    for column in comparison.columns:
        table.add_column(column, justify="right")
    for label, _, entries in comparison.rows:
        cells = [f"{entry.own_text}\n[dim]{entry.paper_text}[/dim]" for entry in entries]
        table.add_row(f"{escape(label)}\n[dim]  paper[/dim]", *cells)
    return table


def list_cells(campaign: Campaign, cells: Sequence[Cell], refused: Sequence[str]) -> None:
    """Print the cells and how far they are."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("setting", "method", "seed", "state"):
        table.add_column(name, overflow="fold")
    for cell in cells:
        table.add_row(cell.preset, escape(cell.variant.name), str(cell.seed), campaign.state(cell))
    wide_console().print(table)
    for reason in refused:
        print(f"cannot be run: {reason}")


def show(campaign: Campaign, parts: Sequence[Selection]) -> None:
    """Print the wanted parts of the tables, and write the whole tables."""
    console = wide_console()
    problems: dict[str, None] = {}
    paths = write_tables(campaign, [part.table for part in parts])
    for part, path in zip(parts, paths, strict=True):
        comparison, found = compare(campaign, part.table, part.rows, part.columns)
        problems |= dict.fromkeys(found)
        print(comparison.title)
        console.print(comparison_table(comparison))
        print("\n".join(comparison.notes))
        print(f"whole table: {path}, .csv, .tex\n")
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)


def run_all(
    campaign: Campaign, cells: Sequence[Cell], parts: Sequence[Selection], jobs: int, stop: Stop
) -> tuple[list[str], list[str]]:
    """Run the cells that are not complete; return what could not be done and why, and what other processes are at.

    What *stop* hears of meanwhile ends the trainings with a checkpoint.
    """
    complete, left = [], []
    for cell in cells:
        if campaign.state(cell) == "complete":
            complete.append(cell)
            try:
                campaign.record(cell)
            except RunError as error:
                left.append(f"{cell}: {error}")
    done = len(complete)
    print(
        f"scale {campaign.scale.name}: {len(cells)} runs in {campaign.folder}, {done} of them complete",
        file=sys.stderr,
    )

    def report(cell: Cell, outcome: Outcome) -> None:
        nonlocal done
        done += 1
        failed = "failed: " if outcome.state == "failed" else ""
        print(
            f"[{done}/{len(cells)}] {cell}: {failed}{outcome.message}", file=sys.stderr, flush=True
        )
        write_tables(campaign, [part.table for part in parts])

    def watch(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
        follow(
            rows,
            total=prepared.total_steps,
            done=prepared.step,
            label=str(cell),
            data=describe_data(prepared.data),
            stages=len(prepared.plan.stages()),
        )

    def in_turn(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        return ((cell, campaign.attempt(cell, watch, stop)) for cell in cells)

    with stop.listening(), Workers(campaign, jobs, stop) if jobs > 1 else nullcontext() as workers:
        over = run_cells(
            [cell for cell in cells if cell not in complete],
            workers.attempts if workers else in_turn,
            report,
        )
    for cell, outcome in over:
        if outcome.state == "stopped" and outcome.message != NOT_BEGUN:
            print(f"{cell}: {outcome.message}", file=sys.stderr)
    left += [f"{cell}: {outcome.message}" for cell, outcome in over if outcome.state == "failed"]
    return left, [str(cell) for cell, outcome in over if outcome.state == "in use"]


def submit_all(
    campaign: Campaign, cells: Sequence[Cell], command: ReproduceCommand, argv: Sequence[str]
) -> list[str]:
    """Submit the cells that are not complete and have no job; return, if jobs were waited for, which cells failed."""
    jobs = Jobs(campaign, cast(Engine, command.engine), command.engine_options)
    missing = [cell for cell in cells if campaign.state(cell) != "complete"]
    queued = jobs.submit(missing, command.jobs, ["reproduce", *argv])
    print(
        f"scale {campaign.scale.name}: {len(cells)} runs in {campaign.folder}, {len(cells) - len(missing)} of them "
        f"complete, {len(queued)} with a job",
        file=sys.stderr,
    )
    named = {str(cell): cell for cell in missing}
    for name, job in queued.items():
        print(
            f"  {name}: job {job.job_id}, {campaign.state(named[name])}, log {job.paths.stdout}",
            file=sys.stderr,
        )
    left = []
    while command.wait and queued:
        for name in [name for name, job in queued.items() if job.done()]:
            state, log = campaign.state(named[name]), queued.pop(name).paths.stdout
            if state != "complete":
                left.append(f"{name}: {state}, see {log}")
            print(f"{name}: {state}", file=sys.stderr, flush=True)
        time.sleep(LOOK if queued else 0)
    return left


def draw(campaign: Campaign, columns: Sequence[str]) -> None:
    """Draw the figures of every setting, or the named ones, that has runs for them."""
    for name in columns:
        if name not in PRESETS:
            raise OptionError(f"no such column: {name!r}.{nearest(name, PRESETS)}")
    drawn = 0
    problems: dict[str, None] = {}
    for preset in columns or PRESETS:
        (guessing, wrong), (answering, more) = (
            figure_groups(campaign, preset, methods) for methods in (GUESSING, ANSWERING)
        )
        problems |= dict.fromkeys([*wrong, *more])
        for path in draw_figures(guessing, answering, campaign.folder / "figures" / preset):
            drawn += 1
            print(path)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if not drawn:
        raise OptionError(
            f"{campaign.folder} has no complete run of {', '.join({**GUESSING, **ANSWERING})}"
        )


def run(argv: Sequence[str]) -> int:
    """Reproduce as the arguments say."""
    # Lists of numbers may have commas.
    argv = [
        word
        for given in argv
        for word in (given.split(",") if re.fullmatch(r"[\d,]+", given) else [given])
    ]
    command = parse(ReproduceCommand, argv, "daso reproduce")
    out = command.out or Path("runs") / f"reproduce-{command.scale or 'full'}"
    check_installed(command.track)
    if command.weights is not None and not command.weights.is_file():
        raise OptionError(f"--weights {command.weights}: there is no such file")
    campaign = Campaign.open(
        out, command.scale, command.data, command.device, command.track, command.weights
    )
    if command.tables == (FIGURES,):
        draw(campaign, command.columns)
        return 0
    if not command.tables:
        raise OptionError(f"name a table: {', '.join(map(str, paper_tables()))}; or {FIGURES}")
    if command.jobs < 1:
        raise OptionError(f"jobs = {command.jobs} must be at least 1")
    if command.engine is None and (command.engine_options or command.wait):
        raise OptionError("--engine-options and --wait go with --engine")
    if min(command.seeds, default=0) < 0:
        raise OptionError(f"seeds = {' '.join(map(str, command.seeds))}: a seed is at least 0")
    if len(set(command.seeds)) < len(command.seeds):
        raise OptionError(
            f"seeds = {' '.join(map(str, command.seeds))}: one is named twice; each is one run"
        )
    parts = select(command.tables, command.rows, command.columns)
    cells, refused = table_cells([(part.rows, part.columns) for part in parts], command.seeds)
    if command.list:
        list_cells(campaign, cells, refused)
        return 0
    campaign.begin()
    keep_freed_memory()
    left: list[str] = []
    busy: list[str] = []
    if command.engine is not None and not command.table_only:
        left = refused + submit_all(campaign, cells, command, argv)
    elif not command.table_only:
        stop = Stop()
        try:
            left, busy = run_all(campaign, cells, parts, command.jobs, stop)
        finally:
            if stop():
                again = shlex.join(["daso", "reproduce", *argv])
                print(f"stopped; what is done is kept: '{again}' goes on", file=sys.stderr)
        if stop():
            return stop.status
        left = refused + left
    show(campaign, parts)
    if busy:
        print(
            f"{len(busy)} left to other processes, which are at them:",
            *busy,
            sep="\n  ",
            file=sys.stderr,
        )
    if left:
        print(f"{len(left)} not done:", *left, sep="\n  ", file=sys.stderr)
    return 1 if left else 0
