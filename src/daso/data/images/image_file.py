"""Decoded images that lie in a file: an array of which only what is asked for is in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.errors import DataError

DIGEST_BYTES = 16
READ_AT_ONCE = 2**24
"""Bytes that a pass through all images holds at a time."""


class ImageFile:
    """Images of one shape, one after the other in a file, indexed like a NumPy array of shape (N, C, H, W).

    The file is read, not mapped: what was read does not stay in the process, and a file that is cut short while a
    training runs is an error, not the end of the process.

    Args:
        path: of the file.
        shape: (N, C, H, W) of the whole file.
        digests: uint8 (N, 16), which change with any pixel of an image.
        rows: int64 (n,), the images of the file that this is an array of, in this order; None: all.

    Raises:
        DataError: the file is not there or has not the size that goes with the shape.
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
        self.path, self._whole, self._digests, self._rows = path, shape, digests, rows
        self._size = int(np.prod(shape[1:]))
        try:
            self._file = path.open("rb", buffering=0)
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        if size != shape[0] * self._size:
            raise DataError(
                f"{path}: has {size:,} bytes, {shape[0]} images of {shape[1:]} have {shape[0] * self._size:,}"
            )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (self._whole[0] if self._rows is None else len(self._rows), *self._whole[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take in memory."""
        return len(self) * self._size

    @property
    def digests(self) -> npt.NDArray[np.uint8]:
        """Of each image, (N, 16)."""
        return self._digests if self._rows is None else self._digests[self._rows]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> npt.NDArray[np.uint8]:
        """Read images: one (an integer), or those of a slice, integers or a mask, into memory.

        Raises:
            IndexError: there is no such image.
            DataError: the file was cut short or cannot be read.
        """
        if isinstance(index, int | np.integer):
            one: npt.NDArray[np.uint8] = self._read(self._in_file(np.array([index])))[0]
            return one
        if isinstance(index, slice):
            return self._read(self._in_file(np.arange(*index.indices(len(self)))))
        return self._read(self._in_file(self._numbers(index)))

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Go through all images, holding a few at a time."""
        step = max(1, READ_AT_ONCE // self._size)
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Read all images; NumPy asks for it."""
        return np.asarray(self[:], dtype=dtype)

    def select(self, index: npt.ArrayLike) -> ImageFile:
        """Return an array of some of the images, by integers or a mask, without reading any."""
        return ImageFile(self.path, self._whole, self._digests, self._in_file(self._numbers(index)))

    def _numbers(self, index: npt.ArrayLike) -> npt.NDArray[np.int64]:
        numbers = np.asarray(index)
        if numbers.dtype == np.bool_:
            if numbers.shape != (len(self),):
                raise IndexError(f"a mask of shape {numbers.shape} for {len(self)} images")
            numbers = np.flatnonzero(numbers)
        return numbers.astype(np.int64)

    def _in_file(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return where in the file images lie."""
        count = len(self)
        if len(numbers) and not (-count <= numbers.min() and numbers.max() < count):
            raise IndexError(f"image {numbers.max()} or {numbers.min()} of {count}")
        numbers = np.where(numbers < 0, numbers + count, numbers)
        return numbers if self._rows is None else self._rows[numbers]

    def _read(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        found = np.empty((len(places), *self._whole[1:]), dtype=np.uint8)
        flat = found.reshape(len(places), self._size)
        # Images that follow each other are read at once.
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        ends = np.append(starts, len(places))[1:]
        file = self._file.fileno()
        for start, end, place in zip(
            starts.tolist(), ends.tolist(), places[starts].tolist(), strict=True
        ):
            for part in range(start, end, step := max(1, READ_AT_ONCE // self._size)):
                last = min(part + step, end)
                try:
                    content = os.pread(
                        file, (last - part) * self._size, (place + part - start) * self._size
                    )
                except OSError as error:
                    raise DataError(f"{self.path}: {error.strerror or error}") from error
                if len(content) != (last - part) * self._size:
                    raise DataError(
                        f"{self.path}: was cut short after it was opened; start again to mend it"
                    )
                flat[part:last] = np.frombuffer(content, dtype=np.uint8).reshape(
                    last - part, self._size
                )
        return found
