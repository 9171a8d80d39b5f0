"""Image folders: ``labeled/<class>/*``, ``unlabeled/**``, if wanted ``val/<class>/*``, ``test/<class>/*``."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from daso.data.decode import SUFFIXES
from daso.data.listing import Listing, files_pool, part_called, read_listing
from daso.data.names import in_order
from daso.data.pool import EncodedImages
from daso.data.source import UNLABELED, Source
from daso.data.tars import is_shards, unlabeled_tars
from daso.errors import DataError, OptionError, nearest

LABELED_FOLDERS = ("labeled", "train")
FOLDERS = {"unlabeled": "unlabeled", "validation": "val", "test": "test"}
"""What the folders of the other parts are called."""


def is_image_folder(folder: Path) -> bool:
    """Whether *folder* holds a ``labeled`` or ``train`` folder."""
    return any((folder / name).is_dir() for name in LABELED_FOLDERS)


def is_class_folder(folder: Path) -> bool:
    """Whether *folder* holds at least two folders with images in them, none of them called like a part of a data set.

    Raises:
        DataError: some are called like classes and some like parts, or like a part in another spelling.
    """
    with_images = [name for name in _subfolders(folder) if next(_walk(folder / name), None) is not None]
    parts = [name for name in with_images if part_called(name)]
    if parts:
        raise DataError(
            f"{folder}: the folder {parts[0]!r} looks like a part of a data set, not like a class. The parts are "
            f"called {' (or '.join(LABELED_FOLDERS)}), {', '.join(FOLDERS.values())}; the labelled one must be there"
        )
    return len(with_images) > 1


def read_folder(folder: Path, *, size: int | None = None, skip_bad: bool = False) -> Source:
    """Read image folders; the class names are the sorted folder names within ``labeled/`` (or ``train/``).

    Images are in the order of their paths. Hidden files and files without an image suffix are passed over.

    Args:
        folder: what holds ``labeled/``.
        size: side of the square that every image is resized to; None: see ``pool.choose_layout``.
        skip_bad: leave out what cannot be used, see ``read_listing``.

    Raises:
        DataError: a folder is missing, a class is empty or unknown, or see ``read_listing``.
    """
    return read_listing(list_folder(folder), size=size, skip_bad=skip_bad)


def list_folder(folder: Path, others: Mapping[str, str] | None = None) -> Listing:
    """List image folders without decoding any image.

    Args:
        folder: what holds ``labeled/`` and perhaps the others; or the labelled images in folders of their classes.
        others: where other parts are: "unlabeled", "val", "test". Unlabelled images may be in tar shards: a folder of
            them, a pattern such as ``shards/{000..127}.tar``, or an address for fsspec.

    Raises:
        DataError: a folder is missing, given twice, empty, or a class is empty or unknown.
        OptionError: another part is called otherwise.
    """
    given = dict(others or {})
    unknown = [name for name in given if name not in FOLDERS.values()]
    if unknown:
        raise OptionError(f"unknown part {unknown[0]!r} of a data set; known: {', '.join(FOLDERS.values())}")
    if is_image_folder(folder):
        labeled = _labeled_folder(folder)
        inside = {name: str(folder / name) for name in FOLDERS.values() if (folder / name).is_dir()}
        twice = sorted(inside.keys() & given.keys())
        if twice:
            raise DataError(
                f"{folder / twice[0]} is there, and --{twice[0]} {given[twice[0]]} too; name one of them"
            )
        given |= inside
    else:
        labeled = folder
        is_class_folder(folder)
    for name, place in given.items():
        if not Path(place).is_dir() and not (name == "unlabeled" and is_shards(place)):
            raise DataError(f"{name}: {place} is no folder")
    class_names = tuple(in_order(_class_folders(labeled)))
    pools = {"train": _labeled_pool(labeled, class_names)}
    for part in ("validation", "test"):
        if FOLDERS[part] in given:
            pools[part] = _labeled_pool(Path(given[FOLDERS[part]]), class_names)
    if "unlabeled" in given:
        pools["unlabeled"] = _unlabeled_pool(given["unlabeled"])
    return Listing(folder.resolve().name, str(folder), class_names, pools)


def _labeled_folder(folder: Path) -> Path:
    found = [folder / name for name in LABELED_FOLDERS if (folder / name).is_dir()]
    if len(found) > 1:
        raise DataError(
            f"{folder}: holds both 'labeled' and 'train'; keep one of them for the labelled images"
        )
    return found[0]


def _subfolders(folder: Path) -> list[str]:
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _class_folders(folder: Path) -> list[str]:
    stray = sorted(entry.name for entry in folder.iterdir() if _is_image(entry))
    if stray:
        raise DataError(
            f"{folder}: {len(stray)} image(s) lie outside a class folder, e.g. {stray[0]!r}; "
            "move each into the folder of its class"
        )
    names = _subfolders(folder)
    if not names:
        raise DataError(
            f"{folder}: no class folders in it; make one folder for each class"
            + (
                ""
                if folder.name in LABELED_FOLDERS
                else ", in labeled/, beside unlabeled/ for images without a class"
            )
        )
    return names


def _labeled_pool(folder: Path, class_names: Sequence[str]) -> EncodedImages:
    paths: list[Path] = []
    labels: list[int] = []
    known = {name: label for label, name in enumerate(class_names)}
    for name in _class_folders(folder):
        files = list(_image_files(folder / name))
        if name not in known:
            raise DataError(
                f"{folder / name}: class {name!r} has no folder among the labelled images; "
                f"known classes: {', '.join(class_names)}.{nearest(name, class_names)}"
            )
        paths += files
        labels += [known[name]] * len(files)
    _refuse_none(folder, paths)
    return files_pool(paths, labels)


def _unlabeled_pool(place: str) -> EncodedImages:
    if is_shards(place):
        return unlabeled_tars(place)
    paths = list(_image_files(Path(place)))
    shards = sorted(str(path) for path in Path(place).iterdir() if is_shards(path.name) and path.is_file())
    if not shards:
        _refuse_none(Path(place), paths)
    pools = [files_pool(paths, [UNLABELED] * len(paths))] if paths else []
    pools += map(unlabeled_tars, shards)
    return functools.reduce(EncodedImages.followed_by, pools)


def _refuse_none(folder: Path, paths: list[Path]) -> list[Path]:
    if not paths:
        raise DataError(f"{folder}: no images in it ({_suffixes()}); add some, or remove the folder")
    return paths


def _image_files(folder: Path) -> list[Path]:
    """All images below *folder*, by path; links to folders are followed, each folder once."""
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(parent) / name for name in names if _is_image(Path(parent) / name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _suffixes() -> str:
    return "images end in " + ", ".join(sorted(SUFFIXES))
