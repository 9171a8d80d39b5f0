"""Fashion-MNIST, and other data sets in the same IDX files, gzipped or not."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from daso.data.benchmarks.locate import find_folder
from daso.data.class_names import counted_from_zero, numbered_names
from daso.data.images.decoded import DecodedImages
from daso.data.source import Source, refuse_empty_classes
from daso.errors import DataError

FILES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
LARGEST = 2**30
"""Maximum bytes of an unpacked file."""
CHUNK = 2**20


def locate_idx(folder: Path) -> Path:
    """Return *folder*, or ``raw`` in it, whichever holds the four IDX files."""
    return find_folder(folder, "raw", FILES, has=_file)


def read_fashion_mnist(folder: Path) -> Source:
    """Read Fashion-MNIST: 60,000 and 10,000 gray 28 x 28 images of 10 classes."""
    train, test = _train_and_test(locate_idx(folder))
    return Source("fashion-mnist", FASHION_CLASSES, train, test=test)


def read_idx(folder: Path) -> Source:
    """Read a data set in MNIST's four IDX files; classes are numbers, images are not flipped."""
    name, folder = folder.resolve().name, locate_idx(folder)
    parts = _train_and_test(folder)
    names = numbered_names([part.labels for part in parts], str(folder))
    train, test = (replace(part, labels=counted_from_zero(part.labels, names)) for part in parts)
    refuse_empty_classes(train.labels, names, str(folder))
    return Source(name, names, train, test=test, flip=False)


def _train_and_test(folder: Path) -> tuple[DecodedImages, DecodedImages]:
    return _labeled(folder, *FILES[:2]), _labeled(folder, *FILES[2:])


def _labeled(folder: Path, images_name: str, labels_name: str) -> DecodedImages:
    images_path, labels_path = _file(folder, images_name), _file(folder, labels_name)
    assert images_path is not None  # locate_idx found both
    assert labels_path is not None
    images, labels = read_idx_file(images_path, 3), read_idx_file(labels_path, 1)
    if len(images) != len(labels) or not images.size:
        raise DataError(
            f"{images_path} has {len(images)} images {images.shape[1:]}, {labels_path} "
            f"{len(labels)} labels; the numbers must agree and not be 0"
        )
    return DecodedImages(images[:, None], labels.astype(np.int64))


def _file(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz")
    return next((folder / one for one in names if (folder / one).is_file()), None)


def read_idx_file(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not, with a number of dimensions."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if packed else raw
            return _parse(stream, path, dimensions)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}; fetch the file again") from error


def _parse(stream: IO[bytes], path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    header = stream.read(4 + 4 * dimensions)
    magic = bytes((0, 0, 8, dimensions))
    if header[:4] != magic:
        raise DataError(
            f"{path}: begins with {header[:4].hex() or 'nothing'}; an IDX file of unsigned bytes "
            f"in {dimensions} dimension(s) begins with {magic.hex()}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: ends within its header; fetch the file again")
    shape = tuple(int(length) for length in np.frombuffer(header, dtype=">u4", offset=4))
    promised = math.prod(shape)
    if promised > LARGEST:
        raise DataError(f"{path}: its header promises {promised:,} bytes; the limit is {LARGEST:,}")
    content = bytearray()
    while len(content) < promised and (chunk := stream.read(min(CHUNK, promised - len(content)))):
        content += chunk
    if len(content) < promised or stream.read(1):
        size = "more" if len(content) == promised else f"{len(content):,}"
        raise DataError(f"{path}: its header promises {promised:,} bytes {shape}, it has {size}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
