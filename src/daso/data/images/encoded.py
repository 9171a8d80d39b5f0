"""Encoded images, and threads that process them."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.images.decode import ImageHeader, read_header
from daso.errors import DataError

WORKERS = min(8, os.cpu_count() or 1)
BATCH = 16
"""Images that a thread processes at a time."""
SMALL = 4_096
"""Bytes of an image, encoded; with less of it threads do not pay."""
CHUNK = 256
"""Paths that a pass over image files yields at a time."""
FEW = 16
"""Fewer than one of so many images are read one by one, where that is possible."""

Encoded = Path | bytes
Item = Encoded | DataError
"""An image, or why a row has none."""
Result = TypeVar("Result")
File = TypeVar("File")


@dataclass(frozen=True)
class EncodedImages:
    """N encoded images, as files or bytes.

    Attributes:
        labels: int64 (N,), -1 where unknown.
        name_of: returns the name of image i for messages: its path, or its file and row.
        chunks: starts a pass over the images in order; yields some files or bytes at a time.
        from_files: whether ``name_of`` returns paths for ``DecodedImages.paths``.
        origins: yields texts that change when an image does; see ``origin_of``.
        item: returns image i; None: only a pass finds it.
        whole: the images that these were selected from, and their indices there.
    """

    labels: npt.NDArray[np.int64]
    name_of: Callable[[int], str]
    chunks: Callable[[], Iterator[Sequence[Item]]]
    from_files: bool
    origins: Callable[[], Iterator[str]]
    item: Callable[[int], Item] | None = None
    whole: tuple[EncodedImages, npt.NDArray[np.int64]] | None = None

    @classmethod
    def of_files(cls, paths: Sequence[Path], labels: npt.ArrayLike) -> EncodedImages:
        return cls(
            np.asarray(labels, dtype=np.int64).reshape(len(paths)),
            name_of=lambda index: str(paths[index]),
            chunks=lambda: (paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)),
            from_files=True,
            origins=lambda: map(origin_of, paths),
            item=paths.__getitem__,
        )

    @classmethod
    def in_files(
        cls,
        labels: npt.NDArray[np.int64],
        files: Sequence[File],
        counts: Sequence[int],
        chunks: Callable[[File], Iterator[Sequence[Item]]],
        name: Callable[[int, int], str],
        item: Callable[[int, int], Item] | None,
        origin: Callable[[File], str],
    ) -> EncodedImages:
        """Return the images of files that hold several, in order.

        Args:
            files, counts: the files, and their numbers of images.
            chunks: starts a pass over the images of a file.
            name, item: return the name and the content of an image, by the numbers of its file and
                of the image there; see ``item``.
            origin: see ``origin_of``.
        """
        ends = list(itertools.accumulate(counts))

        def place(index: int) -> tuple[int, int]:
            file = bisect.bisect_right(ends, index)
            return file, index - (ends[file - 1] if file else 0)

        def all_chunks() -> Iterator[Sequence[Item]]:
            for file, count in zip(files, counts, strict=True):
                seen = 0
                for chunk in chunks(file):
                    seen += len(chunk)
                    yield chunk
                if seen != count:
                    raise DataError(
                        f"{file}: had {count} images, has {seen} now; start again, and fetch the "
                        "file again if that does not help"
                    )

        return cls(
            labels,
            lambda index: name(*place(index)),
            all_chunks,
            False,
            lambda: map(origin, files),
            None if item is None else lambda index: item(*place(index)),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> Item:
        """Return one image; where there is no direct access, those before it are read too."""
        if self.item is not None:
            return self.item(index)
        for chunk in self.chunks():
            if index < len(chunk):
                return chunk[index]
            index -= len(chunk)
        raise IndexError(index)

    def all_names(self) -> Iterator[str]:
        """Yield the names of all images in order."""
        return map(self.name_of, range(len(self)))

    def select(self, indices: npt.NDArray[np.int64]) -> EncodedImages:
        """Return some of the images, in their order here."""
        chosen = set(indices.tolist())
        order = sorted(chosen)
        item, few = self.item, len(order) * FEW < len(self)

        def chunks() -> Iterator[Sequence[Item]]:
            if item is not None and few:
                for first in range(0, len(order), BATCH):
                    yield [item(index) for index in order[first : first + BATCH]]
                return
            start = 0
            for chunk in self.chunks():
                yield [item for index, item in enumerate(chunk, start) if index in chosen]
                start += len(chunk)

        def origins() -> Iterator[str]:
            yield from self.origins()
            yield f"of them {hashlib.blake2b(np.array(order).tobytes()).hexdigest()}"

        name_of = self.name_of
        return EncodedImages(
            self.labels[order],
            lambda i: name_of(order[i]),
            chunks,
            self.from_files,
            origins,
            None if item is None else lambda i: item(order[i]),
            (self, np.array(order, dtype=np.int64)),
        )

    def followed_by(self, other: EncodedImages) -> EncodedImages:
        count = len(self)

        def read(index: int) -> Item:
            return self.read(index) if index < count else other.read(index - count)

        return EncodedImages(
            np.concatenate([self.labels, other.labels]),
            lambda i: self.name_of(i) if i < count else other.name_of(i - count),
            lambda: itertools.chain(self.chunks(), other.chunks()),
            self.from_files and other.from_files,
            lambda: itertools.chain(self.origins(), other.origins()),
            read if self.item is not None and other.item is not None else None,
        )


def content_digest(encoded: Encoded) -> bytes:
    """Return 16 bytes that depend on an encoded image."""
    if isinstance(encoded, bytes):
        return hashlib.blake2b(encoded, digest_size=16).digest()
    try:
        with encoded.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).digest()
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error


def origin_of(file: Path) -> str:
    """Return a text that changes when a file does: its name, size, times and inode.

    Archives restore modification times, but nothing restores the change time.
    """
    try:
        status = file.stat()
    except OSError:  # a broken link
        return f"{file.name} is not there"
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{file.name} {status.st_size} {times} {status.st_ino}"


def _is_small(item: Item) -> bool:
    if isinstance(item, bytes):
        return len(item) < SMALL
    try:
        return isinstance(item, Path) and item.stat().st_size < SMALL
    except OSError:
        return False


@contextmanager
def no_size_warnings() -> Iterator[None]:
    """Silence Pillow's warnings about large images, which ``decode`` refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_headers(images: EncodedImages) -> tuple[dict[int, ImageHeader], dict[int, str]]:
    """Return the headers of readable images and the reasons of unreadable ones, by index."""
    headers: dict[int, ImageHeader] = {}
    reasons: dict[int, str] = {}
    for index, header in enumerate(work_through(images, read_header)):
        if isinstance(header, str):
            reasons[index] = header
        else:
            headers[index] = header
    return headers, reasons


