"""Parquet files in the layout of the Hugging Face hub: encoded images with labels."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from daso.data.class_names import listed
from daso.data.formats.arrow import import_pyarrow, open_parquet
from daso.data.formats.tables import TableFiles, list_tables
from daso.data.listing import Listing, part_called
from daso.errors import DataError


def locate_parquet(folder: Path) -> Path:
    """Return *folder*, or ``data`` or ``plain_text`` in it, whichever holds ``train-*.parquet``."""
    for name in (".", "data", "plain_text"):
        if "train" in _files_by_part(folder / name)[0]:
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
    tables: dict[str, TableFiles] = {}
    present, other = _files_by_part(place)
    for part, by_name in present.items():
        if len(by_name) > 1:
            names = " and ".join(files[0].name for files in by_name.values())
            raise DataError(f"{place}: {names} are both {part} images; give them one name")
        for files in by_name.values():
            counts = [re.search(r"-of-(\d{1,9})$", file.stem) for file in files]
            total = max((int(count[1]) for count in counts if count), default=len(files))
            if total != len(files):
                what = f"{len(files)} of {total} files like {files[0].name}"
                raise DataError(f"{place}: {what}; fetch them all")
            tables[part] = TableFiles(files, open_parquet, labeled=part != "unlabeled")
    listing = list_tables(tables, name=folder.resolve().name, where=place, classes=classes)
    note = f"{place}: files that are not read, as their names are of no part: {listed(other)}"
    return replace(listing, notes=(*listing.notes, note)) if other else listing


def _files_by_part(folder: Path) -> tuple[dict[str, dict[str, list[Path]]], list[str]]:
    """Return a folder's parquet files by part and name of the part, and the names of others."""
    parts: dict[str, dict[str, list[Path]]] = {}
    other = []
    for file in sorted(folder.glob("*.parquet")):
        name = file.stem.partition("-")[0]
        part = part_called(name)
        if part is None:
            other.append(file.name)
        else:
            parts.setdefault(part, {}).setdefault(name, []).append(file)
    return parts, other
