"""Decode whole pools of images to one shape, into memory or into a cache, and report every unreadable one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from daso.data.images.cache import Cache
from daso.data.images.decode import decode
from daso.data.images.encoded import (
    EncodedImages,
    Layout,
    Shrink,
    choose_layout,
    named,
    quiet,
    read_headers,
    shrunk_layout,
    square_layout,
    work_through,
)
from daso.data.images.image_file import ImageFile
from daso.data.images.memory import available_memory
from daso.data.source import Images, select_images
from daso.errors import DataError, problems


def decode_pools(
    pools: Mapping[str, EncodedImages],
    *,
    where: str,
    size: int | None = None,
    skip_bad: bool = False,
    cache: Cache | None = None,
    shrink: Shrink | None = None,
) -> tuple[dict[str, Images], dict[str, npt.NDArray[np.int64]], tuple[tuple[str, str], ...]]:
    """Decode pools to one shape: (C, H, W) is the same for all of them.

    Args:
        pools: by name; the results have the same names.
        where: the folder they come from, for messages.
        size: see ``choose_layout``.
        skip_bad: leave unreadable images out rather than raise.
        cache: where decoded images are kept; None: in memory. With one the labelled images alone, not all, decide
            where a choice of size or colour is to be made, so that not all files are opened for it.
        shrink: decides, where no size is given, the one that is chosen otherwise.

    Returns:
        The decoded pools; for each, which of its images these are; and (name, reason) of every image left out.

    Raises:
        DataError: images could not be read; all are looked at first, and the first 20 named with the reason.
        OptionError: *size* is not positive.
    """
    reasons: dict[tuple[str, int], str] = {}
    arrays: dict[str, npt.NDArray[np.uint8] | ImageFile] = {}
    with quiet():
        layout = None if size is None else square_layout(size)
        if cache is not None:
            arrays = _decode_into(cache, pools, layout, reasons, shrink)
        elif layout is None:
            headers = read_headers(pools, reasons)
            layout = (
                shrunk_layout(choose_layout(list(headers.values())), shrink) if headers else None
            )
        if cache is None and layout is not None:
            arrays = {**_decode_all(pools, layout, reasons)}
    skipped = named(reasons, pools)
    if skipped and (
        not skip_bad or all(len(indices) == 0 for indices in _kept(pools, reasons).values())
    ):
        raise DataError(unreadable(skipped, where))
    kept = _kept(pools, reasons)
    images = {part: _select(pool, arrays[part], kept[part]) for part, pool in pools.items()}
    return images, kept, skipped


def _decode_into(
    cache: Cache,
    pools: Mapping[str, EncodedImages],
    layout: Layout | None,
    reasons: dict[tuple[str, int], str],
    shrink: Shrink | None,
) -> dict[str, npt.NDArray[np.uint8] | ImageFile]:
    """Do the same into a cache."""
    headers = list(read_headers({"train": pools["train"]}, reasons).values())
    if not headers:
        return {}
    chosen = choose_layout(headers)
    if layout is None:
        chosen = shrunk_layout(chosen, shrink)
        # Images of the same size are left as they are by making them squares of it, and others are made to fit.
        layout = dataclasses.replace(
            chosen, square=chosen.height if chosen.height == chosen.width else None
        )
    layout = dataclasses.replace(layout, channels=chosen.channels)
    arrays: dict[str, npt.NDArray[np.uint8] | ImageFile] = {}
    for part, pool in pools.items():
        arrays[part], bad = cache.decode(part, pool, layout)
        reasons.update({(part, index): reason for index, reason in bad.items()})
    return arrays


def _decode_all(
    pools: Mapping[str, EncodedImages], layout: Layout, reasons: dict[tuple[str, int], str]
) -> dict[str, npt.NDArray[np.uint8]]:
    """Decode all images; those that cannot be decoded get a reason, and their places hold nothing of use."""
    refuse_too_many(sum(map(len, pools.values())), layout)
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    grey = layout.channels != 3
    for part, pool in pools.items():
        # Where the channels are not known beforehand, a pool is grey until the first image in colour.
        channels = layout.channels or 1
        images = np.empty((len(pool.labels), channels, layout.height, layout.width), dtype=np.uint8)
        skip = {index for owner, index in reasons if owner == part}
        decoded = work_through(
            pool, partial(decode, channels=layout.channels, size=layout.square), skip
        )
        for index, image in enumerate(decoded):
            if isinstance(image, str):
                if image:
                    reasons[part, index] = image
                continue
            if image.shape[1:] != images.shape[2:]:
                reasons[part, index] = (
                    f"decodes to {image.shape}, while its header says {images.shape[1:]}"
                )
                continue
            if len(image) > images.shape[1]:
                images, grey = np.repeat(images, 3, axis=1), False
            images[index] = image
        arrays[part] = images
    return {part: images if grey else _in_color(images) for part, images in arrays.items()}


def refuse_too_many(count: int, layout: Layout) -> None:
    """Raise a ``DataError`` if decoded images will not fit into the memory."""
    pixels = (layout.channels or 1) * layout.height * layout.width
    available = available_memory()
    if available is None or count * pixels <= available:
        return
    fits = int((available / (3 * count)) ** 0.5) // 8 * 8
    raise DataError(
        f"{count:,} images of {layout.width} x {layout.height} pixels take {count * pixels / 1e9:,.1f} GB of memory, "
        f"and {available / 1e9:.1f} GB are left; keep them on disk with --cache FOLDER, or give a smaller --size"
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


def _select(
    pool: EncodedImages, images: npt.NDArray[np.uint8] | ImageFile, kept: npt.NDArray[np.int64]
) -> Images:
    paths = tuple(pool.name_of(int(i)) for i in kept) if pool.from_files else ()
    if len(kept) == len(images):
        return Images(images, pool.labels, paths)
    return Images(select_images(images, kept), pool.labels[kept], paths)


def unreadable(skipped: Sequence[tuple[str, str]], where: str) -> str:
    """Return the text of an error about images that could not be read."""
    plural = "image" if len(skipped) == 1 else "images"
    what = f"{where}: {len(skipped)} {plural} could not be read"
    return problems(skipped, what, "Mend or remove them, or go on without them: --skip-bad.")
