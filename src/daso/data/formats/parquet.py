"""Parquet files in the layout of the Hugging Face hub: encoded images with labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from daso.data.formats.arrow import Shards, import_pyarrow, list_shards, open_parquet
from daso.data.images.cache import Cache
from daso.data.listing import PART_NAMES, Listing, read_listing
from daso.data.source import Source
from daso.errors import DataError

SUBFOLDERS = (".", "data", "plain_text")


def locate_parquet(folder: Path) -> Path:
    """Return *folder*, or ``data`` or ``plain_text`` in it, whichever holds ``train-*.parquet``.

    Raises:
        DataError: none does.
    """
    for name in SUBFOLDERS:
        if _files(folder / name, "train"):
            return folder / name
    raise DataError(
        f"{folder}: missing train-*.parquet" if folder.is_dir() else f"{folder}: no such folder"
    )


def read_parquet(
    folder: Path,
    *,
    name: str | None = None,
    size: int | None = None,
    skip_bad: bool = False,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    cache: Cache | None = None,
) -> Source:
    """Read ``train-*.parquet`` and, where there are any, files of the other parts.

    Args:
        folder: see ``list_parquet``.
        name: how run folders call the data, if it is a published benchmark; None: the folder's name.
        size: side of the square that every image is resized to; None: see ``pool.choose_layout``.
        skip_bad: leave out what cannot be used, see ``read_listing``.
        mean, std: the published normalisation, if there is one.
        cache: see ``decode_pools``.

    Raises:
        DataError: see ``list_parquet`` and ``read_listing``.
        MissingDependencyError: pyarrow is not installed.
    """
    listing = list_parquet(folder, name=name)
    return read_listing(
        listing,
        size=size,
        skip_bad=skip_bad,
        mean=mean,
        std=std,
        published=name is not None,
        cache=cache,
    )


def list_parquet(folder: Path, *, name: str | None = None) -> Listing:
    """List the rows of ``train-*.parquet`` and, where there are any, ``validation-``, ``test-``, ``unlabeled-*``.

    Column ``img`` or ``image`` holds struct{bytes, path}, column ``label``, ``fine_label`` or ``labels`` integers
    or texts; names of integers come from the schema's ``huggingface`` metadata, else they are the numbers. Training
    images without a label (null, -1 or "") join the unlabelled pool.

    Args:
        folder: the files' folder, or the parent of a ``data`` or ``plain_text`` folder with the files.
        name: how run folders call the data; None: the folder's name.

    Raises:
        DataError: files, columns or labels are missing or wrong.
        MissingDependencyError: pyarrow is not installed.
    """
    import_pyarrow("parquet files")
    place = locate_parquet(folder)
    shards: dict[str, Shards] = {}
    for part, called in PART_NAMES.items():
        files = next((found for other in called if (found := _files(place, other))), [])
        if files:
            _refuse_missing_shards(files)
            shards[part] = Shards(files, open_parquet)
    train = shards["train"]
    names = class_names(train.metadata, train.label, train.files[0])
    return list_shards(shards, names, name=name or folder.resolve().name, where=place)


def feature_names(features: object, label: str, where: Path) -> tuple[str, ...]:
    """Return the class names of a column in the features that Hugging Face's data sets describe themselves with.

    Raises:
        DataError: the column is not described, or a class is named twice.
    """
    try:
        feature = features[label]  # type: ignore[index]
        names = tuple(str(name) for name in feature.get("names") or ())
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{where}: its 'huggingface' metadata does not describe column {label}"
        ) from error
    if len(set(names)) != len(names):
        raise DataError(
            f"{where}: its 'huggingface' metadata names a class twice: {list(names)[:20]}"
        )
    return names


def _files(folder: Path, part: str) -> list[Path]:
    return sorted({*folder.glob(f"{part}-*.parquet"), *folder.glob(f"{part}.parquet")})


def _refuse_missing_shards(files: Sequence[Path]) -> None:
    counts = [re.search(r"-of-(\d{1,9})$", file.stem) for file in files]
    promised = max((int(found[1]) for found in counts if found), default=len(files))
    if promised != len(files):
        raise DataError(
            f"{files[0].parent}: {len(files)} of {promised} files like {files[0].name}; fetch them all"
        )


def class_names(metadata: dict[bytes, bytes], label: str, file: Path) -> tuple[str, ...]:
    """Return the class names in a schema's metadata, none if it has none.

    Raises:
        DataError: see ``feature_names``.
    """
    stored = metadata.get(b"huggingface")
    if stored is None:
        return ()
    try:
        features = json.loads(stored)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{file}: its 'huggingface' metadata does not describe column {label}"
        ) from error
    return feature_names(features, label, file)
