"""One process at a time in a run folder."""

from __future__ import annotations

import io
from pathlib import Path

from daso.errors import InUseError, RunError
from daso.files import lock_holder, try_lock

NAME = ".lock"
BEFORE_CONFIG = (NAME, "environment.json", "data.json", "backbone")


def lock_folder(folder: Path) -> io.FileIO:
    """Keep other processes out of a run folder until the returned file is closed.

    Raises:
        InUseError: another process holds it.
        RunError: the folder cannot be written.
    """
    return lock_file(folder / NAME)


def lock_file(path: Path) -> io.FileIO:
    """Make a lock file and lock it, as ``lock_folder`` does."""
    folder = path.parent
    try:
        lock = path.open("ab+", buffering=0)
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        if try_lock(lock):
            return lock
    except OSError as error:
        lock.close()
        raise RunError(f"cannot lock {folder}: {error.strerror}") from error
    with lock:
        holder = lock_holder(lock)
    who = f"another process ({holder})" if holder else "another process"
    raise InUseError(f"{who} is training in {folder}")


def claim_folder(folder: Path) -> io.FileIO:
    """Make a folder for a new run and lock it; it must be free.

    Raises:
        RunError: it holds something, another process has it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}") from error
    if not is_free(folder):
        raise _taken(folder)
    lock = lock_folder(folder)
    if not is_free(folder):
        lock.close()
        raise _taken(folder)
    return lock


def refuse_taken(folder: Path) -> None:
    """Raise early, before any work, where ``claim_folder`` would.

    Raises:
        RunError: the path is a file, or a folder that holds something.
    """
    if folder.exists() and not (folder.is_dir() and is_free(folder)):
        raise _taken(folder)


def is_free(folder: Path) -> bool:
    """Tell whether nothing is in a folder but what a run writes before its configuration: killed there, it is none."""
    return all(
        path.name in BEFORE_CONFIG or path.name.endswith(".tmp") for path in folder.iterdir()
    )


def _taken(folder: Path) -> RunError:
    if not folder.is_dir():
        return RunError(f"{folder} is a file: name a folder with --out")
    return RunError(
        f"{folder} exists and is not empty; go on with a run by 'daso resume {folder}', "
        f"or name another folder with --out"
    )
