"""Runs cells of a campaign as jobs of a cluster's scheduler, through submitit: an array with a job for each cell."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from daso.errors import MissingDependencyError, OptionError, RunError
from daso.files import Row, read_json, save_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell
from daso.train.allocator import keep_freed_memory
from daso.train.prepare import Prepared

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

FOLDER, QUEUE = "jobs", "queue.json"
DAY = 1440
REQUEUED = 1000
"""Times, at most, that a job whose time is up is queued again."""
LOOK = 2.0
"""Seconds between two looks at jobs that are waited for."""

Engine = Literal["slurm", "local"]


@dataclass(frozen=True)
class CellJob:
    """A cell as a job.

    SIGUSR2, which the scheduler sends some time before it ends a job, has the run saved and the job queued again.
    After SIGTERM, with which a scheduler takes a machine back or a user cancels, it is saved and waits for the end.

    Attributes:
        campaign: with absolute paths.
        cell: of it.
        command: what submitted it, for ``environment.json``.
    """

    campaign: Campaign
    cell: Cell
    command: tuple[str, ...] = ()

    def __call__(self) -> str:
        """Run the cell, or the rest of it; return its accuracy."""
        keep_freed_memory()
        sys.argv = ["daso", *self.command]
        came: list[int] = []
        numbers = (signal.SIGUSR2, signal.SIGTERM)
        before = {
            number: signal.signal(number, lambda n, frame: came.append(n)) for number in numbers
        }
        outcome = self.campaign.attempt(self.cell, _print, lambda: bool(came))
        print(f"{self.cell}: {outcome.message}", flush=True)
        if outcome.state == "stopped":
            while signal.SIGUSR2 not in came:
                time.sleep(0.1)
            signal.signal(signal.SIGUSR2, before[signal.SIGUSR2])
            signal.raise_signal(signal.SIGUSR2)  # submitit queues the job again, and leaves
        if outcome.state == "failed":
            raise RunError(outcome.message)
        return outcome.message

    def checkpoint(self) -> DelayedSubmission:
        """Return what submitit shall run when the job's turn comes again: the rest of the cell."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _print(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
    print(f"{cell}: from step {prepared.step:,} of {prepared.total_steps:,}", flush=True)
    for row in rows:
        if row["event"] == "evaluate":
            print(f"step {row['step']:,}", flush=True)


class Jobs:
    """The jobs of a campaign in a scheduler's queue, as ``OUT/jobs/queue.json`` remembers them.

    Args:
        campaign: of the jobs.
        engine: ``"slurm"``, or ``"local"``: processes of this machine, all at once, to try it.
        options: of submitit's executor, as ``name=value``: timeout_min, gpus_per_node, slurm_partition, ...

    Raises:
        MissingDependencyError: submitit is not installed.
        OptionError: the engine is not here, or it knows no such option.
    """

    def __init__(self, campaign: Campaign, engine: Engine, options: Sequence[str] = ()) -> None:
        folder = campaign.folder.resolve()
        data = None if campaign.data is None else campaign.data.resolve()
        weights = None if campaign.weights is None else campaign.weights.resolve()
        self.campaign = Campaign(
            folder, campaign.scale, data, campaign.device, campaign.track, weights
        )
        self.folder = folder / FOLDER
        self._options = _parse(options)
        try:
            from submitit import AutoExecutor, LocalJob, SlurmJob
        except ImportError as error:
            raise MissingDependencyError(
                "--engine needs submitit: pip install 'daso[cluster]'"
            ) from error
        try:
            self._executor: AutoExecutor = AutoExecutor(
                self.folder,
                cluster=engine,
                slurm_max_num_timeout=REQUEUED,
                local_max_num_timeout=REQUEUED,
            )
            self._kind: type[Job[str]] = SlurmJob if engine == "slurm" else LocalJob
            self._executor.update_parameters(
                **{"name": "daso", "timeout_min": DAY, "stderr_to_stdout": True, **self._options}
            )
        except (RuntimeError, NameError, ValueError, AssertionError) as error:
            raise OptionError(f"--engine {engine}: {error}") from error

    def submit(
        self, cells: Sequence[Cell], most: int, command: Sequence[str]
    ) -> dict[str, Job[str]]:
        """Queue the cells that have no job and are not run by another process, as one array.

        Args:
            cells: none of them complete.
            most: jobs of the array that run at a time.
            command: what submits them.

        Returns:
            The jobs by the names of their cells, those that were there included.

        Raises:
            RunError: the scheduler refuses them.
        """
        from submitit.core.utils import FailedSubmissionError

        with self.campaign.alone():  # another command may submit at the same time
            queue = self._queue()
            known = {
                str(cell): self._kind(self.folder, queue[str(cell)])
                for cell in cells
                if str(cell) in queue
            }
            jobs = {name: job for name, job in known.items() if not job.done()}
            new = [
                cell
                for cell in cells
                if str(cell) not in jobs and self.campaign.state(cell) != "running"
            ]
            if self._executor.cluster == "slurm":
                self._executor.update_parameters(slurm_array_parallelism=most)
            try:
                functions = [CellJob(self.campaign, cell, tuple(command)) for cell in new]
                submitted = self._executor.submit_array(functions) if new else []
            except (FailedSubmissionError, OSError) as error:
                raise RunError(f"the jobs were not submitted: {error}") from error
            jobs |= dict(zip(map(str, new), submitted, strict=True))
            save_json(self.folder / QUEUE, queue | {name: job.job_id for name, job in jobs.items()})
        return jobs

    def _queue(self) -> dict[str, Any]:
        return read_json(self.folder / QUEUE) if (self.folder / QUEUE).exists() else {}


def _parse(options: Sequence[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise OptionError(f"--engine-options {option}: say name=value, as in timeout_min=600")
        parsed[name] = int(value) if re.fullmatch(r"-?\d+", value) else value
        if re.fullmatch(r"-?\d+\.\d+", value):
            parsed[name] = float(value)
    return parsed
