"""A folder of decoded images, which every later training reads."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.images.decode import Picture
from daso.data.images.decoded import digest
from daso.data.images.encoded import Encoded, EncodedImages, work_through
from daso.data.images.image_file import DIGEST_BYTES, ImageFile
from daso.data.images.layout import Layout
from daso.errors import DataError
from daso.files import (
    lock_holder,
    read_json,
    save_json,
    seal,
    to_line,
    try_lock,
    unseal,
    write_atomically,
)

VERSION = 3
"""Of what files decode to: raised when it changes, or old pixels would be used."""
BLOCK_BYTES = 2**24
"""Bytes of images that are written and entered into the journal together."""
IMAGES, DIGESTS, JOURNAL, SEAL = "images.u8", "digests.u8", "journal.jsonl", "complete.json"
IN_COLOR = "in_color.json"
"""File in place of the others where an image in color was found among what should be gray."""
LINE_CHECKSUM = "line_checksum"
"""Name of the checksum of a journal's line: it vouches for the reasons of unreadable images."""
WAIT_NOTICE_SECONDS = 1.0
"""A longer wait for another process is logged."""
POLL_SECONDS = 0.05

Reasons = dict[int, str]
"""Why images cannot be read, by index."""
Block = dict[int, Picture | str]
"""Decoded images, or why there is none, by index."""

logger = logging.getLogger(__name__)


class ColorFoundError(Exception):
    """An image that should be kept in gray, the argument, is in color."""


