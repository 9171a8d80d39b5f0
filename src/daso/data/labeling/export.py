"""Write the labels in force as a manifest that ``daso train`` reads."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from daso.data.class_names import meant_labels
from daso.data.journal.apply import apply_journal
from daso.data.journal.entries import Journal
from daso.data.labeling.opened import LabelingData
from daso.data.listing import Listing
from daso.errors import DataError, OptionError, problems, typed
from daso.files import csv_text, printable, write_text

SPLITS = {"train": "", "unlabeled": "", "validation": "val", "test": "test"}


def export_labels(journal: Journal, data: LabelingData, out: Path) -> list[str]:
    """Write a CSV file of all images with their labels now; return notes about it.

    It has the columns path, label (empty: unlabeled) and, with validation or test images, split.
    Images of none of the classes are left out. Images that are no files have a name instead of a
    path; only those that were labeled in the page are written.
    """
    if out.resolve() == data.source.resolve():
        raise OptionError(f"{out} is what is labeled; write to another file")
    if out.suffix.lower() != ".csv":
        raise OptionError(f"{out}: the labels are written as CSV; name a file that ends in .csv")
    if data.base is None or not all(pool.from_files for pool in data.pools.values()):
        rows = _named(journal, data)
        _write(out, ("name", "label"), rows)
        return [f"{out}: {len(rows):,} labels by name; {data.source} holds no image files to list"]
    listing = apply_journal(data.listing, journal, data.base, skip_bad=True)
    folder, notes = _folder(listing, data.base, out)
    paths = _paths(listing, folder)
    if set(listing.pools) & {"validation", "test"}:
        _write(out, ("path", "label", "split"), paths)
    else:
        _write(out, ("path", "label"), (row[:2] for row in paths))
    more = listing.skipped[len(data.listing.skipped) :]
    return [*listing.notes, *(f"skipped {place}: {reason}" for place, reason in more), *notes]


def _named(journal: Journal, data: LabelingData) -> list[tuple[str, ...]]:
    there = data.places()
    rows: list[tuple[str, ...]] = [
        (image, entry.label)
        for image, entry in journal.decisions().items()
        if entry.label is not None
        and image in there
        and entry.checksum in (None, data.checksum(*there[image]))
    ]
    if not rows:
        raise DataError(f"{data.source}: no image is labeled")
    return rows


def _folder(listing: Listing, base: Path, out: Path) -> tuple[Path, list[str]]:
    """Return the folder in which paths start: the manifest's, or that of the images."""
    for folder in (out.parent, base):
        top = os.path.realpath(folder)
        parents = {
            str(Path(name).parent) for pool in listing.pools.values() for name in pool.all_names()
        }
        reals = map(os.path.realpath, parents)
        if all(os.path.commonpath([top, real]) == top for real in reals):
            if folder == out.parent:
                return folder, []
            return folder, [f"train on it with: daso train {typed(out)} --data {typed(folder)}"]
    return base, [f"{out}: some images lie outside {base}, and daso train refuses their paths"]


def _paths(listing: Listing, folder: Path) -> Iterator[tuple[str, str, str]]:
    real = os.path.realpath(folder)
    for part, pool in listing.pools.items():
        for index, name in enumerate(pool.all_names()):
            path = Path(name)
            short = os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, real)
            label = pool.labels[index] if part != "unlabeled" else -1
            yield short, listing.class_names[label] if label >= 0 else "", SPLITS[part]


def _write(out: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    rows = list(rows)
    meant = meant_labels(row[1] for row in rows)
    if changed := sorted((old, new) for old, new in meant.items() if old != new):
        as_read = [(repr(old), repr(new) if new else "a missing label") for old, new in changed]
        what, cure = f"{out}: classes that would be read back otherwise", "Give them other names"
        raise DataError(problems(as_read, what, cure, between=" as "))
    if bad := [(printable(row[0]), "is not UTF-8") for row in rows if not _is_utf8(row[0])]:
        raise DataError(problems(bad, f"{out}: names that a CSV file cannot hold", "Rename them"))
    write_text(out, csv_text(columns, rows, quoting=csv.QUOTE_ALL))


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape").decode()
    except UnicodeError:
        return False
    return True
