"""``daso reproduce``: run and print the tables and figures of the paper."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from daso.cli.terminal.counters import tell
from daso.cli.terminal.parse import Argument, parse
from daso.errors import OptionError, Range
from daso.files import leads_somewhere
from daso.track import Kind, check_installed

FIGURES = "figures"


@dataclass(frozen=True)
class ReproduceCommand:
    """Reproduce tables of the paper: run missing cells, print them beside its numbers.

    Complete runs are never repeated, and stopped ones are resumed. Several processes, also on
    several machines, may work on one folder.
    """

    tables: Annotated[tuple[str, ...], Argument("TABLE", positional=True)]
    """One or more of 1 to 8 and 11 to 17; or figures."""
    rows: tuple[str, ...] = ()
    """Run only these rows: labels, methods, or names shown by --list (default: all)."""
    columns: tuple[str, ...] = ()
    """Run only these columns: settings, see daso presets (default: all)."""
    seeds: Annotated[tuple[str, ...], Argument("NUMBER")] = ("0", "1", "2")
    """Seeds: one run of each cell for each; a seed also decides the split."""
    scale: Literal["full", "lite", "smoke"] | None = None
    """full: as in the paper; lite: for a CPU; smoke: a few steps, to test that it works (default:
    the scale of --out, or full)."""
    jobs: Annotated[int, Range(1)] = 1
    """Number of processes; with more than one, each uses one thread. More can be started by hand on
    the same folder. With --engine: jobs that run at a time."""
    engine: Literal["slurm", "local"] | None = None
    """Submit each run as a job of an array and return. Repeat the command to see the progress, to
    submit failed jobs again, and to print the tables. local: all at once on this machine, to try
    it."""
    engine_options: tuple[str, ...] = ()
    """Resources of a job, as submitit names them: timeout_min=1440 gpus_per_node=1 cpus_per_task=4
    slurm_partition=gpu."""
    wait: bool = False
    """With --engine: return when all jobs have ended."""
    out: Path | None = None
    """Folder of the campaign (default: runs/reproduce-SCALE)."""
    data: Path | None = None
    """Location of the data sets: a folder with one folder for each source, or the data set itself
    (default: the usual places)."""
    weights: Path | None = None
    """File of ImageNet weights, safetensors, from which ResNet-34 starts on Semi-Aves (Table 4), as
    in the paper; recorded in --out."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the first accelerator."""
    track: Annotated[tuple[Kind, ...], Argument(repeated=True)] = ()
    """Also send the numbers of the runs to a tracker; repeat it for several."""
    list: bool = False
    """Show the runs and their states; run nothing."""
    table_only: bool = False
    """Print and write the tables with the runs there are; run nothing."""

    def seed_numbers(self) -> tuple[int, ...]:
        words = _split(self.seeds)
        seeds = tuple(int(word) for word in words if word.isdecimal())
        if len(set(seeds)) < len(words):
            raise OptionError(
                f"--seeds {' '.join(self.seeds)}: must be whole numbers of at least 0, none twice"
            )
        return seeds


def _split(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for word in words for part in word.split(",") if part)


def run(argv: Sequence[str]) -> int:
    """Reproduce tables or figures; return 1 if a cell failed."""
    command = parse(ReproduceCommand, argv, "daso reproduce")
    tables, seeds = _split(command.tables), command.seed_numbers()
    check_installed(command.track)
    if command.weights is not None and not leads_somewhere(command.weights):
        raise OptionError(f"--weights {command.weights} does not exist; check the path")
    if command.engine is None and (command.engine_options or command.wait):
        raise OptionError("--engine-options and --wait need --engine")
    if not tables:
        from daso.reproduce.paper_tables import paper_tables

        numbers = ", ".join(map(str, paper_tables()))
        raise OptionError(f"no table given; choose from {numbers}, or {FIGURES}")
    from daso.cli.processes.cells import draw, list_cells, run_all, show, submit_all
    from daso.cli.processes.signals import Stop
    from daso.cli.processes.slurm import Jobs
    from daso.reproduce.campaign import Campaign
    from daso.reproduce.cells import select, table_cells
    from daso.train.allocator import keep_freed_memory
    from daso.train.encoder.precision import choose_precision
    from daso.train.step.state import choose_device

    out = command.out or Path("runs") / f"reproduce-{command.scale or 'full'}"
    campaign = Campaign.open(
        out, command.scale, command.data, command.device, command.track, command.weights
    )
    if tables == (FIGURES,):
        draw(campaign, command.columns)
        return 0
    parts = select(tables, command.rows, command.columns)
    cells, refused = table_cells(parts, seeds)
    if command.list:
        list_cells(campaign, cells, refused)
        return 0
    is_open = campaign.scale.train.get("precision") == "auto"
    campaign.begin()
    if is_open:
        tell(choose_precision(choose_device(command.device)).reason)
    keep_freed_memory()
    left: list[str] = []
    busy: list[str] = []
    words = ["reproduce", *argv]
    if command.engine is not None and not command.table_only:
        jobs = Jobs(campaign, command.engine, command.engine_options)
        failed = submit_all(campaign, cells, jobs, command.jobs, words, wait=command.wait)
        left = refused + failed
    elif not command.table_only:
        stop = Stop()
        try:
            failed, busy = run_all(campaign, cells, parts, command.jobs, stop)
        finally:
            if stop():
                again = shlex.join(["daso", *words])
                tell(f"stopped; complete runs are kept. Resume with: {again}")
        if stop():
            return stop.status
        left = refused + failed
    show(campaign, parts)
    for names, what in ((busy, "left to other processes that run them"), (left, "not done")):
        if names:
            tell("\n  ".join([f"{what}:", *names]))
    return 1 if left else 0
