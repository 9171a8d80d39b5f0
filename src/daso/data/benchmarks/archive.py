"""Read single files out of a .tar.gz, as a stream of bounded length and without unpacking anything else."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from daso.errors import DataError

CHUNK = 2**20


def regular_members(
    path: Path, top: str, names: Collection[str], limit: int
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield (name, content in chunks) of the regular files ``top/name``; read each before the next.

    Raises:
        DataError: the archive is damaged, unpacks to more than *limit* bytes, or such a name is no file.
    """
    with _opened(path, limit) as archive:
        for member in archive:
            parts = PurePosixPath(member.name).parts
            if len(parts) != 2 or parts[0] != top or parts[1] not in names:
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(f"{path}, {member.name}: not a regular file")
            yield parts[1], _chunks(content, path)


def first_folder(path: Path, limit: int) -> str:
    """Return the folder in which an archive's first entry lies, or ``""``.

    Raises:
        DataError: the archive is damaged.
    """
    with _opened(path, limit) as archive:
        first = archive.next()
    return PurePosixPath(first.name).parts[0] if first and first.name else ""


class _Bounded:
    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
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
    with _damage_named(path), gzip.open(path) as stream:
        bounded = cast("IO[bytes]", _Bounded(cast("IO[bytes]", stream), path, limit))
        with tarfile.open(fileobj=bounded, mode="r|") as archive:
            yield archive


def _chunks(content: IO[bytes], path: Path) -> Iterator[bytes]:
    with _damage_named(path):
        while chunk := content.read(CHUNK):
            yield chunk


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a readable .tar.gz: {error}; fetch it again") from error
