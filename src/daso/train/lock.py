"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import IO

from daso.errors import InUseError, RunError

NAME = ".lock"


def lock_folder(folder: Path) -> IO[str]:
    """Keep other processes out of a run folder until the returned file is closed, or this process ends.

    Raises:
        InUseError: another process has it.
        RunError: the folder cannot be written.
    """
    return lock_file(folder / NAME)


def lock_file(path: Path) -> IO[str]:
    """Keep other processes from locking a file, which is made where it is not there; see ``lock_folder``."""
    folder = path.parent
    try:
        lock = path.open("a")
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InUseError(f"another process is training in {folder}") from error
        raise RunError(f"cannot lock {folder}: {error.strerror}") from error
    return lock


def claim_folder(folder: Path) -> IO[str]:
    """Make a folder for a new run and lock it; nothing but the lock may be in it.

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
    """Tell whether nothing but a lock is in a folder."""
    return all(path.name == NAME for path in folder.iterdir())


def _taken(folder: Path) -> RunError:
    if not folder.is_dir():
        return RunError(f"{folder} is a file: name a folder with --out")
    return RunError(
        f"{folder} exists and is not empty; go on with a run by 'daso resume {folder}', "
        f"or name another folder with --out"
    )
