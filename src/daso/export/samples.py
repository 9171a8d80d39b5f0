"""Real images to check an exported model on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.open import NAMES, list_own
from daso.errors import DasoError, DataError
from daso.export.classifier import Classifier
from daso.train.config import RunConfig
from daso.train.prepare import open_configured

Array = npt.NDArray[Any]

MOST = 64


def sample_inputs(config: RunConfig, classifier: Classifier) -> tuple[Array, str]:
    """Return up to 64 of a run's own images (or vectors), as its model takes them, and what they are.

    The first of these that there are: test images, held-out ones, labelled ones.

    Raises:
        DataError: the run's data is not where it was, or none of these images can be read.
    """
    try:
        own = _own_files(config)
        if own is not None:
            part, files = own
            return _readable(files, classifier), f"{part} images"
        source = open_configured(config)
    except DasoError as error:
        raise DataError(
            f"the run's data cannot be read ({error}); name images of the kind: --images"
        ) from error
    for part, pool in (
        ("test", source.test),
        ("hold-out", source.validation),
        ("labelled", source.train),
    ):
        if pool is not None:
            chosen = np.linspace(0, len(pool) - 1, min(MOST, len(pool))).astype(np.int64)
            inputs = pool.images[chosen]
            if inputs.ndim == 3:  # vectors, in versions of which the first is the plain one
                inputs = inputs[:, 0]
            return np.ascontiguousarray(
                inputs
            ), f"{part} {'images' if inputs.ndim == 4 else 'vectors'}"
    raise AssertionError  # a source has labelled images


def _own_files(config: RunConfig) -> tuple[str, list[Path | bytes]] | None:
    """Return the first files of people's own images, not decoded; None if they are arrays or a benchmark."""
    if config.source in NAMES:
        return None
    data = None if config.data is None else Path(config.data)
    listing = list_own(config.source, data=data, folders=config.folders, skip_bad=True)
    if listing is None:
        return None
    part = next(part for part in ("test", "validation", "train") if part in listing.pools)
    names = {"validation": "hold-out", "train": "labelled"}
    files: list[Path | bytes] = []
    for chunk in listing.pools[part].chunks():
        files += chunk
        if len(files) >= MOST:
            break
    return names.get(part, part), files[:MOST]


def _readable(files: list[Path | bytes], classifier: Classifier) -> Array:
    found, reason = [], ""
    for file in files:
        try:
            found.append(classifier.prepare(file))
        except DataError as error:
            reason = str(error)
    if not found:
        raise DataError(f"none of {len(files)} images can be read: {reason}")
    return np.stack(found)
