"""Processes forked from one that has imported daso: they start in a tenth of the usual time."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

PROCESSES = multiprocessing.get_context("forkserver")
# Only imported there, not used: each process is forked before any thread of torch has started.
PROCESSES.set_forkserver_preload(
    [
        "daso.cli.training.session",
        "daso.cli.verbs.resume",
        "daso.reproduce.campaign",
        "sklearn.datasets",
        "torch._dynamo",
    ]
)


def start(target: Callable[..., object], *given: object) -> BaseProcess:
    process = PROCESSES.Process(target=target, args=given)
    process.start()
    return process


def finish(process: BaseProcess) -> int | None:
    """Return the exit status, that of the signal if the process was killed."""
    process.join(600)
    return process.exitcode


def run_script(
    script: Path, arguments: Sequence[str], environment: Mapping[str, str], said: Path
) -> None:
    """Run a script in its folder; what it says goes to a file."""
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(script.parent)
    os.environ |= environment
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")
