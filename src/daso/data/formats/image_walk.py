"""The image files below a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from daso.data.formats.passed_over import PassedOver
from daso.data.images.decode import SUFFIXES
from daso.data.listing import JOURNAL, is_hidden
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
    for parent, subfolders, names in os.walk(folder, onerror=note, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        hidden = [name for name in subfolders if is_hidden(name)]
        if others is not None:
            for name in hidden:
                others.add("hidden folders", str(Path(parent) / name))
        subfolders[:] = sorted(set(subfolders) - set(hidden))
        for path in (Path(parent) / name for name in names):
            if is_image(path):
                yield path
            elif others is not None and path.name != JOURNAL and path not in read:
                others.add_file(str(path))


def require_readable(folder: Path) -> None:
    """Refuse a folder that this user may not list or enter."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: this folder cannot be read: Permission denied; {PERMIT}")


def is_image(path: Path) -> bool:
    """Whether a path has an image suffix and is a file, a broken link or unreadable."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return False
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())
    except PermissionError:
        return True
