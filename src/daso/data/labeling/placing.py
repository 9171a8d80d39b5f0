"""Copy, link or move one file without ever overwriting another, so that a kill loses nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from daso.data.journal.names import item_checksum
from daso.errors import DataError

TEMPORARY = ".daso-label.tmp"
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
"""Errors of file systems without hard links, or between two of them."""


def same_content(file: Path, checksum: str) -> bool:
    """Whether a file is there and has a checksum."""
    try:
        return item_checksum(file) == checksum
    except DataError:
        return False


def place(source: Path, target: Path, how: str, checksum: str) -> None:
    """Bring a file to a place: "copy", "link" or "move"; what is done already is not repeated.

    An ``OSError`` says that another file is there, or that it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(TEMPORARY).unlink(missing_ok=True)  # of a kill
    if not same_content(target, checksum):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "another file has taken the place")
        if source.is_symlink() and how != "copy":
            real = os.path.realpath(source)
            target.symlink_to(os.path.relpath(real, os.path.realpath(target.parent)))
        elif how == "copy" or not _link(source, target, symbolic=how == "link"):
            _copy(source, target)
    if how == "move" and same_content(source, checksum):
        source.unlink()


def put_back(source: Path, target: Path, how: str, checksum: str, *, created: bool) -> str:
    """Undo ``place``; return a note if something is left as it is, or ``""``."""
    is_same = same_content(target, checksum)
    if how == "move" and not os.path.lexists(source):
        if not is_same:
            return "has changed or is gone, and was not put back"
        place(target, source, "move" if created else "copy", checksum)
        return ""
    if not created or not os.path.lexists(target):
        return ""
    if not is_same:
        return "has changed since, and stays"
    if not same_content(source, checksum):
        return f"stays, as {source} is not there any more"
    target.unlink()
    return ""


def _link(source: Path, target: Path, *, symbolic: bool) -> bool:
    """Make a hard link, or where there are none and *symbolic* is set a symbolic one."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not symbolic:
            return False
        target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    return True


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(TEMPORARY)
    try:
        shutil.copy2(source, temporary)
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        try:
            os.link(temporary, target)  # which fails if the place was taken meanwhile
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
