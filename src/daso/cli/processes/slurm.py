"""Run cells of a campaign as jobs of a scheduler through submitit: one array, one job a cell."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from daso.errors import OptionError, RunError, import_extra
from daso.files import Row, read_json, save_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell
from daso.train.allocator import keep_freed_memory
from daso.train.prepare import Prepared

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

FOLDER, QUEUE = "jobs", "queue.json"
DEFAULT_TIMEOUT_MINUTES = 1440
MAX_REQUEUES = 1000
"""How often a job whose time ran out is queued again, at most."""
POLL_SECONDS = 2.0
"""Time between two checks of jobs that the command waits for."""

Engine = Literal["slurm", "local"]


@dataclass(frozen=True)
class CellJob:
    """A cell as a job.

    The scheduler sends SIGUSR2 some time before it ends a job: the run is saved and the job queued
    again. SIGTERM, sent when a job is canceled or its machine taken back, saves the run; the job
    then waits for its end.

    Attributes:
        campaign: with absolute paths.
        command: that submitted the job, for ``environment.json``.
    """

    campaign: Campaign
    cell: Cell
    command: tuple[str, ...] = ()

    def __call__(self) -> str:
        keep_freed_memory()
        sys.argv = ["daso", *self.command]
        received: list[int] = []
        requeue = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        outcome = self.campaign.attempt(self.cell, _print, lambda: bool(received))
        print(f"{self.cell}: {outcome.message}", flush=True)
        if outcome.state == "stopped":
            while signal.SIGUSR2 not in received:
                time.sleep(0.1)
            signal.signal(signal.SIGUSR2, requeue)
            signal.raise_signal(signal.SIGUSR2)  # submitit queues the job again and exits
        if outcome.state == "failed":
            raise RunError(outcome.message)
        return outcome.message

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit runs when the job starts again: the rest of the cell."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _print(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
    print(f"{cell}: from step {prepared.step:,} of {prepared.total_steps:,}", flush=True)
    for row in rows:
        if row["event"] == "evaluate":
            print(f"step {row['step']:,}", flush=True)


class Jobs:
    """The jobs of a campaign in a scheduler's queue, recorded in ``OUT/jobs/queue.json``.

    Args:
        engine: ``"slurm"``, or ``"local"``: processes on this machine, all at once, to try it.
        options: of submitit's executor, as ``name=value``: timeout_min, gpus_per_node, ...

    Raises:
        MissingDependencyError: submitit is not installed.
        OptionError: the engine is not available, or an option is unknown.
    """

    def __init__(self, campaign: Campaign, engine: Engine, options: Sequence[str] = ()) -> None:
        self.campaign = campaign.with_absolute_paths()
        self.folder = self.campaign.folder / FOLDER
        values = dict(map(_parse_option, options))
        import_extra("submitit", "cluster", "--engine needs")
        from submitit import AutoExecutor, LocalJob, SlurmJob

        self._kind: type[Job[str]] = SlurmJob if engine == "slurm" else LocalJob
        requeues = {f"{name}_max_num_timeout": MAX_REQUEUES for name in ("slurm", "local")}
        defaults = {"timeout_min": DEFAULT_TIMEOUT_MINUTES, "stderr_to_stdout": True}
        try:
            self._executor: AutoExecutor = AutoExecutor(self.folder, cluster=engine, **requeues)
            self._executor.update_parameters(**{"name": "daso", **defaults, **values})
        except (RuntimeError, NameError, ValueError, AssertionError) as error:
            raise OptionError(f"--engine {engine}: {error}") from error

    def submit(
        self, cells: Sequence[Cell], parallel: int, command: Sequence[str]
    ) -> dict[str, Job[str]]:
        """Submit, as one array, the cells that have no job and that no other process runs.

        At most *parallel* jobs run at a time. *command* is noted in the runs.

        Returns:
            New and existing jobs by the names of their cells.

        Raises:
            RunError: the scheduler refuses them.
        """
        from submitit.core.utils import FailedSubmissionError

        with self.campaign.alone():  # another command may submit at the same time
            path = self.folder / QUEUE
            queue: dict[str, Any] = read_json(path) if path.exists() else {}
            names = [str(cell) for cell in cells if str(cell) in queue]
            jobs = {name: self._kind(self.folder, queue[name]) for name in names}
            jobs = {name: job for name, job in jobs.items() if not job.done()}
            new = [c for c in cells if str(c) not in jobs and self.campaign.state(c) != "running"]
            if self._executor.cluster == "slurm":
                self._executor.update_parameters(slurm_array_parallelism=parallel)
            try:
                functions = [CellJob(self.campaign, cell, tuple(command)) for cell in new]
                submitted = self._executor.submit_array(functions) if new else []
            except (FailedSubmissionError, OSError) as error:
                raise RunError(f"the jobs were not submitted: {error}") from error
            jobs |= dict(zip(map(str, new), submitted, strict=True))
            save_json(path, queue | {name: job.job_id for name, job in jobs.items()})
        return jobs


def _parse_option(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals:
        raise OptionError(f"--engine-options {option}: must be name=value, such as timeout_min=600")
    try:
        number = json.loads(value)
    except ValueError:
        return name, value
    return name, number if isinstance(number, int | float) else value
