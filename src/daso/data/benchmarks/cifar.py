"""CIFAR-10 and CIFAR-100 as published: Python pickles in a folder, or in the archive itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from daso.data.benchmarks.archive import first_folder, regular_members
from daso.data.benchmarks.unpickle import load_dictionary
from daso.data.source import Images, Source
from daso.errors import DataError

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
LARGEST = 2**29
"""A file, or an archive in all, of more bytes is refused."""


@dataclass(frozen=True)
class CifarLayout:
    """Where a CIFAR keeps what: its folder, files and keys, and its published normalisation."""

    name: str
    folder: str
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
        """The files that must be there; the meta file may be missing."""
        return (*self.train, self.test)


CIFAR10 = CifarLayout(
    name="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    label_key="labels",
    names_key="label_names",
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    mean=CIFAR10_MEAN,
    std=CIFAR10_STD,
)
CIFAR100 = CifarLayout(
    name="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    meta="meta",
    label_key="fine_labels",
    names_key="fine_label_names",
    class_names=tuple(str(label) for label in range(100)),
    mean=CIFAR100_MEAN,
    std=CIFAR100_STD,
)


def locate_cifar(path: Path, layout: CifarLayout) -> Path:
    """Return the folder of batches (*path* or its published subfolder) or the .tar.gz (*path* or in it).

    Raises:
        DataError: files are missing; the message names them.
    """
    if path.is_file():
        return path
    for candidate in (path, path / layout.folder):
        if all((candidate / name).is_file() for name in layout.batches):
            return candidate
    archive = path / archive_name(layout)
    if archive.is_file():
        return archive
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    folder = path / layout.folder if (path / layout.folder).is_dir() else path
    missing = ", ".join(name for name in layout.batches if not (folder / name).is_file())
    raise DataError(f"{folder}: missing {missing} (nor is there {archive.name})")


def archive_name(layout: CifarLayout) -> str:
    """Return the name under which the data set is published."""
    return "cifar-10-python.tar.gz" if layout is CIFAR10 else "cifar-100-python.tar.gz"


def read_cifar(path: Path, layout: CifarLayout) -> Source:
    """Read CIFAR-10 or CIFAR-100 (fine labels): RGB 32 x 32, 50,000 to train with and 10,000 to test with.

    Args:
        path: the folder of pickles, its parent, or the published .tar.gz, which is read without unpacking.
        layout: ``CIFAR10`` or ``CIFAR100``.

    Raises:
        DataError: a file is missing or damaged, or a pickle asks for more than numpy arrays and plain values.
    """
    path = locate_cifar(path, layout)
    pools: dict[str, Images] = {}
    class_names = layout.class_names
    for name, content, where in _contents(path, layout):
        values = load_dictionary(content, where)
        if name == layout.meta:
            class_names = _class_names(values, layout, where)
        else:
            pools[name] = _batch(values, layout, where)
    missing = [name for name in layout.batches if name not in pools]
    if missing:
        raise DataError(
            f"{path}: missing {', '.join(f'{layout.folder}/{name}' for name in missing)}"
        )
    train = [pools.pop(name) for name in layout.train]
    return Source(
        name=layout.name,
        class_names=class_names,
        train=Images(
            np.concatenate([pool.images for pool in train]),
            np.concatenate([pool.labels for pool in train]),
        ),
        test=pools[layout.test],
        mean=layout.mean,
        std=layout.std,
    )


def read_cifar10(path: Path) -> Source:
    """Read CIFAR-10; see ``read_cifar``."""
    return read_cifar(path, CIFAR10)


def read_cifar100(path: Path) -> Source:
    """Read CIFAR-100 with its 100 fine labels; see ``read_cifar``."""
    return read_cifar(path, CIFAR100)


def archive_layout(path: Path) -> CifarLayout:
    """Tell which CIFAR a .tar.gz holds, by the folder of its first entry.

    Raises:
        DataError: neither, or the archive is damaged.
    """
    top = first_folder(path, LARGEST)
    for layout in (CIFAR10, CIFAR100):
        if top == layout.folder:
            return layout
    raise DataError(
        f"{path}: begins with {top or 'nothing'!r}, not with {CIFAR10.folder} or "
        f"{CIFAR100.folder}; only the two published CIFAR archives are read, unpack any other"
    )


def _contents(path: Path, layout: CifarLayout) -> Iterator[tuple[str, bytes, str]]:
    wanted = (layout.meta, *layout.batches)
    if path.is_dir():
        for name in wanted:
            file = path / name
            if not file.is_file():
                continue
            if file.stat().st_size > LARGEST:
                raise DataError(
                    f"{file}: larger than any CIFAR file ({LARGEST:,} bytes); fetch it again"
                )
            yield name, file.read_bytes(), str(file)
        return
    for name, content in regular_members(path, layout.folder, wanted, LARGEST):
        yield name, b"".join(content), f"{path}, {layout.folder}/{name}"


def _batch(values: dict[str, object], layout: CifarLayout, where: str) -> Images:
    data = values.get("data")
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != 3072
    ):
        found = (
            f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        )
        raise DataError(f"{where}: 'data' must be uint8 of shape (N, 3072), found {found}")
    if layout.label_key not in values:
        raise DataError(f"{where}: no {layout.label_key!r} in it, only {', '.join(sorted(values))}")
    labels = _labels(values[layout.label_key], where)
    if len(labels) != len(data):
        raise DataError(f"{where}: {len(data)} images, but {len(labels)} labels")
    bad = np.flatnonzero((labels < 0) | (labels >= len(layout.class_names)))
    if len(bad):
        raise DataError(
            f"{where}: label {labels[bad[0]]} at index {bad[0]}; must be 0 to {len(layout.class_names) - 1}"
        )
    return Images(np.ascontiguousarray(data).reshape(-1, 3, 32, 32), labels)


def _labels(value: object, where: str) -> npt.NDArray[np.int64]:
    if isinstance(value, list | tuple) and all(type(label) is int for label in value):
        try:
            return np.array(value, dtype=np.int64)
        except OverflowError:
            pass
    elif isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu":
        return value.astype(np.int64)
    raise DataError(f"{where}: the labels must be a list of integers")


def _class_names(values: dict[str, object], layout: CifarLayout, where: str) -> tuple[str, ...]:
    found = values.get(layout.names_key)
    if isinstance(found, list | tuple) and all(isinstance(name, bytes | str) for name in found):
        names = tuple(
            n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in found
        )
        if len(set(names)) == len(layout.class_names):
            return names
    raise DataError(
        f"{where}: {layout.names_key!r} must list {len(layout.class_names)} different class names; "
        "fetch the file again"
    )
