"""A manifest: a file that lists images with their labels, where folders do not say them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daso.data.class_names import INTEGER, in_order
from daso.data.formats.manifest_rows import SHOWN, SUFFIXES, Bad, ManifestRow, read_rows, where
from daso.data.listing import PARTS, Listing, files_pool, part_called, unknown_part
from daso.data.source import UNLABELED
from daso.errors import DataError, nearest, problems

WHOLE = re.compile(r"(-?[0-9]{1,18})\.0+")
"""A whole number as tables with gaps write it."""
ORDER = ("train", "test", "validation", "unlabeled")
"""Of a file that several rows name, the row of the first of these parts is kept."""


def is_manifest(path: Path) -> bool:
    """Whether *path* is a file whose ending is a manifest's."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def list_manifest(file: Path, *, images: Path | None = None, skip_bad: bool = False) -> Listing:
    """List the images of a manifest without decoding any.

    A row has a path, a label (empty, or -1 among numbers: unlabelled) and perhaps a split. Rows of the split
    "unlabeled" are unlabelled; a label that they have is the truth to measure pseudo-labels against.

    Args:
        file: CSV, TSV, JSON lines or parquet; columns: see ``rows.COLUMNS``.
        images: the folder that paths start in and may not leave, neither by .. nor by a link; None: the manifest's.
        skip_bad: leave rows out, and record them in ``Listing.skipped``, that name no file or one outside of the
            folder, are there twice, have several labels, or cannot be read.

    Raises:
        DataError: the file cannot be read, or has such rows; the first 20 are named with their lines.
        MissingDependencyError: a parquet file needs pyarrow.
    """
    folder = file.parent if images is None else images
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it must hold the images of {file}")
    bad: Bad = []
    rows, columns = read_rows(file, bad)
    entries = _unlike(_entries(rows, folder, bad), bad)
    names = tuple(in_order(entry.label for entry in entries if entry.part == "train"))
    entries = _known(entries, names, bad)
    if not names and (rows or not bad):
        bad.append((0, "no usable row has a label"))
    skipped = tuple(
        (where(file, line) if line else str(file), reason) for line, reason in sorted(bad)
    )
    if skipped and not (skip_bad and names):
        cure = "Mend them" + (", or go on without them: --skip-bad." if names else ".")
        raise DataError(problems(skipped, f"{file}: {len(skipped)} row(s) cannot be used", cure))
    numbers = {name: number for number, name in enumerate(names)}
    pools = {}
    for part in PARTS:
        of_part = [entry for entry in entries if entry.part == part]
        if of_part:
            labels = [numbers.get(entry.label, UNLABELED) for entry in of_part]
            pools[part] = files_pool([entry.path for entry in of_part], labels)
    taken = ", ".join(f"{role} from column {column!r}" for role, column in columns.items())
    return Listing(file.stem, str(file), names, pools, skipped, (f"{file}: {taken}",))


@dataclass(frozen=True)
class _Entry:
    """A row whose image is there: its part, and the file that its path leads to in the end."""

    line: int
    part: str
    label: str
    path: Path
    real: str


def _entries(rows: Sequence[ManifestRow], folder: Path, bad: Bad) -> list[_Entry]:
    top = os.path.realpath(folder)
    real_folder = functools.lru_cache(maxsize=100_000)(os.path.realpath)
    entries: list[_Entry] = []
    for row, label in zip(rows, _labels(rows), strict=True):
        try:
            part = _part(row, label)
            path = _inside(row.path, folder, top, real_folder)
            entries.append(_Entry(row.line, part, label, *path))
        except ValueError as error:
            bad.append((row.line, str(error)))
    return entries


def _part(row: ManifestRow, label: str) -> str:
    """Return the part of a row; a ``ValueError`` says what is wrong with it."""
    part = part_called(row.split) if row.split else "train"
    if part is None:
        raise ValueError(unknown_part(row.split))
    if part in ("validation", "test") and not label:
        raise ValueError(f"is of the split {row.split!r}, and has no label")
    return "unlabeled" if part == "train" and not label else part


def _inside(
    text: str, folder: Path, top: str, real_folder: Callable[[str], str]
) -> tuple[Path, str]:
    """Return the path that a row names and where it leads; a ``ValueError`` says why it may not be read.

    Args:
        text: as the row has it.
        folder: where it starts, and what it may not leave.
        top: the same without links.
        real_folder: returns a folder without links.
    """
    shown = text[:SHOWN]
    path = folder / text
    try:
        parent = real_folder(str(path.parent))
        real = os.path.join(parent, path.name)  # noqa: PTH118 - a million rows: strings are faster
        if path.name in ("", "..") or os.path.islink(real):  # noqa: PTH114
            real = os.path.realpath(real)
        within = os.path.commonpath([top, real]) == top
        there = within and Path(real).is_file()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{shown!r} is no path: {getattr(error, 'strerror', None) or error}"
        ) from None
    if not within:
        raise ValueError(
            f"{shown!r} leads out of {folder}; name a folder that holds all images with --data, "
            "and let the paths start there"
        )
    if not there:
        hint = "; write / for \\" if "\\" in text and "/" not in text else ""
        raise ValueError(f"no file {shown!r} in {folder}{hint}")
    return path, real


def _unlike(entries: Sequence[_Entry], bad: Bad) -> list[_Entry]:
    """Return the entries without those of a file that is there before; labelled ones come first, then test images."""
    by_file: dict[str, list[_Entry]] = {}
    for entry in entries:
        by_file.setdefault(entry.real, []).append(entry)
    dropped: set[int] = set()
    for same in by_file.values():
        if len(same) == 1:
            continue
        labels: dict[str, _Entry] = {}
        for entry in same:
            if entry.label:
                labels.setdefault(entry.label, entry)
        same.sort(key=lambda entry: (ORDER.index(entry.part), entry.line))
        for number, entry in enumerate(same):
            if len(labels) > 1:
                other = next(other for label, other in labels.items() if label != entry.label)
                says = f"says {entry.label[:SHOWN]!r}" if entry.label else "has no label"
                reason = (
                    f"{says}, but line {other.line} says {other.label[:SHOWN]!r} of the same file"
                )
            elif number > 0:
                reason = f"names the same file as line {same[0].line}"
            else:
                continue
            bad.append((entry.line, reason))
            dropped.add(id(entry))
    return [entry for entry in entries if id(entry) not in dropped]


def _known(entries: Sequence[_Entry], names: Sequence[str], bad: Bad) -> list[_Entry]:
    """Return the entries without hold-out images of classes that no labelled image has."""
    known, kept = set(names), []
    for entry in entries:
        if entry.part in ("validation", "test") and entry.label not in known:
            hint = nearest(entry.label, names)
            bad.append(
                (
                    entry.line,
                    f"class {entry.label[:SHOWN]!r} has no labelled image to learn from.{hint}",
                )
            )
        else:
            kept.append(entry)
    return kept


def _labels(rows: Sequence[ManifestRow]) -> list[str]:
    """Return the rows' labels; numbers that a table has written as 3.0 are whole again, and -1 among them is none."""
    plain = [
        WHOLE.sub(r"\1", row.label) if WHOLE.fullmatch(row.label) else row.label for row in rows
    ]
    if not all(INTEGER.fullmatch(label) for label in plain if label):
        return [row.label for row in rows]
    return ["" if label == "-1" else label for label in plain]
