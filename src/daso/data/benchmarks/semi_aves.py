"""Semi-Aves as published: lists of bird images, with unlabeled birds of other species."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from daso.data.benchmarks.locate import find_folder
from daso.data.class_names import INTEGER
from daso.data.images.encoded import EncodedImages
from daso.data.listing import Listing, Reading
from daso.data.read_listing import read_listing
from daso.data.source import UNLABELED, Source
from daso.errors import DataError, problems

FOLDER = "semi_aves"
CLASSES = 200
SIDE = 224
TRAIN, TEST = "l_train_val.txt", "test.txt"
IN_CLASS, OUT_OF_CLASS, TRUTH = "u_train_in.txt", "u_train_out.txt", "u_train_in_oracle.txt"
NAMES_FILE = "semi_aves_species_names.txt"
LISTS_PAGE = "https://github.com/cvl-umass/ssl-evaluation (data/semi_aves)"
IMAGES_PAGE = "https://github.com/cvl-umass/semi-inat-2020"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN, MAYBE, ANY = range(CLASSES), range(UNLABELED, CLASSES), range(UNLABELED, 2**31)
"""Valid labels of labeled images, of unlabeled ones, and of other species."""

Bad = list[tuple[str, str]]
"""File and line of unusable entries, and the reason."""


def locate_semi_aves(folder: Path, *, open_set: bool = False) -> Path:
    """Return *folder*, or ``semi_aves`` in it, whichever holds the list files."""
    names = [TRAIN, IN_CLASS, TEST, *([OUT_OF_CLASS] if open_set else [])]
    return find_folder(folder, FOLDER, names)


def read_semi_aves(folder: Path, reading: Reading, *, open_set: bool = False) -> Source:
    """Read Semi-Aves: 5,959 labeled, 8,000 test and 26,640 unlabeled images of 200 bird species.

    Su, Maji: *The Semi-Supervised iNaturalist-Aves Challenge at FGVC7 Workshop*, 2021, arXiv
    2103.06937; the lists are those of Su, Cheng, Maji: *A Realistic Evaluation of Semi-Supervised
    Learning for Fine-Grained Classification*, CVPR 2021, arXiv 2104.00679. Training and validation
    images together are the labeled ones, as in the DASO paper. A line of a list is an image's path
    in *folder* and its label, 0 to 199, or -1 for unknown.

    The normalization is ImageNet's. If ``u_train_in_oracle.txt`` is beside the lists, the unlabeled
    images get its species, for evaluation.

    Args:
        folder: folder of the list files and the image folders, or its parent.
        reading: see ``open_source``; without a size, the central square is resized to 224 pixels.
        open_set: add the 122,208 images of other species, without labels, to the unlabeled ones.
    """
    folder = locate_semi_aves(folder, open_set=open_set)
    bad: Bad = []
    images = {
        "train": _read_list(folder, TRAIN, KNOWN, bad),
        "unlabeled": _read_list(folder, IN_CLASS, MAYBE, bad),
        "test": _read_list(folder, TEST, KNOWN, bad),
    }
    truth = {name: label for _, name, label in _entries(folder / TRUTH, MAYBE, bad)}
    images["unlabeled"] = {
        name: truth.get(name, UNLABELED) if label == UNLABELED else label
        for name, label in images["unlabeled"].items()
    }
    if open_set:
        images["unlabeled"] |= dict.fromkeys(_read_list(folder, OUT_OF_CLASS, ANY, bad), UNLABELED)
    if bad and not reading.skip_bad:
        cure = (
            f"The lists are those of {LISTS_PAGE}, the images those of {IMAGES_PAGE}.\n"
            "Correct them, or leave these lines out: --skip-bad."
        )
        what = f"{folder}: {len(bad)} line(s) of its lists cannot be used"
        raise DataError(problems(bad, what, cure))
    listing = Listing(
        name="semi-aves-open" if open_set else "semi-aves",
        where=str(folder / TRAIN),
        class_names=_class_names(folder),
        pools={
            part: EncodedImages.of_files([folder / name for name in labels], list(labels.values()))
            for part, labels in images.items()
        },
        skipped=tuple(bad),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        published=True,
        channels=3,
    )
    size = SIDE if reading.size is None else reading.size
    source = read_listing(listing, Reading(size, None, reading.skip_bad, reading.cache))
    for part in ("unlabeled", "test"):
        if getattr(source, part) is None:
            name, reason = next(iter(source.skipped[len(bad) :]))
            raise DataError(f"{folder}: no readable {part} image; {name}: {reason}")
    return source


def _read_list(folder: Path, list_name: str, labels: range, bad: Bad) -> dict[str, int]:
    images: dict[str, int] = {}
    found: set[Path] = set()
    first_bad = len(bad)
    for where, name, label in _entries(folder / list_name, labels, bad):
        top = folder / PurePosixPath(name).parts[0]
        if top != folder / name and top not in found:
            if not top.is_dir():
                what = f"{where}: names {name}, but there is no folder {top}"
                raise DataError(f"{what}; get its images from {IMAGES_PAGE}")
            found.add(top)
        if not (folder / name).is_file():
            bad.append((where, f"no image {name}"))
        elif name in images:
            bad.append((where, f"{name} is named twice"))
        else:
            images[name] = label
    if not images:
        reasons = [f"; {where}: {reason}" for where, reason in bad[first_bad:]]
        raise DataError(f"{folder / list_name}: names no existing image{''.join(reasons[:1])}")
    return images


def _entries(path: Path, labels: range, bad: Bad) -> Iterator[tuple[str, str, int]]:
    """Yield file and line, image and label of each usable line; nothing if there is no file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            name, label = (*line.rsplit(maxsplit=1), "")[:2]
            name = name.strip()
            if not INTEGER.fullmatch(label):
                bad.append((where, f"expected a path and a label, found {line.strip()[:80]!r}"))
            elif not _stays_inside(name):
                bad.append((where, f"the path {name[:80]!r} leads out of the folder"))
            elif int(label) not in labels:
                reason = f"label {int(label)} is out of range, {labels[0]} to {labels[-1]}"
                bad.append((where, reason))
            else:
                yield where, name, int(label)


def _stays_inside(name: str) -> bool:
    paths = PurePosixPath(name), PureWindowsPath(name)
    return all(path.parts and not path.anchor and ".." not in path.parts for path in paths)


def _class_names(folder: Path) -> tuple[str, ...]:
    for path in (folder / NAMES_FILE, folder.resolve().parent / NAMES_FILE):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
            pairs = [line.split() for line in lines if line.strip()]
            names = {pair[0]: pair[1].replace("_", " ") for pair in pairs if len(pair) == 2}
            if len(pairs) != CLASSES or names.keys() != {str(label) for label in range(CLASSES)}:
                labels = f"each label from 0 to {CLASSES - 1}"
                raise DataError(f"{path}: needs a line '0 Name' for {labels}")
            return tuple(names[str(label)] for label in range(CLASSES))
    return tuple(map(str, range(CLASSES)))
