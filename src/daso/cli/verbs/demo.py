"""``daso demo``: four methods on long-tailed digits."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daso.cli.terminal.counters import tell
from daso.cli.terminal.parse import Argument
from daso.errors import OptionError, Range
from daso.presets.demo import METHODS, SEEDS, SPLIT, demo_config
from daso.track import Kind, check_installed

if TYPE_CHECKING:
    from rich.table import Table

    from daso.report.runs import RunFolder

BASELINE = "supervised+la"
"""The method that the others are compared with, seed by seed."""


@dataclass(frozen=True)
class DemoCommand:
    """Train four methods on long-tailed handwritten digits and compare them per class."""

    out: Path | None = None
    """Folder for the runs and the picture (default: runs/demo-1, -2, ...)."""
    seeds: Annotated[tuple[int, ...], Range(0, 2**32, below=True)] = SEEDS
    """Seeds, one run of each method per seed; they share the split and the initial weights."""
    steps: Annotated[int, Range(1)] | None = None
    """Training steps of each run but the mixture's, which needs none (default: 400)."""
    jobs: Annotated[int, Range(1)] | None = None
    """Runs at a time, one thread each (default: one per processor)."""
    track: Annotated[tuple[Kind, ...], Argument(repeated=True)] = ()
    """Send the numbers to a tracker too; repeat the option for several trackers."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise OptionError(f"--seeds {' '.join(map(str, self.seeds))}: a seed is given twice")


def _one_run(method: str, seed: int, steps: int | None, folder: Path, track: Sequence[str]) -> None:
    import torch

    from daso.report.figures.draw import draw_run
    from daso.track import tracked
    from daso.train.prepare import prepare
    from daso.train.run import train_run

    torch.set_num_threads(1)
    rows = train_run(prepare(demo_config(method, seed, steps)), folder)
    for _ in tracked(rows, track, folder, lambda text: tell(f"{folder.name}: {text}")):
        pass
    draw_run(folder)


def _train_all(command: DemoCommand, folder: Path) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    from daso.cli.terminal.tables import progress_bar
    from daso.report.runs import read_run

    cells = [(method, seed) for seed in command.seeds for method in METHODS]
    jobs = command.jobs or os.cpu_count() or 1
    # One thread per process: more would wait for one another on the same processors.
    os.environ["OMP_NUM_THREADS"] = "1"
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with (
        ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool,
        progress_bar(*bar) as progress,
    ):
        task = progress.add_task("training", total=len(cells))
        futures = {}
        for method, seed in cells:
            run = folder / f"{method}-{seed}"
            future = pool.submit(_one_run, method, seed, command.steps, run, command.track)
            futures[future] = (method, seed)
        for number, future in enumerate(as_completed(futures), 1):
            if future.exception() is not None:
                pool.shutdown(cancel_futures=True)
            future.result()
            method, seed = futures[future]
            progress.advance(task)
            summary = read_run(folder / f"{method}-{seed}").summary
            progress.console.print(
                f"[{number}/{len(cells)}] {method}, seed {seed}: balanced accuracy "
                f"{100 * summary['balanced_accuracy']:.1f}% in {summary['seconds']:.0f} s",
                markup=False,
                highlight=False,
            )


def comparison_table(groups: dict[str, list[RunFolder]]) -> Table:
    """Return mean ± standard deviation of recall per class, and of balanced accuracy."""
    from daso.cli.terminal.tables import make_table
    from daso.report.compare.statistics import pair, spread
    from daso.report.compare.tables import value_of

    first = next(iter(groups.values()))[0]
    columns = [name.replace("+", "\n+", 1) for name in groups]
    table = make_table(["class", "labeled", *columns], "recall on test images, in %")
    for k in first.order:
        cells = [spread([100 * float(run.recall()[k]) for run in runs]) for runs in groups.values()]
        table.add_row(first.class_names[k], str(first.data["labeled_counts"][k]), *cells)
    table.add_section()
    for title, measure in (
        ("balanced accuracy", "balanced accuracy"),
        ("  logit-adjusted", "logit-adjusted"),
        ("rarest third", "recall, few labels"),
    ):
        values = [[value_of(run, measure) for run in runs] for runs in groups.values()]
        cells = ["" if math.isnan(sum(each)) else spread(each) for each in values]
        table.add_row(title, "", *cells)
    table.add_section()

    def by_seed(name: str) -> dict[int, float]:
        runs = groups[name]
        return {run.config["train"]["seed"]: value_of(run, "balanced accuracy") for run in runs}

    gains = [pair(by_seed(name), by_seed(BASELINE)) for name in groups]
    cells = [f"{spread(gain.values)}\n({gain.better} of {len(gain.values)})" for gain in gains]
    cells = ["" if name == BASELINE else cell for name, cell in zip(groups, cells, strict=True)]
    table.add_row(f"gain over\n{BASELINE}", "", *cells)
    return table


def run(command: DemoCommand) -> None:
    """Run the demonstration as the arguments say."""
    check_installed(command.track)

    from daso.cli.terminal.tables import wide_console
    from daso.report.figures.draw import draw_comparison
    from daso.report.results import append_row, result_row
    from daso.report.runs import read_run
    from daso.train.folder.lock import free_folder, refuse_taken

    folder = command.out or free_folder("demo")
    refuse_taken(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tell(
        f"digits: {SPLIT.labeled_head} labeled images of the most frequent class, imbalance ratio "
        f"{SPLIT.gamma_labeled:g}; {SPLIT.unlabeled_head} unlabeled images of every class, whose "
        f"balance the methods do not know.\n{len(METHODS)} methods x {len(command.seeds)} seeds"
    )
    _train_all(command, folder)
    groups = {
        method: [read_run(folder / f"{method}-{seed}") for seed in command.seeds]
        for method in METHODS
    }
    picture, results = folder / "comparison.png", folder / "results.csv"
    draw_comparison(groups, picture)
    for run_folder in itertools.chain(*groups.values()):
        append_row(results, result_row(run_folder))
    wide_console().print(comparison_table(groups))
    print(
        f"picture: {picture}\nnumbers: {results}\n"
        f"runs:    {folder}/METHOD-SEED, each with its own plots"
    )
