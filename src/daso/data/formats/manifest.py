"""Manifests: files that list images with their labels."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from daso.data.class_names import in_order, joined, meant_labels, number_labels, reading_notes
from daso.data.formats.image_walk import is_image
from daso.data.formats.manifest_rows import SHOWN, SUFFIXES, Bad, ManifestRow, read_rows, where
from daso.data.formats.passed_over import PassedOver
from daso.data.images.encoded import EncodedImages
from daso.data.listing import Listing, unused_note
from daso.data.part_names import part_called, unknown_part
from daso.data.places import is_address
from daso.data.source import PARTS
from daso.errors import DataError, nearest, problems, same_name

NamesIn = Callable[[Path], dict[str, str]]
"""Returns the names of the files in a folder by their plain names."""
PRECEDENCE = ("train", "test", "validation", "unlabeled")
"""Of several rows for one file, the row of the first of these parts is kept."""


def is_manifest(path: Path) -> bool:
    """Whether *path* is a file with the ending of a manifest."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def list_manifest(
    file: Path,
    *,
    images: Path | None = None,
    skip_bad: bool = False,
    classes: Collection[str] | None = None,
) -> Listing:
    """List the images of a manifest without decoding any.

    A row has a path, a label (empty, or one of ``class_names.MISSING``: unlabeled) and possibly a
    split. Labels in the split "unlabeled" are used to measure pseudo-labels.

    Args:
        file: CSV, TSV, JSON lines or parquet; for the columns see ``manifest_rows.COLUMNS``.
        images: the folder in which paths start and must stay, links included; None: the manifest's.
        skip_bad: leave out, and record in ``Listing.skipped``, rows that are unreadable, name no
            file or one outside the folder, repeat a file, or contradict its label.
        classes: see ``Listing.partial``.
    """
    folder = file.parent if images is None else images
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it must hold the images of {file}")
    bad: Bad = []
    rows, columns, unused = read_rows(file, bad)
    listed = _entries(rows, folder, bad)
    entries = _without_repeats(listed, bad)
    own = (entry.label for entry in entries if entry.part == "train")
    class_names = tuple(in_order(joined(own, classes)))
    entries = _of_known_classes(entries, class_names, bad)
    bad.sort()
    skipped = tuple((where(file, line), reason) for line, reason in bad)
    usable = bool(class_names) or classes is not None
    if not usable and not bad:
        raise DataError(f"{file}: no row of a training image has a label; give some their class")
    if skipped and not (skip_bad and usable):
        cure = "Correct them" + (", or leave them out: --skip-bad." if usable else ".")
        none = "" if usable else ", and no other row of a training image has a label"
        raise DataError(problems(skipped, f"{file}: {len(bad)} row(s) cannot be used{none}", cure))
    by_part = {part: [entry for entry in entries if entry.part == part] for part in PARTS}
    by_part = {part: entries for part, entries in by_part.items() if entries or part == "train"}
    texts = {part: [entry.label for entry in entries] for part, entries in by_part.items()}
    labels = number_labels(texts, class_names, str(file))
    pools = {
        part: EncodedImages.of_files([entry.path for entry in entries], labels[part])
        for part, entries in by_part.items()
    }
    taken = ", ".join(f"{role} from column {column!r}" for role, column in columns.items())
    notes = (
        f"{file}: {taken}",
        *unused_note(unused, file),
        *_unlisted(listed).notes(str(file)),
        *reading_notes((row.label for row in rows), str(file)),
    )
    partial = classes is not None
    return Listing(file.stem, str(file), class_names, pools, skipped, notes, partial=partial)


def _unlisted(entries: Sequence[_Entry]) -> PassedOver:
    """Count the images that lie beside listed ones, and are not listed."""
    listed = {entry.real for entry in entries}
    passed = PassedOver()
    for place in sorted(set(map(os.path.dirname, listed))):
        with contextlib.suppress(OSError), os.scandir(place) as found:
            others = (one for one in found if is_image(one) and one.path not in listed)
            for path in sorted(one.path for one in others):
                if os.path.realpath(path) not in listed:
                    passed.add("unlisted images", path)
    return passed


@dataclass(frozen=True)
class _Entry:
    """A row with an existing image; ``real`` is its path without links."""

    line: int
    part: str
    label: str
    path: Path
    real: str


