"""Pools of images that are not decoded yet: what they are, the shape they get, and threads that go through them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.images.decode import ImageHeader, read_header
from daso.errors import DataError, OptionError

LARGEST_KEPT = 96
"""Images that all have one size keep it up to this many pixels a side."""
LARGEST_CHOSEN = 224
WORKERS = min(8, os.cpu_count() or 1)
BATCH = 16
"""Images that a thread takes at a time."""

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedImages:
    """A pool of images that are not decoded yet.

    Attributes:
        labels: int64 (N,), -1 where unknown.
        name_of: gives the name of image i for messages: its path, or its file and row.
        chunks: starts a fresh pass over the N images in order, some at a time, each a file or its bytes.
        from_files: whether ``name_of`` gives paths that belong into ``Images.paths``.
        origins: goes through texts that are others if an image is another: names, sizes and times of files.
    """

    labels: npt.NDArray[np.int64]
    name_of: Callable[[int], str]
    chunks: Callable[[], Iterator[Sequence[Path | bytes]]]
    from_files: bool
    origins: Callable[[], Iterator[str]]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: npt.NDArray[np.int64]) -> EncodedImages:
        """Return a pool of some of the images, in their order."""
        wanted = set(indices.tolist())

        def chunks() -> Iterator[Sequence[Path | bytes]]:
            start = 0
            for chunk in self.chunks():
                yield [item for index, item in enumerate(chunk, start) if index in wanted]
                start += len(chunk)

        order = sorted(wanted)

        def origins() -> Iterator[str]:
            yield from self.origins()
            yield f"of them {hashlib.blake2b(np.array(order).tobytes()).hexdigest()}"

        name_of = self.name_of
        return EncodedImages(
            self.labels[order], lambda i: name_of(order[i]), chunks, self.from_files, origins
        )

    def followed_by(self, other: EncodedImages) -> EncodedImages:
        """Return a pool of these images and then others."""

        def chunks() -> Iterator[Sequence[Path | bytes]]:
            yield from self.chunks()
            yield from other.chunks()

        def name_of(index: int) -> str:
            return self.name_of(index) if index < len(self) else other.name_of(index - len(self))

        def origins() -> Iterator[str]:
            yield from self.origins()
            yield from other.origins()

        labels = np.concatenate([self.labels, other.labels])
        return EncodedImages(labels, name_of, chunks, self.from_files and other.from_files, origins)


def origin_of(file: Path) -> str:
    """Return a text that is another one if a file is: its name, its size and when it was changed."""
    try:
        status = file.stat()
    except OSError:  # a link to nowhere
        return f"{file.name} is not there"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


@dataclass(frozen=True)
class Layout:
    """The shape that all decoded images get; *square* is the size to resize to, None to leave it alone.

    *channels* is 1 or 3; None: 1 if all images turn out to be grey, else 3.
    """

    channels: int | None
    height: int
    width: int
    square: int | None


def choose_layout(headers: Sequence[ImageHeader]) -> Layout:
    """Choose one shape for images of any sizes.

    Grey only if all are grey. Images that have one size of at most 96 x 96 keep it; others become squares of the
    median shorter side, rounded to a multiple of 8, from 8 to 224.
    """
    channels = 1 if all(header.grey for header in headers) else 3
    sizes = {(header.height, header.width) for header in headers}
    height, width = next(iter(sizes))
    if len(sizes) == 1 and max(height, width) <= LARGEST_KEPT:
        return Layout(channels, height, width, None)
    median = float(np.median([min(header.height, header.width) for header in headers]))
    chosen = min(max(8, 8 * round(median / 8)), LARGEST_CHOSEN)
    found = f"all {width} x {height}" if len(sizes) == 1 else f"of {len(sizes)} different sizes"
    logger.info("images are %s pixels; resizing them to %d x %d", found, chosen, chosen)
    return Layout(channels, chosen, chosen, chosen)


Shrink = Callable[[int], int | None]
"""Given the longer side in pixels that images would get, returns that of the square that they get; None: no other."""


def shrunk_layout(layout: Layout, shrink: Shrink | None) -> Layout:
    """Return a layout as a function that may have a word in its size decides."""
    side = None if shrink is None else shrink(max(layout.height, layout.width))
    return layout if side is None else replace(layout, height=side, width=side, square=side)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow from warning of large images: ``read_header`` and ``decode`` make an error of that size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def square_layout(size: int) -> Layout:
    """Return the layout of images that are made squares of *size* pixels, whatever they are.

    Raises:
        OptionError: *size* is not positive.
    """
    if size < 1:
        raise OptionError(f"size must be at least 1 pixel, got {size}")
    return Layout(None, size, size, size)


def read_headers(
    pools: Mapping[str, EncodedImages], reasons: dict[tuple[str, int], str]
) -> dict[tuple[str, int], ImageHeader]:
    """Read the header of every image, by part and index; *reasons* gets why one cannot be read."""
    headers: dict[tuple[str, int], ImageHeader] = {}
    for part, pool in pools.items():
        for index, found in enumerate(work_through(pool, read_header)):
            if isinstance(found, str):
                reasons[part, index] = found
            else:
                headers[part, index] = found
    return headers


def work_through(
    pool: EncodedImages, work: Callable[[Path | bytes], Result], skip: Container[int] = ()
) -> Iterator[Result | str]:
    """Yield what *work* makes of each image of a pool, in order, or why it cannot be read; threads do the work.

    Args:
        pool: of encoded images.
        work: is given a file or its bytes.
        skip: images that *work* is not given; ``""`` is yielded for them.
    """

    def batch(items: Sequence[tuple[int, Path | bytes]]) -> list[Result | str]:
        answers: list[Result | str] = []
        for index, item in items:
            try:
                answers.append("" if index in skip else work(item))
            except DataError as error:
                answers.append(str(error))
        return answers

    with ThreadPoolExecutor(WORKERS) as executor:
        waiting: deque[Future[list[Result | str]]] = deque()
        items = enumerate(itertools.chain.from_iterable(pool.chunks()))
        while some := list(itertools.islice(items, BATCH)):
            waiting.append(executor.submit(batch, some))
            if len(waiting) > 2 * WORKERS:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()


def named(
    reasons: Mapping[tuple[str, int], str], pools: Mapping[str, EncodedImages]
) -> tuple[tuple[str, str], ...]:
    """Return (name, reason) of every image that cannot be read, part by part, in order."""
    order = {part: number for number, part in enumerate(pools)}
    places = sorted(reasons, key=lambda place: (order[place[0]], place[1]))
    return tuple((pools[part].name_of(index), reasons[part, index]) for part, index in places)
