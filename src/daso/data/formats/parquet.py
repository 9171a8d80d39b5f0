"""Parquet files in the layout of the Hugging Face hub: encoded images with labels."""

from __future__ import annotations

import re
from pathlib import Path

from daso.data.formats.arrow import TableFiles, import_pyarrow, list_tables, open_parquet
from daso.data.listing import PART_NAMES, Listing
from daso.errors import DataError


def locate_parquet(folder: Path) -> Path:
    """Return *folder*, or ``data`` or ``plain_text`` in it, whichever holds ``train-*.parquet``."""
    for name in (".", "data", "plain_text"):
        if _files(folder / name, "train"):
            return folder / name
    reason = "missing train-*.parquet" if folder.is_dir() else "no such folder"
    raise DataError(f"{folder}: {reason}")


def list_parquet(folder: Path) -> Listing:
    """List the rows of ``train-*.parquet`` and, if present, of the other parts' files.

    Column ``img`` or ``image`` holds struct{bytes, path}. Column ``label``, ``fine_label`` or
    ``labels`` holds integers or texts. The names of integers are those in the schema's
    ``huggingface`` metadata, or the numbers. Training images without a label (null, -1 or "")
    become unlabeled. The files may be in a subfolder ``data`` or ``plain_text``.

    Raises:
        DataError: files, columns or labels are missing or wrong.
        MissingDependencyError: pyarrow is not installed.
    """
    import_pyarrow("parquet files")
    place = locate_parquet(folder)
    tables: dict[str, TableFiles] = {}
    for part, names in PART_NAMES.items():
        files = next((files for name in names if (files := _files(place, name))), [])
        if files:
            counts = [re.search(r"-of-(\d{1,9})$", file.stem) for file in files]
            total = max((int(count[1]) for count in counts if count), default=len(files))
            if total != len(files):
                what = f"{len(files)} of {total} files like {files[0].name}"
                raise DataError(f"{place}: {what}; fetch them all")
            tables[part] = TableFiles(files, open_parquet)
    return list_tables(tables, name=folder.resolve().name, where=place)


def _files(folder: Path, part: str) -> list[Path]:
    return sorted({*folder.glob(f"{part}-*.parquet"), *folder.glob(f"{part}.parquet")})