@dataclass(frozen=True)
class Cache:
    """Keeps decoded images on disk.

    Each part of a data set has its own folder, named by a digest of its files (``origin_of``) and
    the shape. It holds ``images.u8``, uint8 (N, C, H, W) in C order;
    ``digests.u8``, 16 bytes for each image; ``journal.jsonl``, a line with a checksum for each
    block of images; and ``complete.json`` once all blocks are there. A killed process loses one
    block. If a file has changed, its blocks are checked, and damaged ones are decoded again. A
    block with a file that could not be read is not entered, and decoded again the next time.

    Attributes:
        folder: created if missing.
        progress: called with the part, the images done and the total.
    """

    folder: Path
    progress: Callable[[str, int, int], None] | None = None

    def decode(
        self, part: str, images: EncodedImages, layout: Layout
    ) -> tuple[ImageFile, Reasons, list[int]]:
        """Return decoded images, black where unreadable, and the reasons of unreadable ones.

        The last value has the indices of those that come with further frames or pages.

        Of selected images all are kept of which they are a selection, so that another selection
        finds its own. *part* is passed on to ``progress``. The channels of *layout* must be known.

        Raises:
            ColorFoundError: *layout* is gray, and an image is not. Of the others nothing is kept.
            DataError: the disk is full, or the folder cannot be written.
        """
        assert layout.channels is not None
        if images.whole is not None:
            whole, chosen = images.whole
            decoded, reasons, several = self.decode(part, whole, layout)
            indices = list(enumerate(chosen.tolist()))
            some = {i: reasons[of] for i, of in indices if of in reasons}
            return decoded.select(chosen), some, [i for i, of in indices if of in set(several)]
        shape = (len(images), layout.channels, layout.height, layout.width)
        folder = self.folder / _key(images, layout)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                if (folder / IN_COLOR).exists():
                    raise ColorFoundError(
                        images.name_of(int(read_json(folder / IN_COLOR)["image"]))
                    )
                blocks = _Blocks(folder, shape)
                if not blocks.complete:
                    self._fill(blocks, part, images, layout)
                decoded = ImageFile(folder / IMAGES, shape, blocks.digests())
                return decoded, blocks.reasons(), blocks.several()
        except OSError as error:
            raise DataError(
                f"cannot keep decoded images in {folder}: {error.strerror or error}; images "
                "decoded so far are used next time"
            ) from error

    def _fill(self, blocks: _Blocks, part: str, images: EncodedImages, layout: Layout) -> None:
        count, rows = len(images), blocks.rows
        blocks.allocate()
        block: Block = {}
        read_as = dataclasses.replace(layout, channels=None) if layout.channels == 1 else layout

        def decode(source: Encoded) -> Picture | _Unread:
            try:
                return read_as.decode_picture(source)
            except DataError as error:
                cause = error.__cause__
                # Decoders raise an OSError without a number for damaged images.
                if isinstance(cause, MemoryError) or getattr(cause, "errno", None) is not None:
                    return _Unread(str(error))
                raise

        for index, result in enumerate(work_through(images, decode, blocks)):
            if not isinstance(result, str) and len(result.pixels) != layout.channels:
                blocks.replace_by_mark(index)
                raise ColorFoundError(images.name_of(index))
            block[index] = result
            if (index + 1) % rows == 0 or index + 1 == count:
                if index not in blocks:
                    blocks.write(index // rows, block)
                block = {}
                if self.progress is not None:
                    self.progress(part, index + 1, count)
        blocks.seal()


class _Unread(str):
    """Why a file could not be read this time, whatever its content."""


_Entry = tuple[str, Reasons, list[int]]


class _Blocks:
    """The files and blocks of one part; contains the indices of decoded images.

    Attributes:
        files: bytes of one image in each file.
        rows: images in a block.
        done: for each block by number, its checksum, its unreadable images and those that come with
            further frames or pages.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.size = int(np.prod(shape[1:]))
        self.files = {folder / IMAGES: self.size, folder / DIGESTS: DIGEST_BYTES}
        self.rows = max(1, BLOCK_BYTES // self.size)
        self.done: dict[int, _Entry] = self._journal()
        if not self._sealed():
            self.done = {n: entry for n, entry in self.done.items() if self._holds(n, entry[0])}

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index // self.rows in self.done

    @property
    def complete(self) -> bool:
        return len(self.done) == -(-self.shape[0] // self.rows)

    def reasons(self) -> Reasons:
        return {
            index: why for _, reasons, _ in self.done.values() for index, why in reasons.items()
        }

    def several(self) -> list[int]:
        return sorted(index for *_, several in self.done.values() for index in several)

    def digests(self) -> npt.NDArray[np.uint8]:
        return np.fromfile(self.folder / DIGESTS, dtype=np.uint8).reshape(-1, DIGEST_BYTES)

    def allocate(self) -> None:
        """Give the files their final sizes; raise a ``DataError`` if the disk lacks the space."""
        (self.folder / SEAL).unlink(missing_ok=True)
        needed = self.shape[0] * sum(self.files.values())
        written = sum(len(self._range(number)) for number in self.done) * self.size
        free = shutil.disk_usage(self.folder).free
        if needed - written > free:
            height, width = self.shape[2:]
            raise DataError(
                f"{self.folder}: {self.shape[0]:,} decoded images of {width} x {height} pixels "
                f"take {needed / 1e9:,.1f} GB; {free / 1e9:,.1f} GB are free; use a "
                "smaller --size or another --cache"
            )
        for path, size in self.files.items():
            with path.open("ab") as file:
                file.truncate(self.shape[0] * size)
        lines = [_line(number, *entry) for number, entry in self.done.items()]
        write_atomically(self.folder / JOURNAL, b"".join(lines))

    def write(self, number: int, block: Block) -> None:
        """Write a block and, once it is on disk, enter it into the journal if all was read."""
        where = self._range(number)
        images = np.zeros((len(where), *self.shape[1:]), dtype=np.uint8)
        digests = np.zeros((len(where), DIGEST_BYTES), dtype=np.uint8)
        reasons: Reasons = {}
        for index, result in block.items():
            if isinstance(result, str):
                reasons[index] = result
            else:
                pixels = result.pixels
                images[index - where.start] = pixels
                digests[index - where.start] = np.frombuffer(digest(pixels), dtype=np.uint8)
        for (path, size), content in zip(self.files.items(), (images, digests), strict=True):
            with path.open("r+b") as file:
                file.seek(where.start * size)
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
        several = [i for i, one in block.items() if isinstance(one, Picture) and one.several]
        self.done[number] = entry = (_checksum(images, digests), reasons, several)
        if any(isinstance(reason, _Unread) for reason in reasons.values()):
            return
        with (self.folder / JOURNAL).open("ab") as file:
            file.write(_line(number, *entry))
            file.flush()
            os.fsync(file.fileno())

    def seal(self) -> None:
        save_json(self.folder / SEAL, self._state())

    def replace_by_mark(self, index: int) -> None:
        """Keep nothing but the number of an image that is in color."""
        save_json(self.folder / IN_COLOR, {"image": index})
        for name in (SEAL, JOURNAL, DIGESTS, IMAGES):
            (self.folder / name).unlink(missing_ok=True)

    def _sealed(self) -> bool:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return bool(json.loads((self.folder / SEAL).read_bytes()) == self._state())
        return False

    def _range(self, number: int) -> range:
        return range(number * self.rows, min((number + 1) * self.rows, self.shape[0]))

    def _state(self) -> dict[str, Any]:
        stats = {name: (self.folder / name).stat() for name in (IMAGES, DIGESTS, JOURNAL)}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in stats.items()}

    def _journal(self) -> dict[int, _Entry]:
        entries: dict[int, _Entry] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / JOURNAL).read_bytes().splitlines():
                # A power failure may have cut a line.
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    entry = unseal(json.loads(line), LINE_CHECKSUM)
                    reasons = {int(index): str(why) for index, why in entry["bad"].items()}
                    if 0 <= entry["block"] * self.rows < self.shape[0]:
                        several = [int(index) for index in entry["several"]]
                        entries[entry["block"]] = (str(entry["checksum"]), reasons, several)
        return entries

    def _holds(self, number: int, checksum: str) -> bool:
        where = self._range(number)
        try:
            parts = [
                np.fromfile(path, np.uint8, len(where) * size, offset=where.start * size)
                for path, size in self.files.items()
            ]
        except OSError:
            return False
        return _checksum(*parts) == checksum


def _key(images: EncodedImages, layout: Layout) -> str:
    shape = (len(images), layout.channels, layout.height, layout.width, layout.square)
    key = hashlib.blake2b(repr((VERSION, *shape)).encode(), digest_size=16)
    for origin in images.origins():
        key.update(origin.encode(errors="surrogateescape") + b"\0")
    return key.hexdigest()


def _checksum(*parts: npt.NDArray[np.uint8]) -> str:
    checksum = hashlib.blake2b(digest_size=16)
    for part in parts:
        checksum.update(part.data)
    return checksum.hexdigest()


def _line(number: int, checksum: str, reasons: Reasons, several: list[int]) -> bytes:
    entry = {"block": number, "checksum": checksum, "bad": reasons, "several": several}
    return to_line(seal(entry, LINE_CHECKSUM)).encode()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("ab+", buffering=0) as lock:
        started = time.monotonic()
        notified = False
        while not try_lock(lock):
            if not notified and time.monotonic() - started >= WAIT_NOTICE_SECONDS:
                holder = lock_holder(lock) or "unknown"
                logger.warning("waiting for process %s, which decodes into %s", holder, folder)
                notified = True
            time.sleep(POLL_SECONDS)
        yield
