"""Processes forked from one that has imported daso: they start in a tenth of the usual time."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

PLAIN_POPEN = subprocess.Popen
PROCESSES = multiprocessing.get_context("forkserver")
# Only imported there, not used: each process is forked before any thread of torch has started.
PROCESSES.set_forkserver_preload(
    [
        "daso.cli.training.session",
        "daso.cli.verbs.resume",
        "daso.reproduce.campaign",
        "sklearn.datasets",
        "torch._dynamo",
        "quick_defaults",
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


def without_pictures() -> None:
    """Leave out the pictures of finished runs: to import Matplotlib takes longer than a tiny training."""
    module: Any = ModuleType("daso.report.figures.draw")
    for name in ("draw_run", "draw_comparison", "draw_figures"):
        setattr(module, name, lambda *_: [])
    sys.modules[module.__name__] = module


def fork_instead_of_spawning() -> None:
    """Let the processes that this forked one starts be forked from where it was, too."""
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    multiprocessing.get_context = lambda method=None: PROCESSES  # type: ignore[assignment]
    subprocess.Popen = popen  # type: ignore[assignment,misc]


def say_into(said: Path) -> None:
    """Let what this process says go to a file."""
    with said.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def command(
    arguments: Sequence[str | Path], said: Path | None = None, read: Path | None = None
) -> None:
    """Run the command line without pictures; it says into a file and reads from another, if given."""
    from daso.cli import main

    without_pictures()
    if said is not None:
        say_into(said)
    if read is not None:
        sys.stdin = read.open()
    fork_instead_of_spawning()
    sys.exit(main(list(map(str, arguments))))


def demonstrate(*run: Any) -> None:
    """Train one run of the demonstration without pictures."""
    from daso.cli.verbs import demo

    without_pictures()
    demo._one_run(*run)


def run_script(
    script: Path, arguments: Sequence[str], environment: Mapping[str, str], said: Path
) -> None:
    """Run a script in its folder; what it says goes to a file."""
    say_into(said)
    without_pictures()
    fork_instead_of_spawning()
    os.chdir(script.parent)
    os.environ |= environment
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


class Command:
    """Stands in for ``subprocess.Popen`` where that starts the command line."""

    def __init__(self, words: Sequence[str | Path], stdout: Any) -> None:
        self._process = start(command, words[3:], Path(stdout.name))
        self.pid = self._process.pid

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.join()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid or 0, number)


def popen(words: Sequence[str | Path], **options: Any) -> Any:
    """Start a process, forked from the one that has imported daso if it is the command line."""
    if list(words[1:3]) == ["-m", "daso"]:
        return Command(words, options["stdout"])
    return PLAIN_POPEN(words, **options)
