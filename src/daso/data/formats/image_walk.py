"""The image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from daso.data.formats.passed_over import PassedOver
from daso.data.images.decode import SUFFIXES
from daso.data.listing import is_hidden
from daso.errors import DataError

PERMIT = "grant read access (chmod -R u+rX), or remove it"


class Faults(list[tuple[str, str]]):
    """Unusable files and folders, with reasons; and the files that are no images."""

    def __init__(self) -> None:
        super().__init__()
        self.others = PassedOver()


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones."""
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and not is_hidden(e.name))


def image_files(folder: Path, faults: Faults, read: Collection[Path] = ()) -> list[Path]:
    """Return all images below a folder, and note what cannot be read or is none, but for *read*."""

    def note(error: OSError) -> None:
        reason = error.strerror or str(error)
        faults.append((str(error.filename), f"this folder cannot be read: {reason}; {PERMIT}"))

    return sorted(walk(folder, note, faults.others, read), key=lambda path: path.parts)


def walk(
    folder: Path,
    note: Callable[[OSError], None] | None = None,
    others: PassedOver | None = None,
    read: Collection[Path] = (),
) -> Iterator[Path]:
    """Yield all images below *folder*; links to folders are followed, each folder once.

    *others* counts the files with other endings, and what is hidden, but for *read*.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        parent = waiting.pop()
        try:
            status = Path(parent).stat()
            with os.scandir(parent) as found:
                entries = list(found)
        except OSError as error:
            if note is not None:
                note(error)
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders = []
        for entry in entries:
            if leads_to_folder(entry):
                if not is_hidden(entry.name):
                    subfolders.append(entry.path)
                elif others is not None:
                    others.add("hidden folders", entry.path)
            elif is_image(entry):
                yield Path(entry.path)
            elif others is not None and Path(entry.path) not in read:
                others.add_file(entry.path)
        waiting += sorted(subfolders, reverse=True)


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a locked folder
        return False


def require_readable(folder: Path) -> None:
    """Refuse a folder that this user may not list or enter."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: this folder cannot be read: Permission denied; {PERMIT}")


def is_image(entry: Path | os.DirEntry[str]) -> bool:
    """Whether an entry has an image suffix and is a file, a broken link or unreadable."""
    if entry.name.startswith(".") or not entry.name.lower().endswith(tuple(SUFFIXES)):
        return False
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:
        return True
