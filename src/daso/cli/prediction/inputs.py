"""List the inputs of ``daso predict`` one by one: files, folders, globs, lists and arrays."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.formats.arrays import refuse_one_image
from daso.data.formats.image_walk import leads_to_folder
from daso.data.formats.manifest_rows import SUFFIXES as LISTS
from daso.data.formats.manifest_rows import read_paths, where
from daso.data.formats.passed_over import PassedOver
from daso.data.images.decode import SUFFIXES as IMAGES
from daso.data.images.encoded import content_digest, origin_of
from daso.data.listing import is_hidden
from daso.errors import DataError

STDIN = "-"
LIST = ".txt"
ARRAYS = frozenset({".npy", ".npz"})
ARRAY_NAMES = ("images", "X", "x", "features", "embeddings", "vectors")


@dataclass(frozen=True)
class Input:
    """One image or vector to classify.

    Attributes:
        name: its name in the output.
        value: a file, an array of an image or a vector, or the reason why it cannot be read.
    """

    name: str
    value: Path | npt.NDArray[Any] | DataError

    def origin(self) -> str:
        """Return a text that changes when the input does; that of a file needs no reading."""
        if isinstance(self.value, Path):
            return origin_of(self.value)
        return self.checksum()

    def checksum(self) -> str:
        """Return a digest of the content, or why there is none."""
        if isinstance(self.value, DataError):
            return str(self.value)
        content = self.value if isinstance(self.value, Path) else self.value.tobytes()
        try:
            return content_digest(content).hex()
        except DataError as error:
            return str(error)


class Inputs:
    """The inputs named on the command line; every iteration starts again from the first.

    Args:
        places: files, folders, globs, manifests, ``.txt`` lists of files, one a line, ``.npy`` and
            ``.npz`` files of arrays; ``-`` reads such a list from standard input, and can be
            iterated only once.

    Attributes:
        passed: files of folders that the last iteration passed over.
        several: names of files that turned out to hold further frames or pages.

    Raises:
        DataError: a place does not exist, or matches nothing.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self.passed = PassedOver()
        self.several: list[str] = []
        self.places: list[str] = []
        for place in places:
            if place == STDIN or _is_there(place):
                self.places.append(place)
                continue
            pattern = glob.has_magic(place)
            matches = sorted(glob.iglob(place, recursive=True)) if pattern else []  # noqa: PTH207
            if not matches:
                what = "matches no file" if pattern else "does not exist"
                raise DataError(f"{place} {what}")
            # A folder holds what ** names within it.
            folders = {str(Path(match)) for match in matches if Path(match).is_dir()}
            self.places += [m for m in matches if folders.isdisjoint(map(str, Path(m).parents))]

    def count(self) -> int | None:
        """Return the number of inputs; None if standard input is among them."""
        return None if STDIN in self.places else sum(1 for _ in self)

    def refuse_one_image(self, expected: tuple[int, ...]) -> None:
        """Refuse arrays that read like one image for a model of images of a shape (C, H, W)."""
        for place in map(Path, self.places):
            if place.suffix.lower() in ARRAYS and place.is_file():
                with _errors_of(place):
                    refuse_one_image(_stored(place).shape, expected, f"{place}: an array")

    def __iter__(self) -> Iterator[Input]:
        self.passed.kinds.clear()
        for place in self.places:
            path = Path(place)
            suffix = path.suffix.lower()
            if place == STDIN:
                yield from _listed(sys.stdin.buffer, "standard input", Path())
            elif path.is_dir():
                yield from _not_empty(place, _images_below(place, set(), self.passed))
            elif suffix in LISTS:
                yield from _not_empty(place, _manifest(path))
            elif suffix == LIST:
                with _errors_of(path), path.open("rb") as lines:
                    yield from _not_empty(place, _listed(lines, place, path.parent))
            elif suffix in ARRAYS:
                yield from _not_empty(place, _arrays(path, self.passed))
            else:
                yield Input(place, path)