def work_through(
    images: EncodedImages, work: Callable[[Encoded], Result], skip: Container[int] = ()
) -> Iterator[Result | str]:
    """Yield the result of *work* for each image in order, computed by threads where they pay.

    Work on small images is mostly Python's own, in which threads wait for each other: two took
    twice as long as one. So these have no threads, as long as their disk does not keep them
    waiting. A ``DataError`` of *work* yields its text. Images in *skip* yield ``""``.
    """

    def batch(items: Sequence[tuple[int, Item]]) -> list[Result | str]:
        results: list[Result | str] = []
        for index, item in items:
            try:
                if isinstance(item, DataError):
                    raise item
                results.append("" if index in skip else work(item))
            except DataError as error:
                results.append(str(error))
        return results

    items = enumerate(itertools.chain.from_iterable(images.chunks()))
    first = list(itertools.islice(items, 1))
    yield from batch(first)
    alone = bool(first) and _is_small(first[0][1])
    while alone:
        if not (some := list(itertools.islice(items, CHUNK))):
            return
        clock, busy = time.perf_counter(), time.thread_time()
        results = batch(some)
        alone = time.thread_time() - busy > (time.perf_counter() - clock) / 2
        yield from results
    with ThreadPoolExecutor(WORKERS) as executor:
        waiting: deque[Future[list[Result | str]]] = deque()
        while some := list(itertools.islice(items, BATCH)):
            waiting.append(executor.submit(batch, some))
            if len(waiting) > 2 * WORKERS:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()
