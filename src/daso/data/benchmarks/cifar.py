"""CIFAR-10 and CIFAR-100 as published: Python pickles in a folder, or in the archive itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from daso.data.benchmarks.locate import find_folder
from daso.data.benchmarks.unpickle import load_dictionary
from daso.data.images.decoded import DecodedImages
from daso.data.source import Source, check_labels
from daso.data.tar_files import members, open_tar, read_member
from daso.errors import DataError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
LARGEST = 2**29
"""Maximum bytes of a file, or of an archive's content."""


@dataclass(frozen=True)
class CifarLayout:
    """The folder, files and keys of a CIFAR data set, and its published normalization."""

    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_key: str
    names_key: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def batches(self) -> tuple[str, ...]:
        return (*self.train, self.test)


CIFAR10 = CifarLayout(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    label_key="labels",
    names_key="label_names",
    class_names=CIFAR10_CLASSES,
    mean=CIFAR10_MEAN,
    std=CIFAR10_STD,
)
CIFAR100 = CifarLayout(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    label_key="fine_labels",
    names_key="fine_label_names",
    class_names=tuple(map(str, range(100))),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def locate_cifar(path: Path, layout: CifarLayout) -> Path:
    """Return the folder of batches (*path* or its published subfolder), or the .tar.gz."""
    if path.is_file():
        return path
    try:
        return find_folder(path, layout.folder, layout.batches)
    except DataError as error:
        if (path / layout.archive).is_file():
            return path / layout.archive
        raise DataError(f"{error} (and no {layout.archive})") from None


def read_cifar(path: Path, layout: CifarLayout) -> Source:
    """Read CIFAR-10 or CIFAR-100 (fine labels): 50,000 and 10,000 RGB 32 x 32 images.

    *path* is the folder of pickles, its parent, or the published .tar.gz, which is not unpacked.
    """
    path = locate_cifar(path, layout)
    batches: dict[str, DecodedImages] = {}
    class_names = layout.class_names
    for name, content, where in _contents(path, layout):
        values = load_dictionary(content, where)
        if name == layout.meta:
            class_names = _class_names(values, layout, where)
        else:
            batches[name] = _batch(values, layout, where)
    missing = [f"{layout.folder}/{name}" for name in layout.batches if name not in batches]
    if missing:
        raise DataError(f"{path}: missing {', '.join(missing)}")
    train = [batches.pop(name) for name in layout.train]
    return Source(
        name=layout.name,
        class_names=class_names,
        train=DecodedImages(
            np.concatenate([batch.images for batch in train]),
            np.concatenate([batch.labels for batch in train]),
        ),
        test=batches[layout.test],
        mean=layout.mean,
        std=layout.std,
    )


def archive_layout(path: Path) -> CifarLayout:
    """Return which CIFAR a .tar.gz holds, by the folder of its first entry."""
    with open_tar(str(path)) as archive:
        first = archive.next()
    top = PurePosixPath(first.name).parts[0] if first and first.name else ""
    for layout in (CIFAR10, CIFAR100):
        if top == layout.folder:
            return layout
    raise DataError(
        f"{path}: begins with {top or 'nothing'!r}, not with {CIFAR10.folder} or "
        f"{CIFAR100.folder}; unpack any archive that is not CIFAR's"
    )


def _contents(path: Path, layout: CifarLayout) -> Iterator[tuple[str, bytes, str]]:
    names = (layout.meta, *layout.batches)
    if path.is_file():
        size = 0
        with open_tar(str(path)) as archive:
            for member in members(archive):
                size += member.size
                if size > LARGEST:
                    raise DataError(f"{path}: unpacks to over {LARGEST:,} bytes; fetch it again")
                parts, where = PurePosixPath(member.name).parts, f"{path}, {member.name}"
                if len(parts) != 2 or parts[0] != layout.folder or parts[1] not in names:
                    continue
                if not member.isreg():
                    raise DataError(f"{where}: not a regular file")
                yield parts[1], read_member(archive, member), where
        return
    for file in (path / name for name in names):
        if not file.is_file():
            continue
        if file.stat().st_size > LARGEST:
            raise DataError(f"{file}: larger than {LARGEST:,} bytes; fetch it again")
        yield file.name, file.read_bytes(), str(file)


def _batch(values: dict[str, object], layout: CifarLayout, where: str) -> DecodedImages:
    data = values.get("data")
    if not isinstance(data, np.ndarray):
        raise DataError(f"{where}: 'data' must be an array, found {type(data).__name__}")
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        found = f"{data.dtype} {data.shape}"
        raise DataError(f"{where}: 'data' must be uint8 of shape (N, 3072), found {found}")
    if layout.label_key not in values:
        raise DataError(f"{where}: no {layout.label_key!r} in it, only {', '.join(sorted(values))}")
    try:
        labels = np.array(values[layout.label_key])
    except ValueError:  # lists of several lengths
        labels = np.empty((0, 0))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: the labels must be a list of integers")
    if len(labels) != len(data):
        raise DataError(f"{where}: {len(data)} images, but {len(labels)} labels")
    labels = labels.astype(np.int64)
    check_labels(labels, len(layout.class_names), f"{where}:")
    return DecodedImages(np.ascontiguousarray(data).reshape(-1, 3, 32, 32), labels)


def _class_names(values: dict[str, object], layout: CifarLayout, where: str) -> tuple[str, ...]:
    stored = values.get(layout.names_key)
    if isinstance(stored, list | tuple) and all(isinstance(name, bytes | str) for name in stored):
        names = tuple(
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            for name in stored
        )
        if len(set(names)) == len(layout.class_names):
            return names
    raise DataError(
        f"{where}: {layout.names_key!r} must list {len(layout.class_names)} different class names; "
        "fetch the file again"
    )
