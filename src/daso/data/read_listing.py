"""Decode a listing into a source: one shape for all images, errors named, copies found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from daso.data.class_names import name_faults
from daso.data.duplicates import NameOf, without_copies
from daso.data.images.cache import Cache, ColorFoundError, Reasons
from daso.data.images.decode import ImageHeader, Picture, decode_picture, read_header
from daso.data.images.decoded import Decoded, DecodedImages, brightest, darkness, select_images
from daso.data.images.encoded import (
    Encoded,
    EncodedImages,
    no_size_warnings,
    read_headers,
    work_through,
)
from daso.data.images.layout import LARGEST_KEPT, Layout, choose_layout, square_layout
from daso.data.images.memory import memory_shortage
from daso.data.listing import Listing, Reading
from daso.data.source import Source, parts_of, refuse_empty_classes
from daso.errors import DataError, problems

DECIDING = 200
"""Images of a part that decide, beside the labeled ones, about the shape of a cache."""
RARE_COLORS = 0.1
"""Images in color are told about up to this share of all."""


def read_listing(listing: Listing, reading: Reading) -> Source:
    """Decode a data set and refuse unreadable images and copies.

    Published benchmarks are not searched for copies. With ``skip_bad`` unreadable images and those
    that ``without_copies`` refuses are left out and recorded in ``Source.skipped``.

    Raises:
        DataError: images are unreadable (all are tried, the first 20 are named), a class is left
            without images, or see ``without_copies``.
        OptionError: the size is not positive.
    """
    arrays, reasons, notes = decode_pools(listing, reading)
    unreadable = tuple(
        (pool.name_of(index), reason)
        for part, pool in listing.pools.items()
        for index, reason in sorted(reasons[part].items())
    )
    if len(unreadable) == sum(map(len, listing.pools.values())):
        raise DataError(_refusal(unreadable, listing.where))
    images: dict[str, DecodedImages] = {}
    names: dict[str, NameOf] = {}
    for part, pool in listing.pools.items():
        decoded, bad = arrays[part], sorted(reasons[part])
        own = listing.own_labels.rows if listing.own_labels and part == "train" else None
        if bad:
            kept = np.delete(np.arange(len(pool)), bad)
            pool, decoded = pool.select(kept), select_images(decoded, kept)
            own = None if own is None else own[kept]
        paths = tuple(pool.all_names()) if pool.from_files else ()
        images[part] = DecodedImages(decoded, pool.labels, paths, own)
        names[part] = pool.name_of
    if unreadable and not reading.skip_bad:
        lines = [_refusal(unreadable, listing.where)]
        if not listing.published:
            try:
                without_copies(images, names, listing.class_names, where=listing.where)
            except DataError as error:
                lines.append(str(error))
        raise DataError("\n".join(lines))
    refuse_empty_classes(images["train"].labels, listing.class_names, listing.where, "readable ")
    source = Source(
        name=listing.name,
        class_names=listing.class_names,
        **parts_of(images),
        mean=listing.mean,
        std=listing.std,
        skipped=(*listing.skipped, *unreadable),
        notes=(*listing.notes, *notes),
        own_labels=listing.own_labels,
        journal=listing.journal,
    )
    if listing.published:
        return source
    return checked_for_copies(source, names, where=listing.where, skip_bad=reading.skip_bad)


@dataclass
class Seen:
    """What was seen of images.

    Attributes:
        count: number of those whose color is known.
        colored: names of those of them that are not gray.
        several: names of images that come with further frames or pages.
    """

    count: int = 0
    colored: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)

    def add(self, name: str, *, is_colored: bool, count: int = 1, several: bool = False) -> None:
        self.count += count
        self.colored += [name] if is_colored else []
        self.several += [name] if several else []

    def notes(self, listing: Listing) -> Iterator[str]:
        """Yield notes about images in color so few that they may be a mistake, and on pages."""
        if 0 < len(self.colored) <= RARE_COLORS * self.count and not listing.published:
            yield (
                f"{listing.where}: nearly all images are gray, but {self.colored[0]!r} is in "
                "color; so all are read in color: convert the few to gray if colors do not tell "
                "classes apart"
            )
        if self.several:
            holds = f"{len(self.several):,} files hold" if self.several[1:] else "1 file holds"
            yield (
                f"{listing.where}: {holds} several frames or pages, such as {self.several[0]!r}; "
                "only the first is used: write the others to files of their own if they matter"
            )


def decode_pools(
    listing: Listing, reading: Reading
) -> tuple[dict[str, Decoded], dict[str, Reasons], tuple[str, ...]]:
    """Decode all images to one shape; those that are unreadable have a reason and any pixels.

    There are no arrays if no image is readable. The last value are notes about the shape.
    """
    reasons: dict[str, Reasons] = {part: {} for part in listing.pools}
    seen = Seen()
    with no_size_warnings():
        alike = _decode_alike(listing.pools, reading, reasons, seen)
        if alike is not None:
            return dict(alike), reasons, tuple(seen.notes(listing))
        layout, notes = _choose_layout(listing, reading, reasons, seen)
        if layout is None:
            return {}, reasons, notes
        if reading.cache is None:
            _refuse_what_is_too_large(listing.pools, layout)
            one = (layout.channels or 1, layout.height, layout.width)
            decoded = _decode_in_memory(listing.pools, layout.decode_picture, one, reasons, seen)
            return dict(decoded or {}), reasons, (*notes, *seen.notes(listing))
        try:
            arrays = _decode_in_cache(listing.pools, reading.cache, layout, reasons, seen)
        except ColorFoundError as found:
            count = sum(map(len, listing.pools.values()))
            seen.add(str(found), is_colored=True, count=count)
            layout = dataclasses.replace(layout, channels=3)
            seen.several.clear()
            arrays = _decode_in_cache(listing.pools, reading.cache, layout, reasons, seen)
    return arrays, reasons, (*notes, *seen.notes(listing))


def _decode_in_cache(
    pools: Mapping[str, EncodedImages],
    cache: Cache,
    layout: Layout,
    reasons: dict[str, Reasons],
    seen: Seen,
) -> dict[str, Decoded]:
    arrays: dict[str, Decoded] = {}
    for part, pool in pools.items():
        if not len(pool):  # nothing is labeled yet
            shape = (0, layout.channels or 1, layout.height, layout.width)
            arrays[part] = np.empty(shape, dtype=np.uint8)
            continue
        arrays[part], more, several = cache.decode(part, pool, layout)
        reasons[part].update(more)
        seen.several += map(pool.name_of, several)
    return arrays


def checked_for_copies(
    source: Source, names: Mapping[str, NameOf], *, where: str, skip_bad: bool
) -> Source:
    """Refuse copies in custom data, or leave them out, and note confusable class names."""
    images, skipped, notes = without_copies(
        source.parts(), names, source.class_names, where=where, skip_bad=skip_bad
    )
    refuse_empty_classes(images["train"].labels, source.class_names, where, "usable ")
    confusable = [f"{text}: {cure}" for _, text, cure in name_faults(source.class_names)]
    largest = {part: brightest(of_part.images) for part, of_part in images.items() if of_part}
    dark = [f"{text}: {cure}" for text, cure in darkness(largest)]
    return dataclasses.replace(
        source,
        **parts_of(images),
        skipped=(*source.skipped, *skipped),
        notes=(*source.notes, *confusable, *dark, *notes),
    )


MUCH = 3
"""Factor of shrinking from which lost details are worth a word."""


def choose_side(layout: Layout, reading: Reading) -> tuple[Layout, tuple[str, ...]]:
    """Return a layout with the side to read, and a note if ``largest_side`` decides it."""
    if reading.size is not None:
        return square_layout(reading.size, layout.channels), ()
    side, largest = max(layout.height, layout.width), reading.largest_side
    if largest is None or side <= largest:
        return layout, ()
    note = (
        f"images are resized to {largest} x {largest} pixels to save time; "
        f"--size {side} keeps {side} x {side}"
    )
    if side >= MUCH * largest:
        note += (
            f". Details of fewer than {2 * side // largest} pixels are lost; if they tell your "
            f"classes apart, as textures and small parts do, try --size {MUCH * largest}"
        )
    return square_layout(largest, layout.channels), (note,)


def _choose_layout(
    listing: Listing, reading: Reading, reasons: dict[str, Reasons], seen: Seen
) -> tuple[Layout | None, tuple[str, ...]]:
    # With a cache only the labeled images decide, and some of the others whether there are colors,
    # so that not all files need to be opened; those that were labeled in the page do not, or every
    # round might decode all images anew. Decoding tells if an image in color was missed.
    if reading.size is not None and reading.cache is None:
        return square_layout(reading.size, listing.channels), ()
    headers: list[ImageHeader] = []

    def look_at(pool: EncodedImages) -> Reasons:
        readable, unreadable = read_headers(pool)
        headers.extend(readable.values())
        for index, header in readable.items():
            seen.add(pool.name_of(index), is_colored=not header.grey)
        return unreadable

    if reading.cache is not None:
        look_at(_deciding(listing))
    for part, pool in () if headers else listing.pools.items():
        reasons[part] = look_at(pool)
    if not headers:
        return None, ()
    natural = choose_layout(headers)
    if reading.cache is not None and natural.channels == 1:
        pools = (listing.before or listing.pools).values()
        for pool in (pool for pool in pools if pool.item is not None and len(pool)):
            look_at(_some(pool))
        natural = dataclasses.replace(natural, channels=3 if seen.colored else 1)
    chosen, notes = choose_side(natural, reading)
    if reading.cache is not None:
        # Images of the square size stay unchanged; others are resized to it.
        square = chosen.height if chosen.height == chosen.width else None
        chosen = dataclasses.replace(chosen, channels=natural.channels, square=square)
    return chosen, notes


def _deciding(listing: Listing) -> EncodedImages:
    """Return the images that decide the shape of a cache: labeled ones, or else some of all."""
    pools = listing.pools if listing.before is None else listing.before
    if len(pools["train"]) or "unlabeled" not in pools:
        return pools["train"]
    return _some(pools["unlabeled"])


def _some(pool: EncodedImages) -> EncodedImages:
    return pool.select(np.linspace(0, len(pool) - 1, DECIDING).astype(np.int64))


def _decode_alike(
    pools: Mapping[str, EncodedImages],
    reading: Reading,
    reasons: dict[str, Reasons],
    seen: Seen,
) -> dict[str, npt.NDArray[np.uint8]] | None:
    """Decode small images that all have the size of the first, in one pass; None: they have not."""
    if reading.size is not None or reading.cache is not None:
        return None
    first = next(
        (item for pool in pools.values() for items in pool.chunks() for item in items), b""
    )
    try:
        if isinstance(first, DataError):
            raise first
        header = read_header(first)
    except DataError:
        return None
    shape = (header.height, header.width)
    if max(shape) > min(LARGEST_KEPT, reading.largest_side or LARGEST_KEPT):
        return None
    if memory_shortage(sum(map(len, pools.values())), (3, *shape)):
        return None
    found: dict[str, Reasons] = {part: {} for part in pools}
    also_seen = Seen()
    arrays = _decode_in_memory(pools, decode_picture, (1, *shape), found, also_seen)
    if arrays is not None:
        reasons.update(found)
        vars(seen).update(vars(also_seen))
    return arrays


def _decode_in_memory(
    pools: Mapping[str, EncodedImages],
    decode: Callable[[Encoded], Picture],
    shape: tuple[int, int, int],
    reasons: dict[str, Reasons],
    seen: Seen,
) -> dict[str, npt.NDArray[np.uint8]] | None:
    """Decode all images; unreadable ones get a reason and undefined pixels.

    A part of *shape* with one channel gets three at its first image in color. None: an image has
    another height or width.
    """
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    for part, pool in pools.items():
        images = np.empty((len(pool), *shape), dtype=np.uint8)
        for index, result in enumerate(work_through(pool, decode, set(reasons[part]))):
            if isinstance(result, str):
                reasons[part].setdefault(index, result)
                continue
            pixels = result.pixels
            if pixels.shape[1:] != shape[1:]:
                return None
            if len(pixels) > images.shape[1]:
                images = np.repeat(images, 3, axis=1)
            images[index] = pixels
            if shape[0] == 1:
                seen.add(pool.name_of(index), is_colored=len(pixels) == 3)
            if result.several:
                seen.several.append(pool.name_of(index))
        arrays[part] = images
    if len({images.shape[1] for images in arrays.values()}) == 1:
        return arrays
    return {
        part: images if images.shape[1] == 3 else np.repeat(images, 3, axis=1)
        for part, images in arrays.items()
    }


def _refuse_what_is_too_large(pools: Mapping[str, EncodedImages], layout: Layout) -> None:
    """Refuse images that do not fit into memory.

    If the channels are not known yet, the headers decide, read only where color would not fit.
    """
    count, side = sum(map(len, pools.values())), (layout.height, layout.width)
    shortage = memory_shortage(count, (layout.channels or 3, *side))
    if shortage and layout.channels is None:
        headers = (header for pool in pools.values() for header in read_headers(pool)[0].values())
        if all(header.grey for header in headers):
            shortage = memory_shortage(count, (1, *side))
    if shortage:
        raise DataError("; ".join(shortage))


def _refusal(unreadable: Sequence[tuple[str, str]], where: str) -> str:
    count = f"{len(unreadable)} {'image' if len(unreadable) == 1 else 'images'}"
    cure = "Repair or remove them, or leave them out: --skip-bad."
    return problems(unreadable, f"{where}: {count} could not be read", cure)
