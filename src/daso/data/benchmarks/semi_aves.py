"""Semi-Aves as published: list files over folders of bird images, with unlabelled birds of other species."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt

from daso.data.decode_pools import decode_pools, refuse_too_many
from daso.data.images.cache import Cache
from daso.data.images.encoded import Layout
from daso.data.listing import files_pool
from daso.data.source import UNLABELED, Source
from daso.errors import DataError, OptionError, problems

FOLDER = "semi_aves"
CLASSES = 200
SIDE = 224
TRAIN, IN_CLASS, OUT_OF_CLASS, TEST = (
    "l_train_val.txt",
    "u_train_in.txt",
    "u_train_out.txt",
    "test.txt",
)
TRUTH = "u_train_in_oracle.txt"
NAMES_FILE = "semi_aves_species_names.txt"
LISTS_PAGE = "https://github.com/cvl-umass/ssl-evaluation (data/semi_aves)"
IMAGES_PAGE = "https://github.com/cvl-umass/semi-inat-2020"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ANY = range(UNLABELED, 2**31)
CHUNK = 256

Bad = list[tuple[str, str]]
"""What cannot be used, file and line, and why."""


def locate_semi_aves(folder: Path, *, open_set: bool = False) -> Path:
    """Return *folder*, or ``semi_aves`` in it, whichever holds the list files that are read.

    Raises:
        DataError: some are missing; the message names them.
    """
    wanted = [TRAIN, IN_CLASS, TEST, *([OUT_OF_CLASS] if open_set else [])]
    for candidate in (folder, folder / FOLDER):
        if all((candidate / name).is_file() for name in wanted):
            return candidate
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    nearer = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    raise DataError(
        f"{nearer}: missing {', '.join(n for n in wanted if not (nearer / n).is_file())}"
    )


def read_semi_aves(
    folder: Path,
    *,
    open_set: bool = False,
    size: int | None = None,
    skip_bad: bool = False,
    cache: Cache | None = None,
) -> Source:
    """Read Semi-Aves: 5,959 labelled, 8,000 test and 26,640 unlabelled images of 200 species of birds.

    Su, Maji: *The Semi-Supervised iNaturalist-Aves Challenge at FGVC7 Workshop*, 2021, arXiv 2103.06937; the lists
    are those of Su, Cheng, Maji: *A Realistic Evaluation of Semi-Supervised Learning for Fine-Grained
    Classification*, CVPR 2021, arXiv 2104.00679. Labelled are its training and validation images together, as in
    the DASO paper. A line of a list is an image's path in *folder* and its label, 0 to 199, or -1 for unknown.

    The normalisation is ImageNet's. Where ``u_train_in_oracle.txt`` lies beside the lists, the unlabelled images
    get the species that it says, for evaluation.

    Args:
        folder: what holds the list files and the image folders, or its parent.
        open_set: the 122,208 images of other species are unlabelled images as well; their label is always -1.
        size: the shorter side of every image is resized to it, and the central square kept; None: 224.
        skip_bad: leave lines and images that cannot be used out and record them in ``Source.skipped``.
        cache: see ``decode_pools``.

    Raises:
        DataError: files are missing, lines or images cannot be used, or the memory will not do.
        OptionError: *size* is not positive.
    """
    folder = locate_semi_aves(folder, open_set=open_set)
    size = SIDE if size is None else size
    if size < 1:
        raise OptionError(f"size must be at least 1 pixel, got {size}")
    bad: Bad = []
    known, maybe = range(CLASSES), range(UNLABELED, CLASSES)
    pools = {
        "train": _read_list(folder, TRAIN, known, bad),
        "unlabeled": _read_list(folder, IN_CLASS, maybe, bad),
        "test": _read_list(folder, TEST, known, bad),
    }
    truth = {name: label for _, name, label in _entries(folder / TRUTH, maybe, bad)}
    pools["unlabeled"] = {
        name: truth.get(name, UNLABELED) if label == UNLABELED else label
        for name, label in pools["unlabeled"].items()
    }
    if open_set:
        pools["unlabeled"] |= dict.fromkeys(_read_list(folder, OUT_OF_CLASS, ANY, bad), UNLABELED)
    if bad and not skip_bad:
        raise DataError(_unusable(bad, folder))
    _refuse_empty_classes(folder, list(pools["train"].values()))
    class_names = _class_names(folder)
    if cache is None:
        refuse_too_many(sum(map(len, pools.values())), Layout(3, size, size, size))
    images, _, skipped = decode_pools(
        {
            part: files_pool([folder / name for name in listed], list(listed.values()))
            for part, listed in pools.items()
        },
        where=str(folder),
        size=size,
        skip_bad=skip_bad,
        cache=cache,
    )
    for part, pool in images.items():
        if not len(pool):
            raise DataError(
                f"{folder}: none of the {part} images can be read; {skipped[0][0]}: {skipped[0][1]}"
            )
    _refuse_empty_classes(folder, images["train"].labels, "readable ")
    return Source(
        name="semi-aves-open" if open_set else "semi-aves",
        class_names=class_names,
        train=images["train"],
        unlabeled=images["unlabeled"],
        test=images["test"],
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        skipped=(*bad, *skipped),
    )


def _read_list(folder: Path, list_name: str, labels: range, bad: Bad) -> dict[str, int]:
    """Return the images that a list names, in its order, and their labels; *bad* gets the lines left out.

    Raises:
        DataError: none of its images is there, or one of their folders is not.
    """
    listed: dict[str, int] = {}
    there: set[Path] = set()
    for where, name, label in _entries(folder / list_name, labels, bad):
        top = folder / PurePosixPath(name).parts[0]
        if top != folder / name and top not in there:
            if not top.is_dir():
                raise DataError(
                    f"{where}: names {name}, but there is no folder {top}; get its images from {IMAGES_PAGE}"
                )
            there.add(top)
        if not (folder / name).is_file():
            bad.append((where, f"no image {name}"))
        elif name in listed:
            bad.append((where, f"{name} is named twice"))
        else:
            listed[name] = label
    if not listed:
        reasons = [
            f"; {where}: {why}" for where, why in bad if where.startswith(f"{folder / list_name},")
        ]
        raise DataError(f"{folder / list_name}: names no image that is there{''.join(reasons[:1])}")
    return listed


def _entries(path: Path, labels: range, bad: Bad) -> Iterator[tuple[str, str, int]]:
    """Yield file and line, image and label of each usable line of a list; nothing if there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            name, label = (*line.rsplit(maxsplit=1), "")[:2]
            name = name.strip()
            if not _is_integer(label):
                bad.append((where, f"expected a path and a label, found {line.strip()[:80]!r}"))
            elif not _stays_inside(name):
                bad.append((where, f"the path {name[:80]!r} leads out of the folder"))
            elif int(label) not in labels:
                bad.append(
                    (where, f"label {int(label)} is out of range, {labels[0]} to {labels[-1]}")
                )
            else:
                yield where, name, int(label)


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) < 10


