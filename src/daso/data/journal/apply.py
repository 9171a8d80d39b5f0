"""Apply the journal to a data set: encoded images, or arrays."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from daso.data.class_names import listed
from daso.data.images.decoded import DecodedImages, digest
from daso.data.images.encoded import EncodedImages
from daso.data.journal.changes import Changes, Indices, find_changes
from daso.data.journal.entries import Journal, journal_path
from daso.data.journal.names import array_name, item_checksum, short_name_from
from daso.data.listing import Listing
from daso.data.source import Source, parts_of, renumber_used
from daso.errors import DataError, typed

Images = TypeVar("Images", EncodedImages, DecodedImages)


def read_journal(source: Path, first: int | None = None) -> Journal | None:
    """Read the journal of a data set; None if there is none, or nothing is decided in it."""
    try:
        path = journal_path(source)
        if first == 0 or not path.exists():
            return None
    except PermissionError:  # the reader names the folder
        return None
    journal = Journal.read(path, first)
    return journal if journal.decisions() else None


def apply_journal(
    listing: Listing, journal: Journal, base: Path, *, skip_bad: bool = False
) -> Listing:
    """Return a data set with the labels of its journal.

    Args:
        base: folder in which the names of images start.
        skip_bad: leave out, and record, classes that have no label.
    """
    pools = listing.pools

    def checksums(part: str, indices: Indices) -> Iterator[str]:
        for item in itertools.chain.from_iterable(pools[part].select(indices).chunks()):
            try:
                yield item_checksum(item)
            except DataError:
                yield ""

    def names(part: str) -> Iterator[str]:
        return map(short_name_from(base), pools[part].all_names())

    changes = find_changes(journal, listing.class_names, pools, names, checksums)
    changed = dataclasses.replace(
        listing,
        class_names=changes.class_names,
        pools=_changed(pools, changes, listing.where),
        notes=(*listing.notes, *changes.notes),
        before=pools,
        own_labels=changes.own,
        journal=changes.about,
    )
    changed = _without_empty_classes(changed) if skip_bad else changed
    return dataclasses.replace(changed, partial=False)


def _changed(pools: Mapping[str, Images], changes: Changes, where: str) -> dict[str, Images]:
    """Return the images of each part with the labels of the journal; refuse them without any."""
    changed = {
        part: dataclasses.replace(pool, labels=changes.renumber(pool.labels))
        for part, pool in pools.items()
    }
    train, unlabeled = pools["train"], changed.get("unlabeled")
    labeled = train if len(changes.kept) == len(train) else train.select(changes.kept)
    labeled = dataclasses.replace(labeled, labels=changes.labels)
    if unlabeled is not None:
        if len(changes.moved):
            moved = unlabeled.select(changes.moved)
            moved = dataclasses.replace(moved, labels=changes.moved_labels)
            labeled = labeled.followed_by(moved) if len(labeled) else moved
        if not len(changes.left):
            del changed["unlabeled"]
        elif len(changes.left) < len(unlabeled):
            changed["unlabeled"] = unlabeled.select(changes.left)
    if not len(labeled):
        reasons = "; ".join(changes.notes)
        raise DataError(
            f"{where}: no image is labeled; label some with 'daso label {typed(where)}'"
            + (f" ({reasons})" if reasons else "")
        )
    return changed | {"train": labeled}


def _without_empty_classes(listing: Listing) -> Listing:
    """Leave out classes without a label, and the test and validation images of them."""
    names = listing.class_names
    counts = np.bincount(listing.pools["train"].labels, minlength=len(names))
    kept = np.flatnonzero(counts)
    if len(kept) == len(names):
        return listing
    numbers = np.full(len(names) + 1, -1)
    numbers[kept] = np.arange(len(kept))
    pools = {}
    for part, pool in listing.pools.items():
        known = np.isin(pool.labels, kept) | (part == "unlabeled")
        some = pool if known.all() else pool.select(np.flatnonzero(known))
        if len(some):
            pools[part] = dataclasses.replace(some, labels=numbers[some.labels])
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    reason = f"no labeled image of class {listed(empty)}; label some, or remove the class"
    return dataclasses.replace(
        listing,
        class_names=tuple(names[index] for index in kept),
        pools=pools,
        skipped=(*listing.skipped, (listing.where, reason)),
    )


def apply_to_source(source: Source, journal: Journal) -> Source:
    """Return arrays, whose images are named by part and number, with the labels of the journal."""
    parts = source.parts()

    def checksums(part: str, indices: Indices) -> Iterator[str]:
        return (digest(np.asarray(parts[part].images[int(i)])).hex() for i in indices)

    def names(part: str) -> Iterator[str]:
        return map(partial(array_name, part), range(len(parts[part])))

    changes = find_changes(journal, source.class_names, parts, names, checksums)
    changed = _changed(parts, changes, source.name)
    changed["train"] = dataclasses.replace(changed["train"], own=changes.own.rows)
    known = changes.class_names
    numbers, unused = renumber_used([images.labels for images in changed.values()], known, known)
    return dataclasses.replace(
        source,
        class_names=tuple(name for name, k in zip(known, numbers, strict=False) if k >= 0),
        **parts_of(
            {
                part: dataclasses.replace(images, labels=numbers[images.labels])
                for part, images in changed.items()
            }
        ),
        notes=(*source.notes, *changes.notes, *(f"{source.name}: {note}" for note in unused)),
        own_labels=changes.own,
        journal=changes.about,
        partial=False,
    )
