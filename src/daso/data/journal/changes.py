"""What the journal changes in a data set: labels, and images that change their part.

Test and validation images are never touched, nor are labels of images that have changed since.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.class_names import in_order, joined, listed
from daso.data.images.decoded import DecodedImages
from daso.data.images.encoded import EncodedImages
from daso.data.journal.entries import Entry, Journal, place_of
from daso.data.source import OwnLabels
from daso.errors import same_name, typed

Indices = npt.NDArray[np.int64]
Checksums = Callable[[str, Indices], Iterable[str]]
"""Returns the checksums of some images of a part, "" where one cannot be read."""
Names = Callable[[str], Iterable[str]]
"""Returns the names of all images of a part, as the journal has them."""
SHOWN = 10
"""Classes that a note names."""


@dataclass(frozen=True)
class Changes:
    """How a data set with M labeled and U unlabeled images is to be changed.

    Attributes:
        class_names: with new classes.
        numbers: int64 (K,), the new number of each class that was there before.
        kept, labels: indices of the labeled images that stay so, and all their labels.
        moved, moved_labels: indices of unlabeled images that become labeled, and their labels.
        left: indices of the unlabeled images that stay so.
        own: what a split needs to know about the labels before.
        about: the journal's place in ``data.json``: its entries, checksum and numbers.
        notes: what is used, and what is not.
    """

    class_names: tuple[str, ...]
    numbers: Indices
    kept: Indices
    labels: Indices
    moved: Indices
    moved_labels: Indices
    left: Indices
    own: OwnLabels
    about: dict[str, Any]
    notes: tuple[str, ...]

    def renumber(self, labels: Indices) -> Indices:
        """Return labels of the classes before, -1 where unknown, in the new numbers."""
        return np.append(self.numbers, -1)[labels]


def find_changes(
    journal: Journal,
    class_names: Sequence[str],
    pools: Mapping[str, EncodedImages | DecodedImages],
    names: Names,
    checksums: Checksums,
) -> Changes:
    """Compare a journal with the images that are there, by part."""
    labels, applied = pools["train"].labels, journal.applied()
    files = {place_of(entry): entry for entry in applied.values()}
    parts = [part for part in ("train", "unlabeled") if part in pools]
    places = _places(journal.names(), parts, names)
    decisions = journal.decisions(places)
    fresh = _unchanged(decisions, places, checksums)
    lost = [
        image
        for image, entry in decisions.items()
        if image in places
        and entry.number in applied
        and place_of(applied[entry.number]) not in places
    ]
    if lost:  # unless the copy has only moved
        alike = _of_one_size([places[image] for image in lost], pools)
        there = set(checksums("train", alike))
        lost = [image for image in lost if decisions[image].checksum not in there]
    given: dict[str, dict[int, str]] = {"train": {}, "unlabeled": {}}
    out: dict[str, set[int]] = {"train": set(), "unlabeled": set()}
    missing, changed, none = [], [], 0
    for image, entry in decisions.items():
        place = places.get(image)
        if entry.number in applied:
            if place is not None and place[0] == "unlabeled":
                out["unlabeled"].add(place[1])
        elif place is None:
            missing += [image] if entry.action == "label" else []
        elif image not in fresh:
            changed.append(image)
        elif entry.label is None:
            out[place[0]].add(place[1])
            none += 1
        else:
            given[place[0]][place[1]] = entry.label
    known = joined(class_names, {name for of in given.values() for name in of.values()})
    all_names = (*class_names, *in_order(set(known) - set(class_names)))
    if list(class_names) == in_order(class_names):  # else an order of their own stays
        all_names = tuple(in_order(known))
    number = {name: index for index, name in enumerate(all_names)}

    def numbers_of(texts: Iterable[str]) -> Indices:
        return np.array([number[same_name(text, number)] for text in texts], dtype=np.int64)

    renumbered = np.append(numbers_of(class_names), -1)
    own_labels = renumbered[labels]
    corrected = {
        index: label
        for index, label in given["train"].items()
        if number[same_name(label, number)] != own_labels[index]
    }
    own_labels[list(corrected)] = numbers_of(corrected.values())
    kept = np.delete(np.arange(len(labels)), sorted(out["train"]))
    moved = np.array(sorted(given["unlabeled"]), dtype=np.int64)
    count = len(pools["unlabeled"]) if "unlabeled" in pools else 0
    own = {
        places[to][1]: entry for to, entry in files.items() if places.get(to, "")[:1] == ("train",)
    }
    rows = _rows_before(own, len(labels), names)
    old_order = np.argsort(rows, kind="stable")[np.count_nonzero(rows < 0) :]
    before = _labels_before(own, labels, class_names)[old_order]
    left_out = np.isin(old_order, list(out["train"]))
    used = Counter(itertools.chain(corrected.values(), given["unlabeled"].values()))
    own_classes = set(renumbered[labels].tolist())
    alone = [name for name in used if number[same_name(name, number)] not in own_classes]
    alone = alone if len(labels) else []
    return Changes(
        all_names,
        renumbered[:-1],
        kept,
        own_labels[kept],
        moved,
        numbers_of(given["unlabeled"][index] for index in moved.tolist()),
        np.setdiff1d(np.arange(count), [*moved.tolist(), *out["unlabeled"]]),
        OwnLabels(before, left_out, np.append(rows[kept], np.full(len(moved), -1))),
        {
            "entries": journal.taken,
            "checksum": journal.checksum,
            "labels": sum(used.values()),
            "none": none,
        },
        tuple(_notes(journal, used, alone, len(corrected), none, missing, changed, lost)),
    )


def _places(
    wanted: Collection[str], parts: Sequence[str], names: Names
) -> dict[str, tuple[str, int]]:
    """Find some images: part and index, by the journal's name.

    Names of files may have come back from another system in another Unicode form.
    """
    found: dict[str, tuple[str, int]] = {}
    for part in parts:
        for index, name in enumerate(names(part)):
            if name in wanted:
                found[name] = (part, index)
    lost = (image for image in wanted if image not in found and not image.isascii())
    forms = {_form(image): image for image in lost}
    for part in parts if forms else ():
        for index, name in enumerate(names(part)):
            if not name.isascii() and name not in wanted and (form := _form(name)) in forms:
                found[forms[form]] = (part, index)
    return found


def _rows_before(own: Mapping[int, Entry], count: int, names: Names) -> Indices:
    """Return, for each labeled image, its number among those before the journal; -1: unlabeled.

    Args:
        own: by index, those whose files were sorted since. They count as what they were, in their
            old order, or hold-outs would be drawn anew.
    """
    was_labeled = np.ones(count, dtype=bool)
    was_labeled[[index for index, entry in own.items() if _class_before(entry) is None]] = False
    rows = np.where(was_labeled, np.cumsum(was_labeled) - 1, -1)
    if was_labeled[list(own)].any():
        paths = [
            PurePosixPath(str(own[index].image) if index in own else name).parts
            for index, name in enumerate(names("train"))
        ]
        order = sorted(np.flatnonzero(was_labeled).tolist(), key=paths.__getitem__)
        rows[order] = np.arange(len(order))
    return rows


def _labels_before(
    own: Mapping[int, Entry], labels: Indices, class_names: Sequence[str]
) -> Indices:
    before = labels.copy()
    for index, entry in own.items():
        name = same_name(str(_class_before(entry)), class_names)
        if name in class_names:
            before[index] = class_names.index(name)
    return before


def _class_before(entry: Entry) -> str | None:
    """Return the class of a sorted file before; None: it was unlabeled."""
    return (entry.details or {}).get("was")


def _of_one_size(
    images: Iterable[tuple[str, int]], pools: Mapping[str, EncodedImages | DecodedImages]
) -> Indices:
    """Return the labeled images whose files have the size of one of some images."""

    def sizes(part: str, indices: Iterable[int]) -> Iterator[int]:
        pool = pools[part]
        assert isinstance(pool, EncodedImages)  # only files are sorted
        for index in indices:
            try:
                yield Path(pool.name_of(index)).stat().st_size
            except OSError:
                yield -1

    known = {size for part, index in images for size in sizes(part, [index])}
    count = len(pools["train"].labels)
    return np.flatnonzero([size in known for size in sizes("train", range(count))])


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _unchanged(
    decisions: Mapping[str, Entry],
    places: Mapping[str, tuple[str, int]],
    checksums: Checksums,
) -> set[str]:
    fresh = {image for image in places if image in decisions and not decisions[image].checksum}
    for part in ("train", "unlabeled"):
        images = sorted(
            (index, image)
            for image, (of, index) in places.items()
            if of == part and image in decisions and image not in fresh
        )
        indices = np.array([index for index, _ in images], dtype=np.int64)
        for (_, image), now in zip(images, checksums(part, indices) if images else (), strict=True):
            if now == decisions[image].checksum:
                fresh.add(image)
    return fresh


def _notes(
    journal: Journal,
    used: Counter[str],
    alone: Sequence[str],
    corrected: int,
    none: int,
    missing: Sequence[str],
    changed: Sequence[str],
    lost: Sequence[str],
) -> Iterable[str]:
    said = []
    if used:
        which = [f"{count:,} {name}" for name, count in used.most_common(SHOWN)]
        which += [f"{len(used) - SHOWN} more classes"] if len(used) > SHOWN else []
        said.append(f"{_labels(sum(used.values()))} used ({', '.join(which)})")
    if alone:
        said.append(f"no other image is of class {listed(alone)}")
    if corrected:
        said.append(f"{corrected:,} of them in place of another")
    if none:
        said.append(f"{none:,} image{'s' * (none > 1)} of none of the classes left out")
    if said:
        yield f"{journal.path}: {', '.join(said)}; --no-journal trains without them"
    if journal.cut_off:
        yield (
            f"{journal.path}: the last line is incomplete and is left out; if more is missing "
            "there, restore the file"
        )
    for images, why in (
        (changed, "their images have changed since"),
        (missing, "their images are not there"),
    ):
        if images:
            yield f"{journal.path}: {_labels(len(images))} not used: {why} ({listed(images)})"
    if lost:
        yield (
            f"{journal.path}: {_labels(len(lost))} not used: the sorted files are gone "
            f"({listed(lost)}); 'daso label {typed(journal.path.parent)} --apply --undo' takes all "
            "sorting back"
        )


def _labels(count: int) -> str:
    return f"{count:,} {'label of daso label is' if count == 1 else 'labels of daso label are'}"
