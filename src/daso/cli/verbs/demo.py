"""``daso demo``: Supervised, FixMatch and FixMatch with DASO on long-tailed digits, a few seeds each."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from daso.cli.terminal.parse import parse
from daso.cli.terminal.tables import wide_console
from daso.errors import OptionError
from daso.presets.demo import METHODS, SEEDS, SPLIT, demo_config
from daso.report.compare.statistics import pair, spread
from daso.report.compare.tables import value_of
from daso.report.figures.draw import draw_comparison, draw_run
from daso.report.results import append_row, result_row
from daso.report.runs import RunFolder, read_run
from daso.track import Kind, check_installed, tracked
from daso.train.folder.lock import refuse_taken

BASELINE = "fixmatch"
"""The method that differences, of the same seed, are to."""


@dataclass(frozen=True)
class DemoCommand:
    """Train three methods on scikit-learn's handwritten digits, made long-tailed, and compare them per class."""

    out: Path | None = None
    """Folder for the runs and the picture (default: runs/demo-1, -2, ...)."""
    seeds: tuple[int, ...] = SEEDS
    """One run of each method for every seed; methods of a seed share split and initial weights."""
    steps: int | None = None
    """Another length of the runs."""
    jobs: int | None = None
    """Runs at a time, one thread each (default: one for each processor)."""
    track: tyro.conf.UseAppendAction[tuple[Kind, ...]] = ()
    """Send the numbers to a tracker too; may be given again for another one."""

    def __post_init__(self) -> None:
        seeds = self.seeds
        for name, value, valid in (
            (
                "seeds",
                seeds,
                seeds and len({*seeds}) == len(seeds) and all(0 <= seed < 2**32 for seed in seeds),
            ),
            ("steps", self.steps, self.steps is None or self.steps >= 1),
            ("jobs", self.jobs, self.jobs is None or self.jobs >= 1),
        ):
            if not valid:
                raise OptionError(
                    f"{name} = {value!r}: give different seeds from 0 on, steps and jobs from 1 on"
                )


def _one_run(method: str, seed: int, steps: int | None, folder: Path, track: Sequence[str]) -> None:
    """Train one run of the demonstration, in a process of its own."""
    import torch

    from daso.train.prepare import prepare
    from daso.train.run import train_run

    torch.set_num_threads(1)
    rows = train_run(prepare(demo_config(method, seed, steps)), folder)
    for _ in tracked(
        rows, track, folder, lambda text: print(f"{folder.name}: {text}", file=sys.stderr)
    ):
        pass
    draw_run(folder)


def _train_all(command: DemoCommand, folder: Path) -> None:
    cells = [(method, seed) for seed in command.seeds for method in METHODS]
    jobs = command.jobs or os.cpu_count() or 1
    # One thread a process: the threads of several on the same processors would wait for one another.
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
        Progress(
            *columns, console=console, disable=not console.is_terminal, transient=True
        ) as progress,
    ):
        task = progress.add_task("training", total=len(cells))
        futures = {
            pool.submit(
                _one_run, method, seed, command.steps, folder / f"{method}-{seed}", command.track
            ): (
                method,
                seed,
            )
            for method, seed in cells
        }
        for number, future in enumerate(as_completed(futures), 1):
            if future.exception() is not None:
                pool.shutdown(cancel_futures=True)
            future.result()
            method, seed = futures[future]
            progress.advance(task)
            summary = read_run(folder / f"{method}-{seed}").summary
            console.print(
                f"[{number}/{len(cells)}] {method}, seed {seed}: balanced accuracy "
                f"{100 * summary['balanced_accuracy']:.1f}% in {summary['seconds']:.0f} s",
                markup=False,
                highlight=False,
            )


def comparison_table(groups: dict[str, list[RunFolder]]) -> Table:
    """Show recall per class, rarest last, and balanced accuracy of each method: mean ± standard deviation."""
    first = next(iter(groups.values()))[0]
    table = Table(title="recall on test images, in %", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("labelled", justify="right")
    for name in groups:
        table.add_column(name, justify="right")
    for k in first.order:
        cells = [spread([100 * float(run.recall()[k]) for run in runs]) for runs in groups.values()]
        table.add_row(first.class_names[k], str(first.data["labeled_counts"][k]), *cells)
    table.add_section()
    for title, measure in (
        ("balanced accuracy", "balanced accuracy"),
        ("  logit-adjusted", "logit-adjusted"),
        ("rarest third", "recall, few labels"),
    ):
        cells = [spread([value_of(run, measure) for run in runs]) for runs in groups.values()]
        table.add_row(title, "", *cells)
    table.add_section()

    def by_seed(name: str) -> dict[int, float]:
        return {
            run.config["train"]["seed"]: value_of(run, "balanced accuracy") for run in groups[name]
        }

    gains = [pair(by_seed(name), by_seed(BASELINE)) for name in groups]
    cells = [f"{spread(gain.values)} ({gain.better} of {len(gain.values)})" for gain in gains]
    table.add_row(
        f"gain over {BASELINE}",
        "",
        *("" if name == BASELINE else cell for name, cell in zip(groups, cells, strict=True)),
    )
    return table


def run(argv: Sequence[str]) -> None:
    """Run the demonstration as the arguments say."""
    command = parse(DemoCommand, argv, "daso demo")
    check_installed(command.track)
    folder = command.out or next(
        path for n in itertools.count(1) if not (path := Path("runs") / f"demo-{n}").exists()
    )
    refuse_taken(folder)
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"digits: {SPLIT.labeled_head} labelled images of the most frequent class, imbalance ratio "
        f"{SPLIT.gamma_labeled:g}; {SPLIT.unlabeled_head} unlabelled of every class: their balance is unknown "
        f"to the methods.\n{len(METHODS)} methods x {len(command.seeds)} seeds",
        file=sys.stderr,
    )
    _train_all(command, folder)
    groups = {
        method: [read_run(folder / f"{method}-{seed}") for seed in command.seeds]
        for method in METHODS
    }
    picture, results = folder / "comparison.png", folder / "results.csv"
    draw_comparison(groups, picture)
    for finished in itertools.chain(*groups.values()):
        append_row(results, result_row(finished))
    wide_console().print(comparison_table(groups))
    print(
        f"picture: {picture}\nnumbers: {results}\nruns:    {folder}/METHOD-SEED, each with its own plots"
    )