def _is_there(place: str) -> bool:
    """Whether a path exists; a ``PermissionError`` is raised if that cannot be known."""
    try:
        os.lstat(place)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False
    return True


def _not_empty(place: str, inputs: Iterator[Input]) -> Iterator[Input]:
    """Yield the inputs of a place, or one that says that there are none."""
    first = next(inputs, None)
    if first is None:
        suffixes = ", ".join(sorted(IMAGES))
        yield Input(place, DataError(f"no image in it; recognized suffixes: {suffixes}"))
    else:
        yield first
        yield from inputs


def _images_below(
    folder: str, parents: set[tuple[int, int]], passed: PassedOver
) -> Iterator[Input]:
    """Yield the images of a folder at any depth, sorted by path.

    Links are followed, except back to one of *parents*, the device and inode of each folder above.
    Files with other endings, and what is hidden, are counted in *passed*.
    """
    try:
        status = Path(folder).stat()
        with os.scandir(folder) as entries:
            names = [(entry.name, leads_to_folder(entry)) for entry in entries]
    except OSError as error:
        yield Input(folder, DataError(f"the folder cannot be read: {error.strerror or error}"))
        return
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    names.sort(key=lambda entry: entry[0] + os.sep * entry[1])
    for name, is_folder in names:
        path = os.path.join(folder, name)  # noqa: PTH118 - faster for a million of them
        if is_folder and is_hidden(name):
            passed.add("hidden folders", path)
        elif is_folder:
            yield from _images_below(path, parents | {identity}, passed)
        elif os.path.splitext(name)[1].lower() in IMAGES and not name.startswith("."):  # noqa: PTH122
            yield Input(path, Path(path))
        else:
            passed.add_file(path)


def _listed(lines: Iterable[bytes], place: str, folder: Path) -> Iterator[Input]:
    """Yield the files of a list, one a line; their paths are relative to *folder*."""
    for number, line in enumerate(lines):
        if not number and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"the list of {place} is UTF-16; write it as UTF-8")
        name = os.fsdecode(line.removeprefix(b"" if number else b"\xef\xbb\xbf").rstrip(b"\r\n"))
        if name:
            yield Input(name, folder / name)


def _manifest(file: Path) -> Iterator[Input]:
    for line, name in read_paths(file):
        if isinstance(name, str) and any("\ud800" <= character <= "\udfff" for character in name):
            name = DataError(f"{name!a} is not a valid path: it holds half a character")
        if isinstance(name, DataError):
            yield Input(where(file, line), name)
        else:
            yield Input(name, file.parent / name)


def _arrays(file: Path, passed: PassedOver) -> Iterator[Input]:
    with _errors_of(file):
        stored = _stored(file, passed)
        for index in range(len(stored)):
            row = np.asarray(stored[index])
            if row.ndim == 3 and row.shape[0] in (1, 3) and row.shape[2] not in (1, 3):
                row = row.transpose(1, 2, 0)
            yield Input(f"{file}[{index}]", row)


def _stored(file: Path, passed: PassedOver | None = None) -> npt.NDArray[Any]:
    stored: Any = np.load(file, mmap_mode="r", allow_pickle=False)
    if not isinstance(stored, np.ndarray):
        with stored:
            name = next((n for n in ARRAY_NAMES if n in stored.files), None)
            if name is None and len(stored.files) != 1:
                raise DataError(
                    f"{file} holds {', '.join(stored.files)}; rename one to {ARRAY_NAMES[0]!r}"
                )
            name = name or stored.files[0]
            for other in stored.files:
                if passed is not None and other != name:
                    passed.add("arrays", f"{file}: {other}")
            stored = stored[name]
    if stored.ndim < 2:
        raise DataError(
            f"{file} holds an array {stored.shape}; it must be images (N, H, W, C) or vectors "
            "(N, D)"
        )
    images: npt.NDArray[Any] = stored
    return images


@contextlib.contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, RuntimeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
