"""STL-10 as published: binary files of 96 x 96 RGB images, 100,000 of them unlabeled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from daso.data.benchmarks.cifar import CIFAR10_MEAN, CIFAR10_STD
from daso.data.benchmarks.locate import find_folder
from daso.data.images.decoded import DecodedImages, unlabeled_images
from daso.data.source import Source
from daso.errors import DataError

FOLDER = "stl10_binary"
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin")
NAMES_FILE = "class_names.txt"
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SIDE = 96
IMAGE_BYTES = 3 * SIDE * SIDE


def locate_stl10(folder: Path) -> Path:
    """Return *folder*, or ``stl10_binary`` in it, whichever holds the five binary files."""
    return find_folder(folder, FOLDER, FILES)


def read_stl10(folder: Path) -> Source:
    """Read STL-10: 5,000 labeled, 8,000 test and 100,000 unlabeled images (3, 96, 96).

    The images are read-only views into the memory-mapped files. They are stored column by column
    and transposed here, so they are not contiguous. The normalization is CIFAR-10's, as in the
    published protocol.
    """
    folder = locate_stl10(folder)
    return Source(
        name="stl10",
        class_names=_class_names(folder / NAMES_FILE),
        train=_labeled(folder, "train"),
        test=_labeled(folder, "test"),
        unlabeled=unlabeled_images(_images(folder / "unlabeled_X.bin")),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )


def _labeled(folder: Path, part: str) -> DecodedImages:
    images, path = _images(folder / f"{part}_X.bin"), folder / f"{part}_y.bin"
    if path.stat().st_size != len(images):
        counts = f"{path.stat().st_size} labels, but {part}_X.bin has {len(images)} images"
        raise DataError(f"{path}: {counts}; fetch the files again")
    labels = np.fromfile(path, dtype=np.uint8)
    bad = np.flatnonzero((labels < 1) | (labels > len(CLASSES)))
    if len(bad):
        what = f"label {labels[bad[0]]} at index {bad[0]}"
        raise DataError(f"{path}: {what}; must be 1 to {len(CLASSES)}")
    return DecodedImages(images, labels.astype(np.int64) - 1)


def _images(path: Path) -> npt.NDArray[np.uint8]:
    size = path.stat().st_size
    if size == 0 or size % IMAGE_BYTES:
        raise DataError(
            f"{path}: {size:,} bytes are not a whole number of images of {IMAGE_BYTES:,} bytes; "
            "fetch the file again"
        )
    mapped = np.memmap(path, dtype=np.uint8, mode="r", shape=(size // IMAGE_BYTES, 3, SIDE, SIDE))
    return np.asarray(mapped).transpose(0, 1, 3, 2)


def _class_names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return CLASSES
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        names = tuple(stream.read(10_000).split())
    if len(set(names)) != len(CLASSES):
        found = list(names)[:20]
        raise DataError(f"{path}: must name {len(CLASSES)} different classes, found {found}")
    return names
