"""Ways to die: the command line in a process that kills itself while it writes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from forked import command


def name_of(descriptor: int) -> str:
    """Return the path of an open file, as Linux tells it."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def die_in_write(arguments: list[str], number: int) -> None:
    """Run the command line; while it writes a file for the *number*-th time, cut it off and be killed."""
    writes = 0
    to_disk = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal writes
        writes += name_of(descriptor).endswith(".tmp")
        if writes == number:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        to_disk(descriptor)

    os.fsync = fsync
    command(arguments)


def slow_disk(arguments: list[str], seconds: float) -> None:
    """Run the command line on a disk so slow that most of the time goes into writes."""
    to_disk = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(seconds)
        to_disk(descriptor)

    os.fsync = fsync
    command(arguments)


def die_in_removal(arguments: list[str], number: int) -> None:
    """Run the command line; be killed just after the *number*-th file of an old checkpoint was removed."""
    removed = 0
    unlink = Path.unlink

    def counting(path: Path, missing_ok: bool = False) -> None:
        nonlocal removed
        unlink(path, missing_ok)
        if path.name.startswith("step-"):
            removed += 1
        if removed == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Path.unlink = counting
    command(arguments)
