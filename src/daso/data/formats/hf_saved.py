"""Data sets that Hugging Face's ``datasets`` saved with ``save_to_disk``, read by pyarrow alone."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from daso.data.formats.arrow import Shards, import_pyarrow, list_shards, open_arrow
from daso.data.formats.parquet import feature_names
from daso.data.listing import Listing, part_called, unknown_part
from daso.errors import DataError

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
LARGEST_JSON = 2**26


def is_saved(folder: Path) -> bool:
    """Whether *folder* looks like one that ``save_to_disk`` wrote."""
    return (folder / SPLITS).is_file() or ((folder / STATE).is_file() and (folder / INFO).is_file())


def list_saved(folder: Path) -> Listing:
    """List the rows of a saved data set, or of the splits of a saved dictionary of them.

    Splits are called as in ``listing.PART_NAMES``; a data set without splits is labelled images. Columns and labels
    as in ``list_parquet``; images must have their bytes in the files, as ``save_to_disk`` writes them.

    Raises:
        DataError: files are missing or damaged, a split or a label is unknown, or see ``list_shards``.
        MissingDependencyError: pyarrow is not installed.
    """
    import_pyarrow("data sets saved by Hugging Face's datasets")
    parts = {"train": folder}
    if (folder / SPLITS).is_file():
        names = _read_json(folder / SPLITS).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{folder / SPLITS}: must have a list 'splits' of names")
        parts = {}
        for name in names:
            part = part_called(name)
            if part is None:
                raise DataError(f"{folder / SPLITS}: {unknown_part(name)}")
            if part in parts:
                raise DataError(
                    f"{folder / SPLITS}: {parts[part].name} and {name} are the same part"
                )
            parts[part] = folder / _plain_name(name, folder / SPLITS)
        if "train" not in parts:
            raise DataError(f"{folder / SPLITS}: no split 'train' in it, only {', '.join(names)}")
    shards = {part: Shards(_files(place), open_arrow) for part, place in parts.items()}
    info = parts["train"] / INFO
    features = _read_json(info).get("features")
    label = shards["train"].label
    return list_shards(
        shards, feature_names(features, label, info), name=folder.resolve().name, where=folder
    )


def _files(folder: Path) -> list[Path]:
    state = _read_json(folder / STATE)
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder}: holds a selection of rows; call flatten_indices() and save_to_disk() again"
        )
    listed = state.get("_data_files")
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{folder / STATE}: must list '_data_files'")
    files = []
    for entry in listed:
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise DataError(f"{folder / STATE}: each of '_data_files' must have a 'filename'")
        file = folder / _plain_name(name, folder / STATE)
        if not file.is_file():
            raise DataError(
                f"{folder / STATE}: names {name[:80]}, which is not there; copy the whole folder"
            )
        files.append(file)
    return files


def _plain_name(name: str, where: Path) -> str:
    """Return a name if it is one within a folder, and does not lead anywhere else."""
    for kind in (PurePosixPath, PureWindowsPath):
        if "\0" in name or kind(name).name != name or name in ("", ".", ".."):
            raise DataError(f"{where}: {name[:80]!r} is no name of a file beside it")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise DataError(f"{path}: {path.stat().st_size:,} bytes are too many; fetch it again")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path.parent}: has no {path.name}; copy the whole folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds {type(value).__name__}, an object was expected")
    return value
