"""Apply the journal to a data set: encoded images, or arrays."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from daso.data.class_names import listed
from daso.data.images.decoded import DecodedImages, digest, select_images
from daso.data.images.encoded import EncodedImages
from daso.data.journal.changes import Indices, Names, checksums_of, find_changes
from daso.data.journal.entries import Journal, journal_path
from daso.data.journal.names import array_names, item_checksum, short_names
from daso.data.listing import Listing
from daso.data.source import Source
from daso.errors import DataError


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

    Raises:
        DataError: there is no label, or a class has none.
    """
    pools = dict(listing.pools)
    train, unlabeled = pools["train"], pools.get("unlabeled")

    def checksums(part: str, indices: Indices) -> Iterable[str]:
        chosen = pools[part].select(indices)
        return checksums_of(itertools.chain.from_iterable(chosen.chunks()), item_checksum)

    names: Names = {
        part: partial(_names, pools[part], base) for part in ("train", "unlabeled") if part in pools
    }
    count = 0 if unlabeled is None else len(unlabeled)
    changes = find_changes(journal, listing.class_names, train.labels, count, names, checksums)
    labeled = train if len(changes.kept) == len(train) else train.select(changes.kept)
    labeled = labeled.labeled(changes.labels)
    for part in pools.keys() - {"train"}:
        pools[part] = pools[part].labeled(changes.renumber(pools[part].labels))
    if unlabeled is not None:
        if len(changes.moved):
            moved = unlabeled.select(changes.moved).labeled(changes.moved_labels)
            labeled = labeled.followed_by(moved) if len(labeled) else moved
        if not len(changes.left):
            del pools["unlabeled"]
        elif len(changes.left) < len(unlabeled):
            pools["unlabeled"] = pools["unlabeled"].select(changes.left)
    if not len(labeled):
        reasons = "; ".join(changes.notes)
        raise DataError(
            f"{listing.where}: no image is labeled; label some with 'daso label {listing.where}'"
            + (f" ({reasons})" if reasons else "")
        )
    pools["train"] = labeled
    changed = dataclasses.replace(
        listing,
        class_names=changes.class_names,
        pools=pools,
        notes=(*listing.notes, *changes.notes),
        before=listing.pools,
        own_labels=changes.own,
        journal=changes.about,
    )
    changed = _without_empty_classes(changed) if skip_bad else changed
    return dataclasses.replace(changed, partial=False)


def _names(pool: EncodedImages, base: Path) -> Iterable[str]:
    return short_names(pool.all_names(), base)


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
            pools[part] = some.labeled(numbers[some.labels])
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    reason = f"no labeled image of class {listed(empty)}; label some, or remove the class"
    return dataclasses.replace(
        listing,
        class_names=tuple(names[index] for index in kept),
        pools=pools,
        skipped=(*listing.skipped, (listing.where, reason)),
    )


def apply_to_source(source: Source, journal: Journal) -> Source:
    """Return a data set of arrays, which are named by part and number, with the journal's labels.

    Raises:
        DataError: there is no label.
    """
    parts = source.parts()

    def checksums(part: str, indices: Indices) -> Iterable[str]:
        images = parts[part].images
        return (digest(np.asarray(images[int(index)])).hex() for index in indices)

    names: Names = {
        part: partial(array_names, part, len(parts[part]))
        for part in ("train", "unlabeled")
        if part in parts
    }
    train, unlabeled = source.train, source.unlabeled
    count = 0 if unlabeled is None else len(unlabeled)
    changes = find_changes(journal, source.class_names, train.labels, count, names, checksums)
    images, rest = select_images(train.images, changes.kept), unlabeled
    if unlabeled is not None and (len(changes.left) < len(unlabeled)):
        moved = np.asarray(select_images(unlabeled.images, changes.moved))
        images = np.concatenate([np.asarray(images), moved])
        rest = unlabeled.select(changes.left) if len(changes.left) else None
    if not len(images):
        raise DataError(f"{source.name}: no image is labeled")
    labels = np.append(changes.labels, changes.moved_labels)

    def renumbered(part: DecodedImages | None) -> DecodedImages | None:
        if part is None:
            return None
        return dataclasses.replace(part, labels=changes.renumber(part.labels))

    return dataclasses.replace(
        source,
        class_names=changes.class_names,
        train=DecodedImages(images, labels, own=changes.own.rows),
        unlabeled=renumbered(rest),
        validation=renumbered(source.validation),
        test=renumbered(source.test),
        notes=(*source.notes, *changes.notes),
        own_labels=changes.own,
        journal=changes.about,
        partial=False,
    )
