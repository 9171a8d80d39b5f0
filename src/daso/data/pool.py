"""Decode whole pools of encoded images to one size, with threads, and report every unreadable one."""

from __future__ import annotations

import itertools
import logging
import os
import warnings
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.decode import ImageHeader, decode, read_header
from daso.data.memory import available_memory
from daso.data.source import Images
from daso.errors import DataError, OptionError

LARGEST_KEPT = 96
"""Images that all have one size keep it up to this many pixels a side."""
LARGEST_CHOSEN = 224
NAMED_IN_ERROR = 20
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
    """

    labels: npt.NDArray[np.int64]
    name_of: Callable[[int], str]
    chunks: Callable[[], Iterator[Sequence[Path | bytes]]]
    from_files: bool

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
        return EncodedImages(self.labels[order], lambda i: self.name_of(order[i]), chunks, self.from_files)

    def followed_by(self, other: EncodedImages) -> EncodedImages:
        """Return a pool of these images and then others."""

        def chunks() -> Iterator[Sequence[Path | bytes]]:
            yield from self.chunks()
            yield from other.chunks()

        def name_of(index: int) -> str:
            return self.name_of(index) if index < len(self) else other.name_of(index - len(self))

        labels = np.concatenate([self.labels, other.labels])
        return EncodedImages(labels, name_of, chunks, self.from_files and other.from_files)


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


def decode_pools(
    pools: Mapping[str, EncodedImages], *, where: str, size: int | None = None, skip_bad: bool = False
) -> tuple[dict[str, Images], dict[str, npt.NDArray[np.int64]], tuple[tuple[str, str], ...]]:
    """Decode pools to one shape: (C, H, W) is the same for all of them.

    Args:
        pools: by name; the results have the same names.
        where: the folder they come from, for messages.
        size: see ``choose_layout``.
        skip_bad: leave unreadable images out rather than raise.

    Returns:
        The decoded pools; for each, which of its images these are; and (name, reason) of every image left out.

    Raises:
        DataError: images could not be read; all are looked at first, and the first 20 named with the reason.
        OptionError: *size* is not positive.
    """
    reasons: dict[tuple[str, int], str] = {}
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    with quiet():
        layout = None if size is None else square_layout(size)
        if layout is None:
            headers = read_headers(pools, reasons)
            layout = choose_layout(list(headers.values())) if headers else None
        if layout is not None:
            arrays = _decode_all(pools, layout, reasons)
    skipped = named(reasons, pools)
    if skipped and (not skip_bad or all(len(indices) == 0 for indices in _kept(pools, reasons).values())):
        raise DataError(_unreadable(skipped, where))
    kept = _kept(pools, reasons)
    images = {part: _select(pool, arrays[part], kept[part]) for part, pool in pools.items()}
    return images, kept, skipped


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


def _decode_all(
    pools: Mapping[str, EncodedImages], layout: Layout, reasons: dict[tuple[str, int], str]
) -> dict[str, npt.NDArray[np.uint8]]:
    """Decode all images; those that cannot be decoded get a reason, and their places hold nothing of use."""
    _refuse_too_many(sum(map(len, pools.values())), layout)
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    grey = layout.channels != 3
    for part, pool in pools.items():
        # Where the channels are not known beforehand, a pool is grey until the first image in colour.
        channels = layout.channels or 1
        images = np.empty((len(pool.labels), channels, layout.height, layout.width), dtype=np.uint8)
        skip = {index for owner, index in reasons if owner == part}
        decoded = work_through(pool, partial(decode, channels=layout.channels, size=layout.square), skip)
        for index, image in enumerate(decoded):
            if isinstance(image, str):
                if image:
                    reasons[part, index] = image
                continue
            if image.shape[1:] != images.shape[2:]:
                reasons[part, index] = f"decodes to {image.shape}, while its header says {images.shape[1:]}"
                continue
            if len(image) > images.shape[1]:
                images, grey = np.repeat(images, 3, axis=1), False
            images[index] = image
        arrays[part] = images
    return {part: images if grey else _in_color(images) for part, images in arrays.items()}


def _refuse_too_many(count: int, layout: Layout) -> None:
    """Raise a ``DataError`` if decoded images will not fit into the memory."""
    pixels = (layout.channels or 1) * layout.height * layout.width
    available = available_memory()
    if available is None or count * pixels <= available:
        return
    fits = int((available / (3 * count)) ** 0.5) // 8 * 8
    raise DataError(
        f"{count:,} images of {layout.width} x {layout.height} pixels take {count * pixels / 1e9:,.1f} GB of memory, "
        f"and {available / 1e9:.1f} GB are left; give a smaller --size"
        + (f", at most {fits}" if fits else "")
    )


def _in_color(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return images if images.shape[1] == 3 else np.repeat(images, 3, axis=1)


def _kept(
    pools: Mapping[str, EncodedImages], reasons: Mapping[tuple[str, int], str]
) -> dict[str, npt.NDArray[np.int64]]:
    kept = {}
    for part, pool in pools.items():
        good = np.ones(len(pool.labels), dtype=bool)
        good[[index for owner, index in reasons if owner == part]] = False
        kept[part] = np.flatnonzero(good).astype(np.int64)
    return kept


def _select(pool: EncodedImages, images: npt.NDArray[np.uint8], kept: npt.NDArray[np.int64]) -> Images:
    paths = tuple(pool.name_of(int(i)) for i in kept) if pool.from_files else ()
    if len(kept) == len(images):
        return Images(images, pool.labels, paths)
    return Images(images[kept], pool.labels[kept], paths)


def _unreadable(skipped: Sequence[tuple[str, str]], where: str) -> str:
    lines = [f"  {name}: {reason}" for name, reason in skipped[:NAMED_IN_ERROR]]
    if len(skipped) > NAMED_IN_ERROR:
        lines.append(f"  and {len(skipped) - NAMED_IN_ERROR} more")
    plural = "image" if len(skipped) == 1 else "images"
    return (
        f"{where}: {len(skipped)} {plural} could not be read:\n"
        + "\n".join(lines)
        + "\nMend or remove them, or go on without them: --skip-bad."
    )