def _entries(rows: Sequence[ManifestRow], folder: Path, bad: Bad) -> list[_Entry]:
    top = os.path.realpath(folder)
    real_folder = functools.lru_cache(maxsize=100_000)(os.path.realpath)
    names = functools.lru_cache(maxsize=100)(_names_in)
    entries: list[_Entry] = []
    meant = meant_labels(row.label for row in rows)
    for row in rows:
        label = meant[row.label]
        try:
            part = _part(row, label)
            path = _path_inside(row.path, folder, top, real_folder, names)
            entries.append(_Entry(row.line, part, label, *path))
        except ValueError as error:
            bad.append((row.line, str(error)))
    return entries


def _part(row: ManifestRow, label: str) -> str:
    part = part_called(row.split) if row.split else "train"
    if part is None:
        raise ValueError(unknown_part(row.split))
    if part in ("validation", "test") and not label:
        raise ValueError(f"is in the split {row.split!r} but has no label")
    return "unlabeled" if part == "train" and not label else part


def _path_inside(
    text: str, folder: Path, top: str, real_folder: Callable[[str], str], names: NamesIn
) -> tuple[Path, str]:
    """Return the path of a row, with and without links; refuse one that leads out of *top*."""
    shown = text[:SHOWN]
    try:
        # A system that takes names for ASCII has those of other letters as their bytes.
        path = folder / os.fsdecode(text.encode("utf-8", "surrogateescape"))
        parent = real_folder(str(path.parent))
        real = os.path.join(parent, path.name)  # noqa: PTH118 - a million rows: strings are faster
        if path.name in ("", "..") or os.path.islink(real):  # noqa: PTH114
            real = os.path.realpath(real)
        inside = os.path.commonpath([top, real]) == top
        exists = inside and Path(real).is_file()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"invalid path {shown!r}: {reason}") from None
    if not inside:
        raise ValueError(
            f"{shown!r} leads out of {folder}; give the folder of all images with --data, and let "
            "the paths start there"
        )
    if not exists:
        raise ValueError(f"no file {shown!r} in {folder}{_hint(text, path, names)}")
    return path, real


def _hint(text: str, path: Path, names: NamesIn) -> str:
    if is_address(text) or text.startswith("file:"):
        return "; a manifest lists files: fetch them, and give their paths"
    if re.match(r"[A-Za-z]:[\\/]", text):
        return "; it is a path of Windows: leave out what comes before the files' folder here"
    if "\\" in text and "/" not in text:
        return "; write / for \\"
    if path.is_dir():
        return "; it is a folder"
    found = names(path.parent).get(_plain(path.name), "")
    return found and f". Did you mean {found!a}?"


def _names_in(folder: Path) -> dict[str, str]:
    try:
        return {_plain(entry.name): entry.name for entry in folder.iterdir()}
    except OSError:
        return {}


def _plain(name: str) -> str:
    """Return a file's name without its ending, blanks, quotes, case and Unicode form."""
    plain = unicodedata.normalize("NFKC", name.strip(" '\"").casefold())
    return plain.rpartition(".")[0] or plain


def _without_repeats(entries: Sequence[_Entry], bad: Bad) -> list[_Entry]:
    """Keep one entry for each file, by ``PRECEDENCE``, and none for a file with several labels."""
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
        same.sort(key=lambda entry: (PRECEDENCE.index(entry.part), entry.line))
        for entry in same[0 if len(labels) > 1 else 1 :]:
            reason = f"names the same file as line {same[0].line}"
            if len(labels) > 1:
                other = next(other for label, other in labels.items() if label != entry.label)
                says = f"says {entry.label[:SHOWN]!r}" if entry.label else "has no label"
                others = f"line {other.line} says {other.label[:SHOWN]!r}"
                reason = f"{says}, but {others} of the same file"
            bad.append((entry.line, reason))
            dropped.add(id(entry))
    return [entry for entry in entries if id(entry) not in dropped]


def _of_known_classes(
    entries: Sequence[_Entry], class_names: Sequence[str], bad: Bad
) -> list[_Entry]:
    known, kept = set(class_names), []
    for entry in entries:
        measures = entry.part in ("validation", "test")
        if not measures or same_name(entry.label, class_names) in known:
            kept.append(entry)
            continue
        hint = nearest(entry.label, class_names)
        reason = f"class {entry.label[:SHOWN]!r} has no labeled image to learn from.{hint}"
        bad.append((entry.line, reason))
    return kept
