"""Image folders: ``labeled/<class>/*``, ``unlabeled/**``, if wanted ``val/<class>/*``, ``test/<class>/*``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from daso.data.decode import SUFFIXES
from daso.data.pool import EncodedImages, decode_pools
from daso.data.source import UNLABELED, Images, Source
from daso.errors import DataError, nearest

LABELED_FOLDERS = ("labeled", "train")
CHUNK = 256


def is_image_folder(folder: Path) -> bool:
    """Whether *folder* holds a ``labeled`` or ``train`` folder."""
    return any((folder / name).is_dir() for name in LABELED_FOLDERS)


def read_folder(folder: Path, *, size: int | None = None, skip_bad: bool = False) -> Source:
    """Read image folders; the class names are the sorted folder names within ``labeled/`` (or ``train/``).

    Images are in the order of their paths. Hidden files and files without an image suffix are passed over.

    Args:
        folder: what holds ``labeled/``.
        size: side of the square that every image is resized to; None: see ``pool.choose_layout``.
        skip_bad: leave unreadable images out and record them in ``Source.skipped``.

    Raises:
        DataError: a folder is missing, a class is empty or unknown, or images could not be read.
    """
    labeled = _labeled_folder(folder)
    class_names = tuple(_class_folders(labeled))
    pools = {"train": _labeled_pool(labeled, class_names)}
    counts = np.bincount(pools["train"].labels, minlength=len(class_names))
    _refuse_empty_classes(labeled, class_names, counts.tolist())
    for part, name in (("validation", "val"), ("test", "test")):
        if (folder / name).is_dir():
            pools[part] = _labeled_pool(folder / name, class_names)
    if (folder / "unlabeled").is_dir():
        paths = list(_image_files(folder / "unlabeled"))
        pools["unlabeled"] = _encoded(folder / "unlabeled", paths, [UNLABELED] * len(paths))
    images, skipped = decode_pools(pools, where=str(folder), size=size, skip_bad=skip_bad)
    counts = np.bincount(images["train"].labels, minlength=len(class_names))
    _refuse_empty_classes(labeled, class_names, counts.tolist(), "readable ")
    return Source(
        name=folder.resolve().name,
        class_names=class_names,
        train=images["train"],
        unlabeled=_unless_empty(images.get("unlabeled")),
        validation=_unless_empty(images.get("validation")),
        test=_unless_empty(images.get("test")),
        skipped=skipped,
    )


def _labeled_folder(folder: Path) -> Path:
    found = [folder / name for name in LABELED_FOLDERS if (folder / name).is_dir()]
    if not found:
        raise DataError(
            f"{folder}: no folder 'labeled' in it; put the labelled images into labeled/<class>/ "
            "and the unlabelled ones into unlabeled/"
        )
    if len(found) > 1:
        raise DataError(
            f"{folder}: holds both 'labeled' and 'train'; keep one of them for the labelled images"
        )
    return found[0]


def _class_folders(folder: Path) -> list[str]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    stray = sorted(entry.name for entry in entries if _is_image(entry))
    if stray:
        raise DataError(
            f"{folder}: {len(stray)} image(s) lie outside a class folder, e.g. {stray[0]!r}; "
            "move each into the folder of its class"
        )
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not names:
        raise DataError(f"{folder}: no class folders in it; make one folder for each class")
    return names


def _labeled_pool(folder: Path, class_names: Sequence[str]) -> EncodedImages:
    paths: list[Path] = []
    labels: list[int] = []
    for name in _class_folders(folder):
        if name not in class_names:
            raise DataError(
                f"{folder / name}: class {name!r} has no folder among the labelled images; "
                f"known classes: {', '.join(class_names)}.{nearest(name, class_names)}"
            )
        files = list(_image_files(folder / name))
        paths += files
        labels += [class_names.index(name)] * len(files)
    return _encoded(folder, paths, labels)


def _encoded(folder: Path, paths: list[Path], labels: list[int]) -> EncodedImages:
    if not paths:
        raise DataError(f"{folder}: no images in it ({_suffixes()}); add some, or remove the folder")

    def chunks() -> Iterator[Sequence[Path]]:
        for start in range(0, len(paths), CHUNK):
            yield paths[start : start + CHUNK]

    return EncodedImages(np.array(labels, dtype=np.int64), lambda i: str(paths[i]), chunks, from_files=True)


def _image_files(folder: Path) -> Iterator[Path]:
    """All images below *folder*, by path; links to folders are followed, each folder once."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [Path(parent) / name for name in names if _is_image(Path(parent) / name)]
    yield from sorted(found)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse_empty_classes(
    folder: Path, class_names: Sequence[str], counts: Sequence[int], kind: str = ""
) -> None:
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{folder}: no {kind}image in the class folder(s) {', '.join(map(repr, empty))} ({_suffixes()}); "
            "add labelled images, or remove the folder"
        )


def _suffixes() -> str:
    return "images end in " + ", ".join(sorted(SUFFIXES))


def _unless_empty(images: Images | None) -> Images | None:
    return images if images is not None and len(images) else None
