"""One process at a time in a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from pathlib import Path
from typing import IO

from daso.errors import InUseError, RunError

NAME = ".lock"
BEFORE_CONFIG = (NAME, "environment.json", "data.json", "backbone")


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
        lock = path.open("a+")
    except OSError as error:
        raise RunError(f"cannot write into {folder}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with lock:
            lock.seek(0)
            holder = lock.read(200).strip()
        if error.errno in (errno.EAGAIN, errno.EACCES):
            who = f"another process ({holder})" if holder else "another process"
            raise InUseError(f"{who} is training in {folder}") from error
        raise RunError(f"cannot lock {folder}: {error.strerror}") from error
    with contextlib.suppress(
        OSError
    ):  # who holds it is good to know; a full disk is found out soon enough
        lock.truncate(0)
        # Past the file's buffer: what that cannot write it would try again when it is closed.
        os.write(lock.fileno(), f"{os.getpid()} on {platform.node()}\n".encode())
    return lock


def claim_folder(folder: Path) -> IO[str]:
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
