"""Ways to die: the command line in a process that kills itself while it writes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from forked import command

from daso.data.journal import Action, Journal
from daso.data.labeling import open_for_labeling

LABELING: list[tuple[Action, int, str | None]] = [
    ("label", 0, "fox"), ("label", 1, "cat"), ("none", 2, None), ("undo", 0, None), ("skip", 3, None),
    ("label", 3, "dog"), ("label", 0, "emu"), ("undo", 0, None), ("label", 4, "emu"), ("label", 2, "cat"),
    ("label", 5, "fox"), ("label", 6, "dog"), ("label", 7, "dog"), ("none", 8, None),
]  # fmt: skip
"""What a person does: action, number of an unlabeled image, class."""


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


def label_and_sort(folder: Path, phase: str, how: str, seconds: float) -> None:
    """Give the labels of ``LABELING`` that are missing, or sort files by them, on a slow disk."""
    to_disk = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(seconds)
        to_disk(descriptor)

    os.fsync = fsync
    if phase != "label":
        option = ["--undo"] if phase == "undo" else [f"--{how}"] if how else []
        command(["label", str(folder), "--apply", *option])
    data = open_for_labeling(str(folder))
    with Journal.open(data.journal) as journal, (folder / "told").open("ab", buffering=0) as told:
        for action, index, label in LABELING[len(journal.entries) :]:
            if action == "undo":
                journal.undo()
            else:
                name, checksum = data.name("unlabeled", index), data.checksum("unlabeled", index)
                journal.append(action, image=name, checksum=checksum, label=label)
            told.write(b".")
