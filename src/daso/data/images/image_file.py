"""Decoded images in a file, indexed like an array and read on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.errors import DataError

DIGEST_BYTES = 16
READ_BYTES = 2**24
"""Maximum bytes of one read or one step of a pass."""


class ImageFile:
    """Images of one shape in a file, indexed like a NumPy array of shape (N, C, H, W).

    The file is read, not mapped: pixels do not stay in the process, and a file that is truncated
    during training raises an error instead of ending the process.

    Args:
        shape: (N, C, H, W) of the whole file.
        digests: uint8 (N, 16), one digest for each image.
        rows: int64 (n,), indices into the file; None: all images.
    """

    dtype: np.dtype[np.uint8] = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int, int],
        digests: npt.NDArray[np.uint8],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.path, self._whole, self._digests = path, shape, digests
        self._rows = np.arange(shape[0]) if rows is None else rows
        self._size = int(np.prod(shape[1:]))
        try:
            self._file = path.open("rb", buffering=0)
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        if size != (needed := shape[0] * self._size):
            what = f"{shape[0]} images of {shape[1:]}"
            raise DataError(f"{path}: has {size:,} bytes; {what} need {needed:,}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self._rows), *self._whole[1:])

    @property
    def nbytes(self) -> int:
        return len(self) * self._size

    @property
    def digests(self) -> npt.NDArray[np.uint8]:
        return self._digests[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> npt.NDArray[np.uint8]:
        """Read one image (an integer), or those of a slice, integers or a mask, into memory.

        Raises:
            IndexError: an index is out of range.
            DataError: the file was truncated or cannot be read.
        """
        rows = np.asarray(self._rows[index])
        images = self._read(rows.reshape(-1))
        return images if rows.ndim else images[0]

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        step = max(1, READ_BYTES // self._size)
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def select(self, index: Any) -> ImageFile:
        """Return an array of some of the images, by integers or a mask, without reading any."""
        return ImageFile(self.path, self._whole, self._digests, self._rows[index])

    def _read(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        images = np.empty((len(places), *self._whole[1:]), dtype=np.uint8)
        flat, step = images.reshape(len(places), self._size), max(1, READ_BYTES // self._size)
        # Consecutive images are read at once.
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1).tolist()
        ends = [*starts, len(places)][1:]
        for start, end in zip(starts, ends, strict=True):
            for first in range(start, end, step):
                last = min(first + step, end)
                count = (last - first) * self._size
                try:
                    content = os.pread(self._file.fileno(), count, int(places[first]) * self._size)
                except OSError as error:
                    raise DataError(f"{self.path}: {error.strerror or error}") from error
                if len(content) != count:
                    raise DataError(f"{self.path}: was truncated while in use; start again")
                flat[first:last] = np.frombuffer(content, dtype=np.uint8).reshape(-1, self._size)
        return images
