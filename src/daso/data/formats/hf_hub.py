"""Data sets of the Hugging Face hub by their name, through the package ``datasets`` and its cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daso.data.formats.arrow import CHUNK, Shards, Table, list_shards
from daso.data.formats.parquet import class_names
from daso.data.listing import Listing, part_called
from daso.errors import DataError, MissingDependencyError

PREFIX = "hf:"
"""What a source's name begins with if it is on the hub: ``hf:OWNER/NAME`` or ``hf:OWNER/NAME:CONFIGURATION``."""


def list_hub(name: str, *, download: bool = False) -> Listing:
    """List a data set of the hub; columns, labels and splits as in ``saved.list_saved``, other splits are left out.

    Args:
        name: with or without ``PREFIX``; a folder in one of the layouts of the hub does as well.
        download: fetch what is not in the cache yet; without it no connection is made.

    Raises:
        DataError: it cannot be had, or its columns or labels are others.
        MissingDependencyError: ``datasets`` is not installed.
    """
    name = name.removeprefix(PREFIX)
    repository, _, configuration = name.partition(":")
    found = _load(repository, configuration or None, name, download=download)
    shards: dict[str, Shards] = {}
    for split, data in found.items():
        part = part_called(str(split))
        if part is None:
            continue
        if part in shards:
            raise DataError(
                f"{PREFIX}{name}: has two splits that are {part} images; save one with save_to_disk()"
            )
        shards[part] = Shards(
            [Path(f"{PREFIX}{name}") / str(split)], _opening(data), with_paths=True
        )
    if "train" not in shards:
        raise DataError(
            f"{PREFIX}{name}: no split 'train' in it, only {', '.join(map(str, found)) or 'nothing'}"
        )
    train = shards["train"]
    names = class_names(train.metadata, train.label, train.files[0])
    listing = list_shards(
        shards, names, name=repository.rpartition("/")[2], where=Path(f"{PREFIX}{name}")
    )
    left = [str(split) for split in found if part_called(str(split)) is None]
    notes = (f"{PREFIX}{name}: the split(s) {', '.join(left)} are left out",) if left else ()
    return Listing(listing.name, listing.where, listing.class_names, listing.pools, notes=notes)


def _load(repository: str, configuration: str | None, name: str, *, download: bool) -> Any:
    try:
        import datasets
        import huggingface_hub.constants as hub
    except ImportError as error:
        raise MissingDependencyError(
            f"{PREFIX}{name} needs datasets: pip install 'daso[hf]'"
        ) from error
    switches: tuple[Any, ...] = (datasets.config, hub)
    before = [(module, module.HF_HUB_OFFLINE) for module in switches]
    try:
        for module, _ in before:
            module.HF_HUB_OFFLINE = not download
        return datasets.load_dataset(repository, configuration)
    # The package, its readers and its connections raise nearly anything.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        cure = (
            "is it spelt right, and is there a network?"
            if download
            else "--download fetches what is not there yet."
        )
        raise DataError(
            f"{PREFIX}{name} cannot be loaded: {reason}; {cure} Without a network: save_to_disk() it elsewhere, "
            "copy the folder, and train on that"
        ) from error
    finally:
        for module, offline in before:
            module.HF_HUB_OFFLINE = offline


def _opening(data: Any) -> Any:
    """Return what opens a loaded split as ``shards.open_arrow`` opens a file."""

    @contextmanager
    def opening(_: Path) -> Iterator[Table]:
        table = data.flatten_indices().data.table if data._indices is not None else data.data.table

        def column(name: str) -> Iterator[Any]:
            for batch in table.select([name]).to_batches(max_chunksize=CHUNK):
                yield batch.column(0)

        yield Table(table.schema, column)

    return opening
