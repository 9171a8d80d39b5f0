"""Arrays in an ``.npz`` file, in this package's layout or in MedMNIST's."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

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
"""For each argument of ``from_arrays``, the keys that it is read from."""

MOST_PACKED = 1100
"""Deflate packs at most some 1,030 bytes into one."""
READING_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    MemoryError,
    RuntimeError,
)


def read_npz(path: Path) -> Source:
    """Read an ``.npz`` file; see ``from_arrays`` for what each array must be.

    Keys: ``images`` and ``labels`` (or MedMNIST's ``train_images`` and ``train_labels``, or ``x`` and ``y``),
    and optionally ``unlabeled_images``, ``val_images``, ``val_labels``, ``test_images``, ``test_labels``,
    ``class_names``; all names are in ``KEYS``. Pickled objects are never loaded.

    Raises:
        DataError: the file is damaged, a key is missing, given twice or unknown, or an array is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size)
        with np.load(path, allow_pickle=False) as stored:
            chosen = _choose(list(stored.files))
            arrays = {argument: stored[key] for argument, key in chosen.items()}
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except READING_ERRORS as error:
        raise DataError(f"{path}: not a readable .npz of plain arrays: {error}") from error
    names = arrays.pop("class_names", None)
    try:
        return from_arrays(**arrays, class_names=_texts(names), name=path.stem)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _choose(stored: list[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for argument, keys in KEYS.items():
        present = [key for key in keys if key in stored]
        if len(present) > 1:
            raise DataError(
                f"holds both {present[0]!r} and {present[1]!r}, which mean the same; keep one"
            )
        if present:
            chosen[argument] = present[0]
    for argument in ("images", "labels"):
        if argument not in chosen:
            wanted = " or ".join(map(repr, KEYS[argument]))
            raise DataError(f"no {wanted} in it; it holds {', '.join(stored) or 'nothing'}")
    unknown = [key for key in stored if key not in chosen.values()]
    if unknown:
        names = [key for keys in KEYS.values() for key in keys]
        raise DataError(
            f"unknown key {unknown[0]!r}; known: {', '.join(names)}.{nearest(unknown[0], names)}"
        )
    return chosen


def _check_sizes(archive: zipfile.ZipFile, packed: int) -> None:
    """Refuse an array whose header promises other than the file holds, before memory is set aside for it."""
    for member in archive.infolist():
        with archive.open(member) as stream:
            shape, dtype = _array_header(stream, member.filename)
            promised = math.prod(shape) * dtype.itemsize + stream.tell()
        if dtype.hasobject:
            raise DataError(
                f"{member.filename} holds Python objects, which are never loaded; store numbers"
            )
        if promised != member.file_size or promised > MOST_PACKED * packed:
            raise DataError(
                f"{member.filename}: its header promises {promised:,} bytes, it cannot have so many"
            )


def _array_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    # Later versions allow headers of any length; numpy writes them for structured arrays only.
    if np.lib.format.read_magic(stream) != (1, 0):
        raise DataError(
            f"{name}: only arrays in version 1.0 of numpy's format are read; store plain numbers"
        )
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    # The header is a Python literal; one that is none raises nearly anything: SyntaxError, TokenError, TypeError.
    except Exception as error:
        raise DataError(f"{name}: its header cannot be read: {type(error).__name__}") from error
    return shape, dtype


def _texts(names: npt.NDArray[np.generic] | None) -> list[str] | None:
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise DataError(f"class_names must be a list of texts, got {names.dtype} {names.shape}")
    return [
        n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist()
    ]
