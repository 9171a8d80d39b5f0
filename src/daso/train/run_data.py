"""The data of a run: opened from its configuration, and described in its folder."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from daso.compose import Recipe
from daso.data.images.cache import Cache
from daso.data.images.pool import Pool
from daso.data.journal.apply import read_journal
from daso.data.listing import Reading
from daso.data.open import open_with
from daso.data.places import NAMES, absolute_place, is_address, is_named
from daso.data.source import Source
from daso.data.training_data import TrainingData
from daso.errors import DataError, RunError, typed
from daso.files import read_json
from daso.nets.backbone import Backbone
from daso.report.data_changes import POOLS, describe_changes
from daso.train.config import RunConfig
from daso.train.encoder.embeddings import EmbeddedData
from daso.train.folder.checkpoint import refuse_changed_configuration


def describe_data(
    data: TrainingData, backbone: Backbone | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Return the content of ``data.json``; with the configuration it can rebuild the network."""

    def by_class(pool: Pool | None) -> list[int] | None:
        if pool is None:
            return None
        return torch.bincount(pool.labels, minlength=len(data.class_names)).tolist()

    truth = None
    if data.unlabeled is not None and bool((data.unlabeled.labels >= 0).all()):
        truth = by_class(data.unlabeled)
    return {
        "class_names": list(data.class_names),
        "labeled_counts": data.class_counts.tolist(),
        "unlabeled_counts": truth,
        **{name: len(data.pools.get(name, ())) for name in ("unlabeled", "holdout", "test")},
        "holdout_counts": by_class(data.holdout),
        "test_counts": by_class(data.test),
        "image_shape": list(data.image_shape if isinstance(data, EmbeddedData) else data.shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "split_fingerprint": data.fingerprint,
        "images_fingerprints": data.images_fingerprints,
        "class_fingerprints": data.class_fingerprints,
        **({} if data.journal is None else {"journal": data.journal}),
        **({} if backbone is None else {"backbone": backbone.describe()}),
        **({} if recipe is None else {"method": recipe.describe()}),
        **(data.describe_embeddings() if isinstance(data, EmbeddedData) else {}),
    }


def refuse_other_data(
    folder: Path, config: RunConfig, data: TrainingData, pools: Collection[str] = tuple(POOLS)
) -> None:
    """Raise a ``RunError`` if the classes, images, labels or split are not those of a run.

    Args:
        config: that of the run, resolved.
        pools: that are compared.
    """
    saved, current = read_json(folder / "data.json"), describe_data(data)
    saved.setdefault("images_fingerprints", current["images_fingerprints"])
    if changes := describe_changes(saved, current, pools):
        refuse_changed_configuration(folder, config.fingerprint())
        back = f"{cure}. " if (cure := undo_sorting(config)) else ""
        raise RunError(
            f"the data of {folder} has changed: {'; '.join(changes)}. {back}Name the "
            f"place of the run's images with --data; 'daso train --like {typed(folder)}' trains on "
            "the present ones"
        )


def undo_sorting(config: RunConfig) -> str:
    """Advise to put files back, if all that were sorted have been since the run."""
    journal = None if is_named(config.source) else read_journal(Path(config.source))
    placed = [] if journal is None else journal.placed()
    if not placed or placed[0].number <= (config.journal or 0):
        return ""
    undo = f"'daso label {typed(config.source)} --apply --undo' puts them back"
    return f"{len(placed):,} files were sorted since: {undo}"


def open_configured(config: RunConfig) -> Source:
    """Open the images of a run; see ``open_source``."""
    return open_with(configured_reading(config), config.source, journal=config.journal)


def configured_reading(config: RunConfig) -> Reading:
    """Return how the images of a run are read."""
    return Reading(
        config.size,
        skip_bad=config.skip_bad,
        cache=None if config.cache is None else Cache(Path(config.cache)),
        data=None if config.data is None else Path(config.data),
        folders=config.folders,
    )


def read_config(folder: Path, data: Path | None, device: str | None = None) -> RunConfig:
    """Read a run's configuration, with its files, or its device, elsewhere.

    Raises:
        DataError: *data* is not given, and the run's images are no longer in their place.
        RunError: the folder is no run, or its configuration is damaged.
    """
    config = RunConfig.read(folder)
    if data is None and not is_named(config.source) and not Path(config.source).exists():
        where = f"the run's images are not at {config.source}"
        raise DataError(f"{where}; name their present place with --data")
    if data is not None:
        place = absolute_place(data)
        if config.source in NAMES or (config.data is not None and data.is_dir()):
            config = replace(config, data=place)
        else:
            # Folders beside the images have moved with them.
            folders = {
                part: folder
                if is_address(folder)
                else os.path.normpath(Path(place) / os.path.relpath(folder, config.source))
                for part, folder in config.folders.items()
            }
            config = replace(config, source=place, folders=folders)
    if device is not None:
        config = replace(config, train=replace(config.train, device=device))
    return config
