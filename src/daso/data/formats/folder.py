"""Image folders: ``labeled/<class>/*``, ``unlabeled/**``, if wanted ``val/<class>/*``, ``test/<class>/*``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from daso.data.class_names import in_order
from daso.data.formats.tar_shards import is_shards, unlabeled_tars
from daso.data.images.decode import SUFFIXES
from daso.data.images.encoded import EncodedImages
from daso.data.listing import Listing, files_pool, part_called, read_listing
from daso.data.source import UNLABELED, Source
from daso.errors import DataError, OptionError, nearest, problems

LABELED_FOLDERS = ("labeled", "train")
FOLDERS = {"unlabeled": "unlabeled", "validation": "val", "test": "test"}
"""What the folders of the other parts are called."""
NOTHING = (
    f"no images in it (images end in {', '.join(sorted(SUFFIXES))}); add some, or remove the folder"
)
PERMIT = "let this user read it (chmod -R u+rX), or take it away"
Faults = list[tuple[str, str]]
"""Files and folders that cannot be used, with the reason."""


def is_image_folder(folder: Path) -> bool:
    """Whether *folder* holds a ``labeled`` or ``train`` folder."""
    return any((folder / name).is_dir() for name in LABELED_FOLDERS)


def is_class_folder(folder: Path) -> bool:
    """Whether *folder* holds at least two folders with images in them, none of them called like a part of a data set.

    Raises:
        DataError: some are called like classes and some like parts, or like a part in another spelling.
    """
    with_images = [
        name for name in _subfolders(folder) if next(_walk(folder / name), None) is not None
    ]
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
        skip_bad: leave out what cannot be used, see ``list_folder`` and ``read_listing``.

    Raises:
        DataError: see ``list_folder`` and ``read_listing``.
    """
    return read_listing(list_folder(folder, skip_bad=skip_bad), size=size, skip_bad=skip_bad)


def list_folder(
    folder: Path, others: Mapping[str, str] | None = None, *, skip_bad: bool = False
) -> Listing:
    """List image folders without decoding any image.

    Args:
        folder: what holds ``labeled/`` and perhaps the others; or the labelled images in folders of their classes.
        others: where other parts are: "unlabeled", "val", "test". Unlabelled images may be in tar shards: a folder of
            them, a pattern such as ``shards/{000..127}.tar``, or an address for fsspec.
        skip_bad: leave out, and record in ``Listing.skipped``, images outside of class folders, classes and parts
            without images, and images to measure on of classes without labelled images.

    Raises:
        DataError: a folder is missing or given twice, there is no labelled image, or, all of them named, what
            *skip_bad* would leave out.
        OptionError: another part is called otherwise.
    """
    given = dict(others or {})
    unknown = [name for name in given if name not in FOLDERS.values()]
    if unknown:
        raise OptionError(
            f"unknown part {unknown[0]!r} of a data set; known: {', '.join(FOLDERS.values())}"
        )
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
    for one in (labeled, *map(Path, given.values())):
        if one.is_dir():
            require_readable(one)
    faults: Faults = []
    files = _class_files(labeled, faults)
    if not any(files.values()):
        _refuse_none(labeled)
    class_names = tuple(in_order(name for name, images in files.items() if images))
    faults += [
        (
            str(labeled / name),
            f"no labelled image of class {name!r}; add some, or remove the folder",
        )
        for name, images in files.items()
        if not images
    ]
    pools = {"train": _labeled_pool(files, class_names)}
    for part in ("validation", "test"):
        if FOLDERS[part] not in given:
            continue
        place = given[FOLDERS[part]]
        before, files = len(faults), _known_classes(Path(place), class_names, faults)
        if any(files.values()):
            pools[part] = _labeled_pool(files, class_names)
        elif len(faults) == before:
            faults.append((place, NOTHING))
    if "unlabeled" in given:
        before, unlabeled = len(faults), _unlabeled_pool(given["unlabeled"], faults)
        if unlabeled is None and len(faults) == before:
            faults.append((given["unlabeled"], NOTHING))
        elif unlabeled is not None:
            pools["unlabeled"] = unlabeled
    if faults and not skip_bad:
        what = f"{folder}: {len(faults)} of its files or folders cannot be used"
        raise DataError(problems(faults, what, "Mend them, or leave them out: --skip-bad"))
    return Listing(folder.resolve().name, str(folder), class_names, pools, tuple(faults))


