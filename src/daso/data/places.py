"""How the images of a source are called: names of data sets, paths, addresses."""

from __future__ import annotations

import os
from pathlib import Path

NAMES = ("digits", "fashion-mnist", "cifar10", "cifar100", "stl10", "semi-aves", "semi-aves-open")
"""The data sets that have a name."""
HUB = "hf:"
"""Start of the name of a data set of the Hugging Face hub."""


def is_named(source: str) -> bool:
    """Whether a source is found by its name from any folder, not by its path."""
    return source in NAMES or source.startswith(HUB)


def is_address(place: str) -> bool:
    """Whether a text is an address for fsspec, such as s3://bucket/name.tar, not a path."""
    return "://" in place


def absolute_place(place: Path | str) -> str:
    """Make a path absolute; leave an address unchanged."""
    return str(place) if is_address(str(place)) else os.path.realpath(Path(place).expanduser())
