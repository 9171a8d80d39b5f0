"""Data sets saved by Hugging Face's ``datasets`` with ``save_to_disk``, read by pyarrow alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from daso.data.formats.arrow import import_pyarrow, open_arrow
from daso.data.formats.tables import TableFiles, list_tables
from daso.data.listing import Listing
from daso.data.part_names import part_called, splits_by_part, unknown_part
from daso.errors import DataError

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
LARGEST_JSON_BYTES = 2**26


def is_saved(folder: Path) -> bool:
    """Whether *folder* looks like one that ``save_to_disk`` wrote."""
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / INFO).is_file())


def list_saved(folder: Path, *, classes: Collection[str] | None = None) -> Listing:
    """List the rows of a saved data set, or of a saved dictionary of splits.

    Splits are named as in ``PART_NAMES``; without splits all images are labeled. Columns and labels
    are those of ``list_parquet``. Images must be stored in the files, not as paths.
    For *classes* see ``Listing.partial``.
    """
    import_pyarrow("data sets saved by Hugging Face's datasets")
    places = {"train": folder}
    if (folder / SPLITS).is_file():
        places = _split_folders(folder)
    tables = {}
    for part, place in places.items():
        files, info = _files(place), place / INFO
        features = (_read_json(info).get("features"), info)
        tables[part] = TableFiles(files, open_arrow, features=features, labeled=part != "unlabeled")
    return list_tables(tables, name=folder.resolve().name, where=folder, classes=classes)


def _split_folders(folder: Path) -> dict[str, Path]:
    file = folder / SPLITS
    names = _read_json(file).get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: must have a list 'splits' of names")
    if unknown := [name for name in names if part_called(name) is None]:
        raise DataError(f"{file}: {unknown_part(unknown[0])}")
    splits, _ = splits_by_part(names, file)
    return {part: folder / _plain_name(name, file) for part, name in splits.items()}


def _files(folder: Path) -> list[Path]:
    file = folder / STATE
    state = _read_json(file)
    if state.get("_indices_data_files"):
        cure = "call flatten_indices() and save_to_disk() again"
        raise DataError(f"{folder}: holds a selection of rows; {cure}")
    if state.get("_data_files") == []:
        raise DataError(f"{folder}: no rows in it; leave this split out, and save the others again")
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError):
        names = []
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file}: must list '_data_files', each with a 'filename'")
    files = [folder / _plain_name(name, file) for name in names]
    if missing := [name for name, path in zip(names, files, strict=True) if not path.is_file()]:
        raise DataError(f"{file}: missing file: {missing[0][:80]}; copy the whole folder")
    return files


def _plain_name(name: str, where: Path) -> str:
    for kind in (PurePosixPath, PureWindowsPath):
        if "\0" in name or kind(name).name != name or name in ("", ".", ".."):
            raise DataError(f"{where}: {name[:80]!r} is not the name of a file beside it")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes are too many; fetch it again")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path.parent}: has no {path.name}; copy the whole folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: must be a JSON object, found {type(value).__name__}")
    return value