def _stays_inside(name: str) -> bool:
    paths = PurePosixPath(name), PureWindowsPath(name)
    return all(path.parts and not path.anchor and ".." not in path.parts for path in paths)


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the species, where their file lies beside the lists or, as published, beside their folder."""
    for path in (folder / NAMES_FILE, folder.resolve().parent / NAMES_FILE):
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            pairs = [line.split() for line in lines if line.strip()]
            names = {pair[0]: pair[1].replace("_", " ") for pair in pairs if len(pair) == 2}
            if len(pairs) != CLASSES or names.keys() != {str(label) for label in range(CLASSES)}:
                raise DataError(
                    f"{path}: must have a line for each label from 0 to {CLASSES - 1}, '0 Name'"
                )
            return tuple(names[str(label)] for label in range(CLASSES))
    return tuple(str(label) for label in range(CLASSES))


def _refuse_empty_classes(
    folder: Path, labels: Sequence[int] | npt.NDArray[np.int64], kind: str = ""
) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=CLASSES) == 0)
    if len(empty):
        some = ", ".join(map(str, empty[:8])) + (" ..." if len(empty) > 8 else "")
        raise DataError(
            f"{folder / TRAIN}: no {kind}image of {len(empty)} of {CLASSES} classes: {some}"
        )


def _unusable(bad: Bad, folder: Path) -> str:
    cure = (
        f"The lists are those of {LISTS_PAGE}, the images those of {IMAGES_PAGE}.\nMend them, or go on without these "
        "lines: --skip-bad."
    )
    return problems(bad, f"{folder}: {len(bad)} line(s) of its lists cannot be used", cure)
