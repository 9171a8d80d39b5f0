"""The images of a labeling session: one number each, with names, first labels and features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from daso.errors import DataError

if TYPE_CHECKING:
    from daso.data.labeling import LabelingData
    from daso.data.listing import Listing

Floats = npt.NDArray[np.floating[Any]]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]
"""Called with the number of images that have features, and of all."""


def sample(rows: Indices, most: int, random: np.random.Generator) -> Indices:
    """Return at most *most* of some rows, drawn at random if there are more."""
    return rows if len(rows) <= most else random.choice(rows, most, replace=False)


@dataclass(frozen=True)
class Embedding:
    """Features of the images of a session.

    Attributes:
        features: float16 or float32, (N, d), of mean square about 1; 0 where there are none.
        kind: where they come from, in words for the page.
        unreadable: images that cannot be decoded.
        notes: what reading all images has shown.
    """

    features: Floats
    kind: str
    unreadable: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


class Images:
    """Numbers 0 to N - 1 of the images that can be labeled: train first, then unlabeled.

    Attributes:
        labels: those of the data, int64 (N,), -1 where unknown.
    """

    def __init__(self, data: LabelingData) -> None:
        self._data = data
        parts = [part for part in ("train", "unlabeled") if part in data.pools]
        pools = [data.pools[part].labels for part in parts]
        # Benchmarks know the classes of their unlabeled images; nobody has told them yet.
        known = [
            rows if part == "train" else np.full(len(rows), -1)
            for part, rows in zip(parts, pools, strict=True)
        ]
        self.labels: Indices = np.concatenate([np.zeros(0, dtype=np.int64), *known])
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, pools)])
        if not len(self.labels):
            raise DataError("there are no images to label; name a folder with images")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def listing(self) -> Listing:
        return self._data.listing

    def place(self, image: int) -> tuple[str, int]:
        """Return the part of an image and its index there.

        Raises:
            DataError: there is no such image.
        """
        self.check(image)
        part = int(np.searchsorted(self._starts, image, side="right")) - 1
        return self._parts[part], image - int(self._starts[part])

    def check(self, image: int) -> None:
        """Raise a ``DataError`` unless there is such an image."""
        if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < len(self):
            raise DataError(f"no image {image!r}: images are numbered 0 to {len(self) - 1}")

    def name(self, image: int) -> str:
        return self._data.name(*self.place(image))

    def checksum(self, image: int) -> str:
        return self._data.checksum(*self.place(image))

    def read(self, image: int) -> bytes | Path:
        return self._data.read(*self.place(image))

    def origins(self) -> Iterator[str]:
        """Yield texts that change when an image does, in order."""
        for part in self._parts:
            yield part
            yield from self._data.pools[part].origins()

    def find(self, names: Collection[str]) -> dict[str, int]:
        """Return the numbers of images by name; names of no image are missing."""
        if not names:
            return {}
        every = itertools.chain.from_iterable(map(self._data.names, self._parts))
        return {name: number for number, name in enumerate(every) if name in names}
