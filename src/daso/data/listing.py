"""What a reader of people's own images finds before it decodes any: names, classes, labels; and the decoding of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from daso.data.class_names import confusable_names
from daso.data.decode_pools import decode_pools, unreadable
from daso.data.duplicates import leave_out_copies
from daso.data.images.cache import Cache
from daso.data.images.encoded import EncodedImages, Shrink, origin_of
from daso.data.source import Images, Source
from daso.errors import NAMED, DataError, nearest

CHUNK = 256
PARTS = ("train", "unlabeled", "validation", "test")
PART_NAMES = {
    "train": ("train", "labeled", "labelled", "training"),
    "unlabeled": ("unlabeled", "unlabelled", "unsupervised"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test",),
}
"""For each part of a data set, what people call it; the same words in folders, manifests and data sets."""


@dataclass(frozen=True)
class Listing:
    """People's own images, not decoded yet.

    Attributes:
        name: how run folders call the data.
        where: the file or folder that they come from, for messages.
        class_names: the K class names; a label indexes them.
        pools: by part, of ``PARTS``; ``train`` is always there.
        skipped: rows left out already, with the reason.
        notes: see ``Source``.
    """

    name: str
    where: str
    class_names: tuple[str, ...]
    pools: Mapping[str, EncodedImages]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.refuse_empty_classes(self.pools["train"].labels)

    def refuse_empty_classes(self, labels: npt.NDArray[np.int64], kind: str = "") -> None:
        """Raise a ``DataError`` if a class has none of the labelled images."""
        counts = np.bincount(labels, minlength=len(self.class_names))
        empty = [
            name for name, count in zip(self.class_names, counts.tolist(), strict=True) if not count
        ]
        if empty:
            some = ", ".join(map(repr, empty[:NAMED])) + (" ..." if len(empty) > NAMED else "")
            raise DataError(
                f"{self.where}: no {kind}labelled image of class {some}; add some, or remove the class"
            )


def files_pool(paths: Sequence[Path], labels: npt.ArrayLike) -> EncodedImages:
    """Return the pool of some image files; labels int64 (N,), -1 where unknown."""

    def chunks() -> Iterator[Sequence[Path]]:
        for start in range(0, len(paths), CHUNK):
            yield paths[start : start + CHUNK]

    def origins() -> Iterator[str]:
        return map(origin_of, paths)

    known = np.asarray(labels, dtype=np.int64).reshape(len(paths))
    return EncodedImages(known, lambda i: str(paths[i]), chunks, from_files=True, origins=origins)


def part_called(name: str) -> str | None:
    """Return the part of a data set that people call *name*, whatever its case; None if it is none."""
    return next((part for part, names in PART_NAMES.items() if name.strip().lower() in names), None)


def unknown_part(name: str) -> str:
    """Return how an error speaks of a part that nobody calls so."""
    valid = [other for names in PART_NAMES.values() for other in names]
    return f"split {name[:80]!r} is none of {', '.join(valid)}.{nearest(name.lower(), valid)}"


def read_listing(
    listing: Listing,
    *,
    size: int | None = None,
    skip_bad: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    published: bool = False,
    cache: Cache | None = None,
    shrink: Shrink | None = None,
) -> Source:
    """Decode people's own images and refuse what would make a training worthless.

    Args:
        listing: what to decode.
        size: side of the square that every image is resized to; None: see ``pool.choose_layout``.
        skip_bad: leave out, and record in ``Source.skipped``, unreadable images, test images that are labelled
            images too, and labelled images that have several labels.
        mean, std: the published normalisation, if there is one.
        published: a benchmark, which is taken as it is: copies are not looked for.
        cache, shrink: see ``decode_pools``.

    Raises:
        DataError: images could not be read, a class is left without any, or see ``leave_out_copies``; of unreadable
            images and copies it names both.
    """
    images, kept, skipped = decode_pools(
        listing.pools, where=listing.where, size=size, skip_bad=True, cache=cache, shrink=shrink
    )
    if skipped and not skip_bad:
        copies_too = () if published else _refused_copies(listing, images, kept)
        raise DataError("\n".join([unreadable(skipped, listing.where), *copies_too]))
    listing.refuse_empty_classes(images["train"].labels, "readable ")
    notes = listing.notes
    if not published:
        images, copies, found = leave_out_copies(
            images,
            _names(listing, kept),
            listing.class_names,
            where=listing.where,
            skip_bad=skip_bad,
        )
        skipped, notes = (
            (*skipped, *copies),
            (*notes, *confusable_names(listing.class_names), *found),
        )
        listing.refuse_empty_classes(images["train"].labels, "usable ")
    return Source(
        name=listing.name,
        class_names=listing.class_names,
        train=images["train"],
        unlabeled=_unless_empty(images.get("unlabeled")),
        validation=_unless_empty(images.get("validation")),
        test=_unless_empty(images.get("test")),
        mean=mean,
        std=std,
        skipped=(*listing.skipped, *skipped),
        notes=notes,
    )


def _refused_copies(
    listing: Listing, images: Mapping[str, Images], kept: Mapping[str, npt.NDArray[np.int64]]
) -> Iterator[str]:
    """Yield the text of the error about copies among the readable images, if they would be refused."""
    try:
        leave_out_copies(
            images, _names(listing, kept), listing.class_names, where=listing.where, skip_bad=False
        )
    except DataError as error:
        yield str(error)


def _names(listing: Listing, kept: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, Sequence[str]]:
    return {part: Names(listing.pools[part].name_of, indices) for part, indices in kept.items()}


@dataclass(frozen=True)
class Names(Sequence[str]):
    """The names of some images of a pool, each made when it is asked for."""

    name_of: Callable[[int], str]
    kept: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Names(self.name_of, self.kept[index])
        return self.name_of(int(self.kept[index]))


def own_source(source: Source, *, skip_bad: bool) -> Source:
    """Do the same for people's own images that came decoded: look for copies, refuse or leave out.

    Raises:
        DataError: see ``leave_out_copies``.
    """
    pools = {part: pool for part in PARTS if (pool := getattr(source, part)) is not None}
    names = {
        part: [f"{part} image {index}" for index in range(len(pool))]
        for part, pool in pools.items()
    }
    images, skipped, notes = leave_out_copies(
        pools, names, source.class_names, where=source.name, skip_bad=skip_bad
    )
    return dataclasses.replace(
        source,
        train=images["train"],
        unlabeled=_unless_empty(images.get("unlabeled")),
        validation=_unless_empty(images.get("validation")),
        test=_unless_empty(images.get("test")),
        skipped=(*source.skipped, *skipped),
        notes=(*source.notes, *confusable_names(source.class_names), *notes),
    )


def _unless_empty(images: Images | None) -> Images | None:
    return images if images is not None and len(images) else None
