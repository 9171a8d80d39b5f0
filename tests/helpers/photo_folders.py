"""Folders of small images, and how they are read."""

from __future__ import annotations

import zlib
from pathlib import Path

from PIL import Image

from daso.data.formats.folder import list_folder
from daso.data.listing import Reading
from daso.data.read_listing import read_listing
from daso.data.source import Source


def read_folder(folder: Path, *, size: int | None = None, skip_bad: bool = False) -> Source:
    return read_listing(list_folder(folder, skip_bad=skip_bad), Reading(size, skip_bad=skip_bad))


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Images at different paths are different images.
    own = zlib.crc32("/".join(path.parts[-3:]).encode())
    Image.new(mode, size, value if mode == "L" else (value, own % 256, own // 256 % 256)).save(path)
    return path


def write_photos(folder: Path) -> Path:
    """Write two classes, three labeled images each, three unlabeled ones and two to measure on."""
    for number, name in enumerate(("cat", "dog")):
        for index in range(3):
            picture(folder / "labeled" / name / f"{index}.png", 10 * number + index)
    for index in range(2):
        picture(folder / "unlabeled" / "deep" / "er" / f"{index}.png", 100 + index)
    picture(folder / "unlabeled" / "flat.PNG", 102)
    picture(folder / "val" / "dog" / "0.png", 50)
    picture(folder / "test" / "cat" / "0.png", 60)
    return folder


def first_values(source: Source, part: str) -> list[int]:
    return getattr(source, part).images[:, 0, 0, 0].tolist()
