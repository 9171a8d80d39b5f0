"""Read single files of a .tar.gz as a stream of bounded length, without unpacking anything."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from daso.errors import DataError


def regular_members(
    path: Path, folder: str, names: Collection[str], limit: int
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of the regular files ``folder/name``."""
    with _opened(path, limit) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if len(parts) != 2 or parts[0] != folder or parts[1] not in names:
                continue
            file = archive.extractfile(member) if member.isreg() else None
            if file is None:
                raise DataError(f"{path}, {member.name}: not a regular file")
            yield parts[1], file.read()


def first_folder(path: Path, limit: int) -> str:
    """Return the folder of an archive's first entry, or ``""``."""
    with _opened(path, limit) as archive:
        first = archive.next()
    return PurePosixPath(first.name).parts[0] if first and first.name else ""


class _Bounded:
    def __init__(self, stream: gzip.GzipFile, path: Path, limit: int) -> None:
        self.stream, self.path, self.limit, self.left = stream, path, limit, limit

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise DataError(
                f"{self.path}: unpacks to more than {self.limit:,} bytes; fetch it again"
            )
        return content


@contextmanager
def _opened(path: Path, limit: int) -> Iterator[tarfile.TarFile]:
    try:
        with gzip.open(path) as stream:
            bounded = cast("IO[bytes]", _Bounded(stream, path, limit))
            with tarfile.open(fileobj=bounded, mode="r|") as archive:
                yield archive
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a readable .tar.gz: {error}; fetch it again") from error