def _labeled_folder(folder: Path) -> Path:
    found = [folder / name for name in LABELED_FOLDERS if (folder / name).is_dir()]
    if len(found) > 1:
        raise DataError(
            f"{folder}: holds both 'labeled' and 'train'; keep one of them for the labelled images"
        )
    return found[0]


def _subfolders(folder: Path) -> list[str]:
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _class_files(folder: Path, faults: Faults) -> dict[str, list[Path]]:
    """Return the images of each class folder, by its name; images beside these folders are faults.

    Raises:
        DataError: there is no class folder.
    """
    names = _subfolders(folder)
    stray = sorted(entry for entry in folder.iterdir() if _is_image(entry))
    if not names:
        if stray:
            raise DataError(
                f"{folder}: {len(stray)} image(s) lie outside a class folder, e.g. {stray[0].name!r}; "
                "move each into the folder of its class"
            )
        own = folder.name in LABELED_FOLDERS or folder.name in FOLDERS.values()
        raise DataError(
            f"{folder}: no class folders in it; make one folder for each class"
            + ("" if own else ", in labeled/, beside unlabeled/ for images without a class")
        )
    faults += [
        (str(path), "lies outside a class folder; move it into the folder of its class")
        for path in stray
    ]
    return {name: _image_files(folder / name, faults) for name in names}


def _known_classes(
    folder: Path, class_names: Sequence[str], faults: Faults
) -> dict[str, list[Path]]:
    """Return the images of the known classes of a part to measure on; images of others are faults."""
    files = _class_files(folder, faults)
    for name in sorted(files.keys() - set(class_names)):
        images = files.pop(name)
        if images:
            reason = (
                f"class {name!r} has no labelled image to learn from ({len(images):,} here); known classes: "
                f"{', '.join(map(repr, class_names))}.{nearest(name, class_names)}"
            )
            faults.append((str(folder / name), reason))
    return files


def _labeled_pool(files: Mapping[str, list[Path]], class_names: Sequence[str]) -> EncodedImages:
    known = {name: label for label, name in enumerate(class_names)}
    found = [
        (path, known[name]) for name, paths in files.items() if name in known for path in paths
    ]
    return files_pool([path for path, _ in found], [label for _, label in found])


def _unlabeled_pool(place: str, faults: Faults) -> EncodedImages | None:
    """Return the images, and those of tar shards, below a folder; None if there are none that can be read."""
    if is_shards(place):
        return unlabeled_tars(place)
    paths = _image_files(Path(place), faults)
    shards = sorted(
        str(path) for path in Path(place).iterdir() if is_shards(path.name) and path.is_file()
    )
    pools = [files_pool(paths, [UNLABELED] * len(paths))] if paths else []
    pools += map(unlabeled_tars, shards)
    return functools.reduce(EncodedImages.followed_by, pools) if pools else None


def _refuse_none(folder: Path) -> None:
    raise DataError(f"{folder}: {NOTHING}")


def _image_files(folder: Path, faults: Faults) -> list[Path]:
    """All images below *folder*, by path; links to folders are followed, each folder once.

    Folders that cannot be read are faults.
    """

    def note(error: OSError) -> None:
        reason = error.strerror or str(error)
        faults.append((str(error.filename), f"this folder cannot be read: {reason}; {PERMIT}"))

    return sorted(_walk(folder, note))


def _walk(folder: Path, note: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for parent, subfolders, names in os.walk(folder, onerror=note, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (Path(parent) / name for name in names if _is_image(Path(parent) / name))


def require_readable(folder: Path) -> None:
    """Refuse a folder that this user may not list or enter.

    Raises:
        DataError: it is one.
    """
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: this folder cannot be read: Permission denied; {PERMIT}")


def _is_image(path: Path) -> bool:
    """Whether a path is called like an image, and is a file, or cannot be read: a link to nowhere, or not permitted."""
    if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
        return False
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())
    except PermissionError:
        return True
