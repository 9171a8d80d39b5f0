"""Parquet files in the layout of the Hugging Face hub: encoded images with labels."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from daso.data.class_names import listed
from daso.data.formats.arrow import import_pyarrow, open_parquet
from daso.data.formats.tables import TableFiles, list_tables
from daso.data.listing import Listing
from daso.data.part_names import part_called, splits_by_part
from daso.errors import DataError

NUMBER = re.compile(r"-(\d{1,9})-of-(\d{1,9})(?:-[0-9a-f]+)?$")
"""End of the name of one of several files, with or without a checksum."""


def locate_parquet(folder: Path) -> Path:
    """Return *folder*, or ``data`` or ``plain_text`` in it, whichever holds ``train-*.parquet``."""
    for name in (".", "data", "plain_text"):
        if "train" in map(part_called, _files_by_name(folder / name)):
            return folder / name
    reason = "missing train-*.parquet" if folder.is_dir() else "no such folder"
    raise DataError(f"{folder}: {reason}")


def list_parquet(folder: Path, *, classes: Collection[str] | None = None) -> Listing:
    """List the rows of ``train-*.parquet`` and, if present, of the other parts' files.

    Column ``img`` or ``image`` holds struct{bytes, path}. Column ``label``, ``fine_label`` or
    ``labels`` holds integers or texts. The names of integers are those in the schema's
    ``huggingface`` metadata, or the numbers. Training images without a label (null, -1 or "")
    become unlabeled. The files may be in a subfolder ``data`` or ``plain_text``. For *classes* see
    ``Listing.partial``.
    """
    import_pyarrow("parquet files")
    place = locate_parquet(folder)
    by_name = _files_by_name(place)
    splits, others = splits_by_part(by_name, place)
    tables: dict[str, TableFiles] = {}
    for part, name in splits.items():
        files = by_name[name]
        _require_all(files, place)
        tables[part] = TableFiles(files, open_parquet, labeled=part != "unlabeled")
    listing = list_tables(tables, name=folder.resolve().name, where=place, classes=classes)
    unread = [file.name for name in others for file in by_name[name]]
    note = f"{place}: files that are not read, as their names are of no part: {listed(unread)}"
    return replace(listing, notes=(*listing.notes, note)) if unread else listing


def _require_all(files: Sequence[Path], place: Path) -> None:
    """Refuse files that are not each of 00000-of-00002, 00001-of-00002 ... once."""
    matches = [NUMBER.search(file.stem) for file in files]
    numbers = [(int(match[1]), int(match[2])) if match else None for match in matches]
    totals = {number and number[1] for number in numbers}
    if totals == {None}:
        return
    if len(totals) > 1 or len(set(numbers)) < len(numbers):
        what = f"{listed([file.name for file in files])} are of several versions"
        raise DataError(f"{place}: {what}; remove all but one")
    if (total := totals.pop()) != len(files):
        what = f"{len(files)} of {total} files like {files[0].name}"
        raise DataError(f"{place}: {what}; fetch them all")


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """Return a folder's parquet files by the first word of their names."""
    by_name: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*")):
        if file.suffix.lower() == ".parquet":
            by_name.setdefault(re.split(r"[-_.]", file.stem)[0], []).append(file)
    return by_name
