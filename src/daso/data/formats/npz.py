"""Arrays in an ``.npz`` file, in this package's layout or in MedMNIST's."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daso.data.formats.arrays import from_arrays
from daso.data.source import Source
from daso.errors import DataError, nearest

KEYS = {
    "images": ("images", "train_images", "x_train", "x", "X"),
    "labels": ("labels", "train_labels", "y_train", "y"),
    "unlabeled": ("unlabeled_images", "unlabeled"),
    "validation_images": ("val_images", "validation_images"),
    "validation_labels": ("val_labels", "validation_labels"),
    "test_images": ("test_images", "x_test"),
    "test_labels": ("test_labels", "y_test"),
    "class_names": ("class_names",),
}
"""For each argument of ``from_arrays``, its valid keys."""
MOST_PACKED = 1100
"""Deflate packs at most about 1,030 bytes into one."""
READING_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, MemoryError, RuntimeError,
)  # fmt: skip


def read_npz(path: Path, *, partial: bool = False) -> Source:
    """Read an ``.npz`` file with the arrays in ``KEYS``, as described in ``from_arrays``.

    Pickled objects are never loaded. For *partial* see ``Listing.partial``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name, times in Counter(archive.namelist()).items():
                if times > 1:
                    raise DataError(f"holds {name!r} {times} times; write each array once")
            for member in archive.infolist():
                _check_size(archive, member, path.stat().st_size)
        with np.load(path, allow_pickle=False) as stored:
            keys = _choose_keys(list(stored.files))
            arrays = {argument: stored[key] for argument, key in keys.items()}
        names = arrays.pop("class_names", None)
        return from_arrays(**arrays, class_names=_texts(names), name=path.stem, partial=partial)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except READING_ERRORS as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays: {error}") from error


def _choose_keys(stored: list[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for argument, keys in KEYS.items():
        present = [key for key in keys if key in stored]
        if len(present) > 1:
            raise DataError(f"has both {present[0]!r} and {present[1]!r}, synonyms; keep one")
        if present:
            chosen[argument] = present[0]
        elif argument in ("images", "labels"):
            names = " or ".join(map(repr, keys))
            raise DataError(f"no {names} in it; it has {', '.join(stored) or 'nothing'}")
    unknown = [key for key in stored if key not in chosen.values()]
    if unknown:
        names_known = [key for keys in KEYS.values() for key in keys]
        raise DataError(
            f"unknown key {unknown[0]!r}; valid keys: {', '.join(names_known)}."
            f"{nearest(unknown[0], names_known)}"
        )
    return chosen


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo, packed: int) -> None:
    """Refuse an array whose header promises more than the file holds, before allocation."""
    name = member.filename
    with archive.open(member) as stream:
        # Later versions allow headers of any length; numpy writes them for structured arrays only.
        if np.lib.format.read_magic(stream) != (1, 0):
            raise DataError(f"{name}: must have version 1.0 of numpy's format; store numbers")
        try:
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        # The header is a Python literal; an invalid one raises nearly anything.
        except Exception as error:
            raise DataError(f"{name}: its header cannot be read: {type(error).__name__}") from error
        promised = math.prod(shape) * dtype.itemsize + stream.tell()
    if dtype.hasobject:
        raise DataError(f"{name} holds Python objects, which are never loaded; store numbers")
    if promised != member.file_size or promised > MOST_PACKED * packed:
        raise DataError(f"{name}: its header promises {promised:,} bytes, more than it can hold")


def _texts(names: npt.NDArray[np.generic] | None) -> list[str] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"class_names must be a list of texts, got {names.dtype} {names.shape}")
    texts = names.tolist()
    return [
        n.decode("utf-8", "backslashreplace") if isinstance(n, bytes) else str(n) for n in texts
    ]
