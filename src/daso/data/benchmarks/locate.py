"""Find the folder that holds a data set's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from daso.errors import DataError
from daso.files import leads_somewhere


def find_folder(
    folder: Path,
    subfolder: str,
    names: Sequence[str],
    *,
    has: Callable[[Path, str], object] = lambda folder, name: (folder / name).is_file(),
) -> Path:
    """Return *folder*, or *subfolder* in it, whichever has all files by ``has(folder, name)``."""
    for candidate in (folder, folder / subfolder):
        if all(has(candidate, name) for name in names):
            return candidate
    if not (leads_somewhere(folder) and folder.is_dir()):
        raise DataError(f"{folder}: no such folder")
    nearer = folder / subfolder if (folder / subfolder).is_dir() else folder
    missing = ", ".join(name for name in names if not has(nearer, name))
    raise DataError(f"{nearer}: missing {missing}")
