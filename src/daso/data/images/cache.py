"""A folder that keeps decoded images: decoded once, and read from there by every training after."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.duplicates import digest
from daso.data.images.decode import decode
from daso.data.images.encoded import EncodedImages, Layout, quiet, work_through
from daso.data.images.image_file import DIGEST_BYTES, ImageFile
from daso.errors import DataError
from daso.files import lock_holder, save_json, try_lock, write_atomically

VERSION = 1
BLOCK_BYTES = 2**24
"""Images are written, flushed and entered into the journal about so many bytes at a time."""
IMAGES, DIGESTS, JOURNAL, SEAL = "images.u8", "digests.u8", "journal.jsonl", "complete.json"
SILENCE = 1.0
"""Seconds that a process waits for another one without a word."""
LOOK = 0.05
"""Seconds between two looks whether it is done."""

Bad = dict[int, str]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """Where decoded images are kept.

    A pool has a folder of its own in it, called by a digest of what its files are (name, size, time of change) and of
    the shape. It holds ``images.u8``, uint8 (N, C, H, W) in C order; ``digests.u8``, 16 bytes of each image;
    ``journal.jsonl``, a line for each block of images that is there, with its checksum; and, once all are,
    ``complete.json``. A process that is killed loses one block. A file that is not as it was left is gone through
    block by block, and what fails its checksum is decoded again.

    Attributes:
        folder: made where it is not there.
        progress: is told the part, images done and images in all.
    """

    folder: Path
    progress: Callable[[str, int, int], None] | None = None

    def decode(self, part: str, pool: EncodedImages, layout: Layout) -> tuple[ImageFile, Bad]:
        """Return the decoded images of a pool, and why those that cannot be read cannot; these are black.

        Args:
            part: of the data set, for *progress*.
            pool: what to decode.
            layout: the shape, with its channels.

        Raises:
            DataError: the disk is full, or the folder cannot be written.
        """
        assert layout.channels is not None
        shape = (len(pool), layout.channels, layout.height, layout.width)
        folder = self.folder / _key(pool, layout)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone_in(folder):
                kept = _Kept(folder, shape)
                if not kept.complete:
                    self._fill(kept, part, pool, layout)
                return ImageFile(folder / IMAGES, shape, kept.digests()), kept.bad()
        except OSError as error:
            raise DataError(
                f"cannot keep decoded images in {folder}: {error.strerror or error}; what is there is used next time"
            ) from error

    def _fill(self, kept: _Kept, part: str, pool: EncodedImages, layout: Layout) -> None:
        count, rows = len(pool), kept.rows
        kept.begin()
        work = partial(_decode, layout=layout)
        block: dict[int, npt.NDArray[np.uint8] | str] = {}
        with quiet():
            answers = enumerate(work_through(pool, work, _Done(kept.done, rows)))
            for index, answer in answers:
                if not isinstance(answer, str) or answer:
                    block[index] = answer
                if (index + 1) % rows == 0 or index + 1 == count:
                    number = index // rows
                    if number not in kept.done:
                        kept.write(number, block)
                    block = {}
                    if self.progress is not None:
                        self.progress(part, index + 1, count)
        kept.seal()


@dataclass(frozen=True)
class _Done:
    """The images of the blocks that are there, as a container."""

    blocks: dict[int, Bad]
    rows: int

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index // self.rows in self.blocks


class _Kept:
    """The files of one pool, and which blocks of them are there.

    Attributes:
        rows: images of a block.
        done: by its number, of each block that is there, its images that cannot be read.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.size = int(np.prod(shape[1:]))
        self.rows = max(1, BLOCK_BYTES // self.size)
        self.done = self._journal()

    @property
    def complete(self) -> bool:
        """Whether all blocks are there."""
        return len(self.done) == -(-self.shape[0] // self.rows)

    def bad(self) -> Bad:
        """Return why images cannot be read."""
        return {index: reason for block in self.done.values() for index, reason in block.items()}

    def digests(self) -> npt.NDArray[np.uint8]:
        """Return the digests of all images, (N, 16)."""
        return np.fromfile(self.folder / DIGESTS, dtype=np.uint8).reshape(-1, DIGEST_BYTES)

    def begin(self) -> None:
        """Make the files as large as they get.

        Raises:
            DataError: the disk has not so much room.
        """
        (self.folder / SEAL).unlink(missing_ok=True)
        sizes = {IMAGES: self.shape[0] * self.size, DIGESTS: self.shape[0] * DIGEST_BYTES}
        there = sum(len(self._range(number)) for number in self.done) * self.size
        free = shutil.disk_usage(self.folder).free
        if sum(sizes.values()) - there > free:
            height, width = self.shape[2:]
            raise DataError(
                f"{self.folder}: {self.shape[0]:,} decoded images of {width} x {height} pixels take "
                f"{sum(sizes.values()) / 1e9:,.1f} GB, and the disk has {free / 1e9:,.1f} GB left; give a smaller "
                "--size, or another folder as --cache"
            )
        for name, size in sizes.items():
            with (self.folder / name).open("ab") as file:
                file.truncate(size)
        write_atomically(
            self.folder / JOURNAL, b"".join(_line(n, *self._entries[n]) for n in self.done)
        )

    def write(self, number: int, block: dict[int, npt.NDArray[np.uint8] | str]) -> None:
        """Write a block and, once it is on the disk, enter it into the journal."""
        where = self._range(number)
        images = np.zeros((len(where), *self.shape[1:]), dtype=np.uint8)
        digests = np.zeros((len(where), DIGEST_BYTES), dtype=np.uint8)
        bad: Bad = {}
        for index, answer in block.items():
            if isinstance(answer, str):
                bad[index] = answer
            else:
                images[index - where.start] = answer
                digests[index - where.start] = np.frombuffer(digest(answer), dtype=np.uint8)
        for name, content, size in ((IMAGES, images, self.size), (DIGESTS, digests, DIGEST_BYTES)):
            with (self.folder / name).open("r+b") as file:
                file.seek(where.start * size)
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
        entry = (_checksum(images, digests), bad)
        with (self.folder / JOURNAL).open("ab") as file:
            file.write(_line(number, *entry))
            file.flush()
            os.fsync(file.fileno())
        self.done[number] = bad

    def seal(self) -> None:
        """Note how the files are now that all blocks are there."""
        save_json(self.folder / SEAL, self._state())

    def _range(self, number: int) -> range:
        return range(number * self.rows, min((number + 1) * self.rows, self.shape[0]))

    def _state(self) -> dict[str, Any]:
        stats = {name: (self.folder / name).stat() for name in (IMAGES, DIGESTS, JOURNAL)}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in stats.items()}

    def _journal(self) -> dict[int, Bad]:
        """Return the blocks that are there: those of the journal, checked if the files are not as they were left."""
        self._entries: dict[int, tuple[str, Bad]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / JOURNAL).read_bytes().splitlines():
                with contextlib.suppress(
                    ValueError, KeyError, TypeError, AttributeError
                ):  # cut by a power failure
                    entry = json.loads(line)
                    bad = {int(index): str(reason) for index, reason in entry["bad"].items()}
                    if 0 <= entry["block"] * self.rows < self.shape[0]:
                        self._entries[entry["block"]] = (str(entry["checksum"]), bad)
        with contextlib.suppress(OSError, ValueError):
            if json.loads((self.folder / SEAL).read_bytes()) == self._state():
                return {number: bad for number, (_, bad) in self._entries.items()}
        return {
            number: bad
            for number, (checksum, bad) in self._entries.items()
            if self._holds(number, checksum)
        }

    def _holds(self, number: int, checksum: str) -> bool:
        where = self._range(number)
        parts = []
        for name, size in ((IMAGES, self.size), (DIGESTS, DIGEST_BYTES)):
            try:
                with (self.folder / name).open("rb") as file:
                    file.seek(where.start * size)
                    parts.append(np.frombuffer(file.read(len(where) * size), dtype=np.uint8))
            except OSError:
                return False
        return _checksum(*parts) == checksum


def _decode(source: Path | bytes, layout: Layout) -> npt.NDArray[np.uint8]:
    image = decode(source, channels=layout.channels, size=layout.square)
    if image.shape[1:] != (layout.height, layout.width):
        raise DataError(
            f"has {image.shape[2]} x {image.shape[1]} pixels, the first labelled image {layout.width} x "
            f"{layout.height}; --size N makes them alike"
        )
    return image


def _key(pool: EncodedImages, layout: Layout) -> str:
    """Return the name of a pool's folder."""
    shape = (len(pool), layout.channels, layout.height, layout.width, layout.square)
    key = hashlib.blake2b(repr((VERSION, *shape)).encode(), digest_size=16)
    for origin in pool.origins():
        key.update(origin.encode(errors="surrogateescape") + b"\0")
    return key.hexdigest()


def _checksum(*parts: npt.NDArray[np.uint8]) -> str:
    checksum = hashlib.blake2b(digest_size=16)
    for part in parts:
        checksum.update(part.data)
    return checksum.hexdigest()


def _line(number: int, checksum: str, bad: Bad) -> bytes:
    return (json.dumps({"block": number, "checksum": checksum, "bad": bad}) + "\n").encode()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process is at a pool's folder: what that one decodes need not be decoded again.

    A wait of more than ``SILENCE`` is told, with whom it is for.
    """
    with (folder / ".lock").open("ab+", buffering=0) as lock:
        asked = time.monotonic()
        told = False
        while not try_lock(lock):
            if not told and time.monotonic() - asked >= SILENCE:
                holder = lock_holder(lock) or "unknown"
                logger.warning(
                    "waiting for another process (%s), which decodes images into %s", holder, folder
                )
                told = True
            time.sleep(LOOK)
        yield
