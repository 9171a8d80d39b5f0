"""Allow one process at a time in a run folder."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

from daso.errors import RunError, typed
from daso.files import check_writable, lock_file, make_folder

NAME = ".lock"
CONFIG = "config.json"
"""Its presence makes a folder a run."""
BEFORE_CONFIG = (NAME, "environment.json", "data.json", "backbone")
"""Files written before the configuration; a folder with only these does not count as a run."""


def free_folder(name: str) -> Path:
    """Return the first of runs/NAME-1, -2, ... that does not exist."""
    folders = (Path("runs") / f"{name}-{number}" for number in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def lock_folder(folder: Path) -> io.FileIO:
    """Keep other processes out of a run folder until the returned file is closed.

    Raises:
        InUseError: another process holds it.
        RunError: the folder cannot be written.
    """
    return lock_run(folder / NAME)


def lock_run(path: Path) -> io.FileIO:
    """Lock a file in the folder of a run, as ``lock_folder`` does."""
    return lock_file(path, lambda who: f"another process{who} is training in {path.parent}")


def claim_folder(folder: Path) -> io.FileIO:
    """Create and lock the folder of a new run.

    Raises:
        RunError: the folder is not empty, another process holds it, or it cannot be created.
    """
    make_folder(folder)
    refuse_taken(folder)
    lock = lock_folder(folder)
    try:
        refuse_taken(folder)
    except RunError:
        lock.close()
        raise
    return lock


def refuse_taken(folder: Path) -> None:
    """Raise a ``RunError`` if a path cannot become the folder of a new run.

    It is a file, has files already, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file: name a folder with --out")
    check_writable(folder)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if all(name in BEFORE_CONFIG or name.endswith(".tmp") for name in names):
        return
    if CONFIG in names:
        raise RunError(
            f"{folder} is not empty; resume its run with 'daso resume {typed(folder)}', or use "
            "another --out"
        )
    raise RunError(f"{folder} is not empty, and it is no run; use another --out")
