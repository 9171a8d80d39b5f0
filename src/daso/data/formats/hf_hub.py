"""Data sets of the Hugging Face hub by name, through the package ``datasets`` and its cache."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daso.data.formats.arrow import CHUNK, Opener, Table
from daso.data.formats.tables import TableFiles, list_tables
from daso.data.images.encoded import origin_of
from daso.data.listing import Listing
from daso.data.part_names import splits_by_part
from daso.data.places import HUB
from daso.errors import DataError, first_line, import_extra


def list_hub(name: str, *, download: bool = False) -> Listing:
    """List a data set of the hub; splits with unknown names are left out.

    Columns, labels and splits are those of ``list_saved``.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME:CONFIGURATION``, with or without ``HUB`` before it; may
            be a folder in one of the hub's layouts.
        download: fetch missing files into the cache; without it no connection is made.
    """
    name = name.removeprefix(HUB)
    where = Path(f"{HUB}{name}")
    repository, _, configuration = name.partition(":")
    loaded = _load(repository, configuration or None, name, download=download)
    splits, left_out = splits_by_part(map(str, loaded), where)
    tables = {
        part: TableFiles(
            [where / split],
            _opener(loaded[split]),
            with_paths=True,
            origin=functools.partial(_origin, loaded[split]),
            labeled=part != "unlabeled",
        )
        for part, split in splits.items()
    }
    listing = list_tables(tables, name=repository.rpartition("/")[2], where=where)
    notes = (f"{where}: the split(s) {', '.join(left_out)} are left out",) if left_out else ()
    return dataclasses.replace(listing, notes=(*listing.notes, *notes))


def _load(repository: str, configuration: str | None, name: str, *, download: bool) -> Any:
    datasets = import_extra("datasets", "hf", f"{HUB}{name} needs")
    import huggingface_hub.constants as hub  # which datasets needs

    modules: tuple[Any, ...] = (datasets.config, hub)
    before = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = not download
        return datasets.load_dataset(repository, configuration)
    # The package, its readers and its connections raise nearly anything.
    except Exception as error:
        reason = first_line(error)[:300]
        cure = "check the spelling and the network" if download else "add --download to fetch it"
        raise DataError(
            f"{HUB}{name} cannot be loaded: {reason}; {cure}. Without a network: save_to_disk() "
            "it elsewhere, copy the folder, and train on that"
        ) from error
    finally:
        for module, offline in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = offline


def _origin(data: Any, _: Path) -> str:
    files = [origin_of(Path(file["filename"])) for file in data.cache_files]
    return repr([data._fingerprint, *files])


def _opener(data: Any) -> Opener:
    @contextmanager
    def opener(_: Path) -> Iterator[Table]:
        table = data.flatten_indices().data.table if data._indices is not None else data.data.table

        def column(name: str) -> Generator[Any]:
            for batch in table.select([name]).to_batches(max_chunksize=CHUNK):
                yield batch.column(0)

        yield Table(table.schema, column)

    return opener
