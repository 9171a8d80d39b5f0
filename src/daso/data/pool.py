"""Decode whole pools of encoded images to one size, with threads, and report every unreadable one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.decode import ImageHeader, decode, read_header
from daso.data.source import Images
from daso.errors import DataError, OptionError

LARGEST_KEPT = 96
"""Images that all have one size keep it up to this many pixels a side."""
LARGEST_CHOSEN = 224
NAMED_IN_ERROR = 20
WORKERS = min(8, os.cpu_count() or 1)

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


@dataclass(frozen=True)
class Layout:
    """The shape that all decoded images get; *square* is the size to resize to, None to leave it alone."""

    channels: int
    height: int
    width: int
    square: int | None


def choose_layout(headers: Sequence[ImageHeader], size: int | None) -> Layout:
    """Choose one shape for images of any sizes.

    Grey only if all are grey. A given *size* makes a square of it. Without one, images that have one size of
    at most 96 x 96 keep it; others become squares of the median shorter side, rounded to a multiple of 8,
    from 8 to 224.
    """
    channels = 1 if all(header.grey for header in headers) else 3
    if size is not None:
        return Layout(channels, size, size, size)
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
) -> tuple[dict[str, Images], tuple[tuple[str, str], ...]]:
    """Decode pools to one shape: (C, H, W) is the same for all of them.

    Args:
        pools: by name; the result has the same names.
        where: the folder they come from, for messages.
        size: see ``choose_layout``.
        skip_bad: leave unreadable images out rather than raise.

    Returns:
        The decoded pools, and (name, reason) of every image left out.

    Raises:
        DataError: images could not be read; all are looked at first, and the first 20 named with the reason.
        OptionError: *size* is not positive.
    """
    if size is not None and size < 1:
        raise OptionError(f"size must be at least 1 pixel, got {size}")
    reasons: dict[tuple[str, int], str] = {}
    decoded: dict[str, npt.NDArray[np.uint8]] = {}
    with ThreadPoolExecutor(WORKERS) as executor, warnings.catch_warnings():
        # read_header() and decode() turn the size at which Pillow warns into an error.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        headers = _read_headers(executor, pools, reasons)
        if headers:
            layout = choose_layout(headers, size)
            small = max(max(header.height, header.width) for header in headers) <= LARGEST_KEPT
            # Threads cost more than they bring where an image decodes in less time than a thread switch.
            apply = map if small else executor.map
            for part, pool in pools.items():
                decoded[part] = _decode_pool(apply, part, pool, layout, reasons)
    skipped = tuple(
        (pools[part].name_of(index), reason)
        for part in pools
        for index, reason in sorted((i, why) for (owner, i), why in reasons.items() if owner == part)
    )
    if skipped and (not skip_bad or not headers):
        raise DataError(_unreadable(skipped, where))
    return {part: _without_bad(part, pools[part], decoded[part], reasons) for part in pools}, skipped


def _read_headers(
    executor: ThreadPoolExecutor, pools: Mapping[str, EncodedImages], reasons: dict[tuple[str, int], str]
) -> list[ImageHeader]:
    headers: list[ImageHeader] = []
    for part, pool in pools.items():
        index = 0
        for chunk in pool.chunks():
            for header in executor.map(_try_header, chunk) if pool.from_files else map(_try_header, chunk):
                if isinstance(header, str):
                    reasons[part, index] = header
                else:
                    headers.append(header)
                index += 1
    return headers


def _decode_pool(
    apply: Callable[..., Iterator[npt.NDArray[np.uint8] | str | None]],
    part: str,
    pool: EncodedImages,
    layout: Layout,
    reasons: dict[tuple[str, int], str],
) -> npt.NDArray[np.uint8]:
    shape = (layout.channels, layout.height, layout.width)
    images = np.empty((len(pool.labels), *shape), dtype=np.uint8)
    index = 0
    for chunk in pool.chunks():
        wanted = [None if (part, index + i) in reasons else item for i, item in enumerate(chunk)]
        for image in apply(_try_decode, wanted, repeat(layout)):
            if isinstance(image, str):
                reasons[part, index] = image
            elif image is not None and image.shape != shape:
                reasons[part, index] = f"decodes to {image.shape}, while its header says {shape}"
            elif image is not None:
                images[index] = image
            index += 1
    return images


def _try_header(source: Path | bytes) -> ImageHeader | str:
    try:
        return read_header(source)
    except DataError as error:
        return str(error)


def _try_decode(source: Path | bytes | None, layout: Layout) -> npt.NDArray[np.uint8] | str | None:
    if source is None:
        return None
    try:
        return decode(source, channels=layout.channels, size=layout.square)
    except DataError as error:
        return str(error)


def _without_bad(
    part: str, pool: EncodedImages, images: npt.NDArray[np.uint8], reasons: dict[tuple[str, int], str]
) -> Images:
    kept = np.array([i for i in range(len(images)) if (part, i) not in reasons], dtype=np.int64)
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
