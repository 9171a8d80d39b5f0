"""Image folders: ``labeled/<class>/*``, ``unlabeled/**`` and, if present, ``val`` and ``test``."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from daso.data.class_names import in_order, is_missing, joined, listed
from daso.data.formats.image_walk import (
    Faults,
    image_files,
    is_image,
    require_readable,
    subfolders,
    walk,
)
from daso.data.formats.manifest import is_manifest
from daso.data.formats.passed_over import PassedOver, is_broken_link
from daso.data.formats.tar_shards import is_shards, unlabeled_tars
from daso.data.images.decode import SUFFIXES
from daso.data.images.encoded import EncodedImages
from daso.data.listing import JOURNAL, Listing, is_hidden
from daso.data.part_names import part_called, part_meant, splits_by_part
from daso.data.places import absolute_place
from daso.data.source import UNLABELED
from daso.errors import DataError, OptionError, nearest, problems, same_name

FOLDERS = {"unlabeled": "unlabeled", "validation": "val", "test": "test"}
ARCHIVES = (
    ".parquet", ".arrow", ".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz",
    ".tar.zst", ".h5", ".hdf5", ".mat",
)  # fmt: skip
CONTAINERS = (".csv", ".tsv", ".jsonl", ".ndjson", ".npz", ".npy", *ARCHIVES)
"""Endings of files that may hold or list images."""
LEADS_NOWHERE = "is a link that leads nowhere; mend or remove it"
NO_IMAGES = f"no images in it ({', '.join(sorted(SUFFIXES))}); add some, or remove the folder"


def is_image_folder(folder: Path, *, partial: bool = False) -> bool:
    """Whether *folder* holds a folder of labeled images, called like one of ``PART_NAMES``.

    With *partial* one of unlabeled images suffices.
    """
    parts = set(map(part_called, subfolders(folder)))
    return "train" in parts or (partial and "unlabeled" in parts)


def is_class_folder(folder: Path) -> bool:
    """Whether *folder* holds at least two folders with images, none named like a part."""
    with_images = [name for name in subfolders(folder) if any(walk(folder / name))]
    parts = [name for name in with_images if part_called(name)]
    if parts:
        raise DataError(
            f"{folder}: the folder {parts[0]!r} looks like a part of a data set, not like a class. "
            f"Name the parts labeled (or train), {', '.join(FOLDERS.values())}; the labeled one is "
            "required"
        )
    _refuse_splits(folder, with_images)
    return len(with_images) > 1


def _refuse_splits(folder: Path, names: Sequence[str]) -> None:
    """Refuse to take folders such as training_set and test_set, with the same classes, for two.

    Nor is a folder a class that is called like a part and holds folders called like its neighbors.
    """
    inside: dict[str, tuple[str, set[str]]] = {}
    for name in names:
        if (part := part_meant(name)) is not None:
            inside.setdefault(part, (name, set(subfolders(folder / name))))
    training, classes = inside.pop("train", (None, set(names)))
    for part, (name, others) in inside.items():
        if not classes & others:
            continue
        if training is None:
            what = f"{name!r} holds folders that lie beside it, too"
            cure = f"Move these to train, and rename {name!r} to {FOLDERS[part]}"
        else:
            what = f"{training!r} and {name!r} hold the same folders"
            cure = f"Rename them to train and {FOLDERS[part]}"
        raise DataError(
            f"{folder}: {what}, such as {min(classes & others)!r}; they look like parts of a data "
            f"set, not like classes. {cure}"
        )


def list_folder(
    folder: Path,
    others: Mapping[str, str] | None = None,
    *,
    skip_bad: bool = False,
    classes: Collection[str] | None = None,
) -> Listing:
    """List image folders without decoding any image.

    Class names are the sorted folder names. Images are in the order of their paths. Notes count
    the files without an image suffix, and what is hidden.

    Args:
        folder: has a folder for each part, named as in ``PART_NAMES``, or the class folders.
        others: places of other parts: "unlabeled", "val", "test". Unlabeled images may be in tar
            shards: a folder of them, a pattern such as ``shards/{000..127}.tar``, or an address.
        skip_bad: leave out, and record in ``Listing.skipped``, images outside class folders,
            classes and parts without images, and test or validation images of unknown classes.
        classes: see ``Listing.partial``; with them a folder need not have labeled images, and one
            that holds neither parts nor classes is one of unlabeled images.
    """
    partial = classes is not None
    labeled, places, notes = _find_parts(folder, dict(others or {}), partial=partial)
    faults = Faults()
    files = {}
    if labeled is not None:
        files = _class_files(labeled, faults, required=True, partial=partial)
    if not any(files.values()) and not partial:
        raise DataError("\n".join([f"{labeled}: {NO_IMAGES}", *faults.others.notes(str(labeled))]))
    if labeled is not None and len(files) == 1 and not partial:
        _refuse_wrapped(labeled, *files)
    for name in filter(is_missing, list(files)):
        if files.pop(name):
            reason = "reads like a missing label; rename it, or move its images to unlabeled/"
            faults.append((str((labeled or folder) / name), reason))
    notes += _nested_note(labeled, files)
    known = (name for name, images in files.items() if images or partial)
    class_names = tuple(in_order(joined(known, classes)))
    for name in (name for name, images in files.items() if not images and not partial):
        passed = PassedOver()
        deque(walk((labeled or folder) / name, others=passed), maxlen=0)
        found = f" (not read: {', '.join(passed.words())})" if passed.kinds else ""
        reason = f"no labeled image of class {name!r}{found}; add some, or remove the folder"
        faults.append((str((labeled or folder) / name), reason))
    pools = {"train": _labeled_images(files, class_names)}
    measured: list[str] = []
    for part in ("validation", "test", "unlabeled"):
        if FOLDERS[part] not in places:
            continue
        place, before = places[FOLDERS[part]], len(faults)
        if part == "unlabeled":
            pools[part] = _unlabeled_images(place, faults)
        else:
            files = _known_classes(Path(place), class_names, faults, measured)
            pools[part] = _labeled_images(files, class_names)
        emptied = partial and part == "unlabeled"
        if not pools[part] and len(faults) == before and not emptied:
            faults.append((place, NO_IMAGES))
    if partial and not pools["train"] and not pools.get("unlabeled"):
        raise DataError("\n".join([f"{folder}: {NO_IMAGES}", *faults.others.notes(str(folder))]))
    if faults and not skip_bad:
        what = f"{folder}: {len(faults)} of its files or folders cannot be used"
        raise DataError(problems(faults, what, "Correct them, or leave them out: --skip-bad"))
    return Listing(
        folder.resolve().name,
        str(folder),
        class_names,
        {part: images for part, images in pools.items() if images or part == "train"},
        tuple(faults),
        (*notes, *faults.others.notes(str(folder))),
        partial=partial,
        measured=tuple(in_order(set(measured))),
    )


def _refuse_wrapped(labeled: Path, only: str) -> None:
    """Refuse a single class folder that holds folders: these are the classes."""
    inside = subfolders(labeled / only)
    if len(inside) > 1:
        raise DataError(
            f"{labeled}: its only folder, {only!r}, holds the folders {listed(inside)}. If these "
            f"are the classes, move them into {labeled}"
        )


def _nested_note(labeled: Path | None, files: Mapping[str, Sequence[Path]]) -> tuple[str, ...]:
    """Note that all class folders hold folders, which may be the classes; refuse parts."""
    if labeled is None:
        return ()
    inside = [
        {path.relative_to(labeled / name).parts[:-1][:1] for path in images}
        for name, images in files.items()
    ]
    for name, folders in zip(files, inside, strict=True):
        parts = {part_called(inner): inner for (inner,) in folders - {()}}
        if "train" in parts and (part := parts.get("test", parts.get("validation"))):
            both = f"{parts['train']!r} and {part!r}"
            raise DataError(
                f"{labeled / name}: the class folder holds the parts {both}; move its images to "
                f"{Path(parts['train'], name)} and {Path(part, name)}, or the {part} images would "
                "be trained on"
            )
    inside = [folders - {()} for folders in inside]
    if len(inside) < 2 or not all(inside) or all(len(folders) < 2 for folders in inside):
        return ()
    some = "" if all(folders == inside[0] for folders in inside) else "some of "
    names = listed([name for (name,) in sorted(set[tuple[str, ...]]().union(*inside))])
    which = f"each class folder holds {some}the folders {names}"
    outer = listed(sorted(files))
    return (f"{labeled}: {which}; the classes are the outer ones: {outer}",)


def _find_parts(
    folder: Path, places: dict[str, str], *, partial: bool = False
) -> tuple[Path | None, dict[str, str], tuple[str, ...]]:
    """Return the folder of labeled images, those of other parts, and notes."""
    unknown = [name for name in places if name not in FOLDERS.values()]
    if unknown:
        raise OptionError(f"unknown part {unknown[0]!r}; use {', '.join(FOLDERS.values())}")
    labeled: Path | None = folder
    notes = tuple[str, ...]()
    if is_image_folder(folder, partial=partial):
        for entry in filter(is_broken_link, sorted(folder.iterdir())):
            if part_called(entry.name):
                raise DataError(f"{entry} {LEADS_NOWHERE}")
        inside, _ = splits_by_part(subfolders(folder), folder, needs_train=False)
        named = {Path(absolute_place(place)) for place in places.values()}
        elsewhere = [
            name
            for name in subfolders(folder)
            if not named.isdisjoint((folder.resolve(), (folder / name).resolve()))
        ]
        notes = data_beside(folder, (), read_folders=[*inside.values(), *elsewhere])
        labeled = folder / inside.pop("train") if "train" in inside else None
        for part, name in inside.items():
            option = FOLDERS[part]
            if option in places:
                given = f"--{option} {places[option]}"
                raise DataError(f"{folder / name} exists, and {given} is given; use one of them")
            places[option] = str(folder / name)
    elif not is_class_folder(folder) and partial and not _has_classes(folder, places):
        labeled, places["unlabeled"] = None, str(folder)
    for name, place in places.items():
        if not Path(place).is_dir() and not (name == "unlabeled" and is_shards(place)):
            raise DataError(f"{name}: not a folder: {place}")
    for one in (labeled, *map(Path, places.values())):
        if one is not None and one.is_dir():
            require_readable(one)
    return labeled, places, notes


def data_beside(
    folder: Path, read: Sequence[str], *, read_folders: Collection[str] = ()
) -> tuple[str, ...]:
    """Note what lies in a folder beside what is read: images, and files of images.

    *read* has the endings of the files that are read, or named elsewhere; none in an image folder.
    """
    others = [name for name in subfolders(folder) if name not in read_folders]
    images = [f"{name}/" for name in others if _holds_images(folder / name)]
    images += sorted(entry.name for entry in folder.iterdir() if is_image(entry))
    why = "this is no folder of images" if read else "they are in no folder of a part"
    notes = (f"{folder}: images that are not read, as {why}: {listed(images)}",) if images else ()
    files = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.name.lower().endswith(CONTAINERS)
        and not entry.name.lower().endswith((*read, JOURNAL))
        and not entry.name.startswith(".")
        and entry.is_file()
    ]
    cure = "; give a manifest itself to use it" if any(map(is_manifest, files)) else ""
    names = [entry.name for entry in files]
    return (*notes, f"{folder}: not read: {listed(names)}{cure}") if names else notes


def _holds_images(folder: Path) -> bool:
    """Whether images or archives lie below a folder."""
    passed = PassedOver()
    if any(walk(folder, others=passed)):
        return True
    return any(first.lower().endswith(ARCHIVES) for _, first in passed.kinds.values())


def labeled_folder(folder: Path, others: Mapping[str, str]) -> tuple[Path, bool]:
    """Return where class folders of labeled images are or belong.

    The second value says whether *folder* itself is one of unlabeled images, without parts.
    """
    labeled, places, _ = _find_parts(folder, dict(others), partial=True)
    return labeled or folder / "labeled", places.get("unlabeled") == str(folder)


def _has_classes(folder: Path, places: Mapping[str, str]) -> bool:
    """Whether folders in *folder* are classes, although fewer than two have images."""
    if "unlabeled" in places:
        return True
    names, stray = subfolders(folder), any(map(is_image, folder.iterdir()))
    return len(names) > 1 and not stray and any(any(walk(folder / name)) for name in names)


def _class_files(
    folder: Path, faults: Faults, *, required: bool = False, partial: bool = False
) -> dict[str, list[Path]]:
    """Return the images of each class folder; without one raise an error if they are *required*."""
    names = subfolders(folder)
    stray = sorted(entry for entry in folder.iterdir() if is_image(entry))
    if not names and (stray or not partial):
        reason = _why_no_classes(folder, stray)
        if required:
            raise DataError(f"{folder}: {reason}")
        faults.append((str(folder), reason))
        return {}
    reason = "lies outside a class folder; move it into the folder of its class"
    faults += [(str(path), reason) for path in stray]
    for entry in sorted(folder.iterdir()):
        if entry.is_file() and not is_image(entry):
            faults.others.add_file(str(entry))
        elif entry.is_dir() and is_hidden(entry.name):
            faults.others.add("hidden folders", str(entry))
        elif is_broken_link(entry) and not is_image(entry):
            faults.append((str(entry), LEADS_NOWHERE))
    return {name: image_files(folder / name, faults) for name in names}


def _why_no_classes(folder: Path, stray: Sequence[Path]) -> str:
    if stray:
        return (
            f"{len(stray)} image(s) outside a class folder, e.g. {stray[0].name!r}; move each into "
            "the folder of its class"
        )
    part = part_called(folder.name)
    what = "no class folders in it; make one folder for each class"
    if part is None:
        what += ", in labeled/, beside unlabeled/ for images without a class"
    files = sorted(filter(Path.is_file, folder.iterdir()))
    read = [f.name for f in files if f.suffix.lower() == ".parquet" or is_shards(f.name)]
    if part and read:
        to = folder.with_name(f"{folder.name}-{read[0]}")
        what += f". To read {read[0]} and others like it, move it to {to}, and remove {folder}"
    return what


def _known_classes(
    folder: Path, class_names: Sequence[str], faults: Faults, measured: list[str]
) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for name, images in _class_files(folder, faults).items():
        files.setdefault(same_name(name, class_names), []).extend(images)
    for name in sorted(files.keys() - set(class_names)):
        images = files.pop(name)
        if images:
            measured.append(name)
            reason = (
                f"class {name!r} has no labeled image to learn from ({len(images):,} here); known "
                f"classes: {', '.join(map(repr, class_names))}.{nearest(name, class_names)}"
            )
            faults.append((str(folder / name), reason))
    return files


def _labeled_images(files: Mapping[str, list[Path]], class_names: Sequence[str]) -> EncodedImages:
    numbers = {name: label for label, name in enumerate(class_names)}
    known = [name for name in files if name in numbers]
    paths = [path for name in known for path in files[name]]
    labels = [numbers[name] for name in known for _ in files[name]]
    return EncodedImages.of_files(paths, labels)


def _unlabeled_images(place: str, faults: Faults) -> EncodedImages:
    if is_shards(place):
        return unlabeled_tars(place, faults.others)
    with os.scandir(place) as entries:
        files = (Path(e.path) for e in entries if is_shards(e.name) and e.is_file())
        shards = sorted(files)
    paths = image_files(Path(place), faults, set(shards))
    images = EncodedImages.of_files(paths, [UNLABELED] * len(paths))
    parts = (unlabeled_tars(str(shard), faults.others) for shard in shards)
    return functools.reduce(EncodedImages.followed_by, parts, images)
