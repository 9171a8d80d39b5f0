"""How the journal names images: so that a name holds wherever the data set is moved.

An image file is named by its path from the data's folder, with slashes; an image in a table or a
shard by the file's path and the row or key; an image of an array by part and number.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

from daso.data.images.encoded import Item, content_digest
from daso.errors import DataError


def short_name_from(base: Path) -> Callable[[str], str]:
    """Return the function that gives an image's name in the journal; paths start in *base*."""
    inside = "" if str(base) == "." else f"{base}/"
    real = os.path.realpath(base)

    @functools.lru_cache(maxsize=10_000)
    def folder(parent: str) -> str:
        return os.path.relpath(parent, real)

    def short(name: str) -> str:
        if "://" in name:
            return name
        if not name.startswith("/") and inside == "":
            return name
        if inside and name.startswith(inside):
            return name.removeprefix(inside)
        parent, _, last = name.rpartition("/")
        parent = folder(parent or "/") if name.startswith("/") else folder(parent or ".")
        return last if parent == "." else f"{parent}/{last}"

    return short


def array_name(part: str, index: int) -> str:
    """Return the name of an image in an array."""
    return f"{part} image {index}"


def item_checksum(item: Item) -> str:
    """Return the checksum of an encoded image; raise a ``DataError`` if it cannot be read."""
    if isinstance(item, DataError):
        raise item
    try:
        return content_digest(item).hex()
    except DataError as error:
        raise DataError(f"{item!s}: {error}") from error
