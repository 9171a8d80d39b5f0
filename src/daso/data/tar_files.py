"""Open tar files, on disk or at an address for fsspec, and name their damage."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, cast

from daso.data.listing import is_hidden
from daso.data.places import is_address
from daso.errors import DasoError, DataError, import_extra

LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
"""Members that only describe the next one; tarfile reads them whole."""
LARGEST_HEADER = 2**20
"""Bytes of such a member."""
BLOCK = 2**20
"""Bytes that are read at a time after the end of an archive."""
DAMAGE = (
    tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError,
)  # fmt: skip


@contextlib.contextmanager
def open_tar(shard: str) -> Iterator[tarfile.TarFile]:
    """Open a shard; errors from damage become a DataError.

    On a disk, members that are not read are skipped.
    """
    try:
        with open_file(shard) as file, _archive(file, shard) as archive:
            yield archive
    except DasoError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{shard}: no such file") from error
    # tarfile passes on errors of its parts, and fsspec those of any storage.
    except Exception as error:
        if not isinstance(error, DAMAGE) and not is_address(shard):
            raise
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, tarfile.TarError) or not is_address(shard):
            reason = f"not a readable tar file: {reason}; fetch it again"
        else:
            reason = f"cannot be read: {reason}"
        raise DataError(f"{shard}: {reason}") from error


def _archive(file: IO[bytes], shard: str) -> tarfile.TarFile:
    if not is_address(shard):
        return tarfile.open(fileobj=file, mode="r:*", tarinfo=_Header)
    if shard.lower().endswith((".gz", ".tgz")):  # tarfile's own stream checks no checksum
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header)
    return tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header)


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive, keeping none in memory.

    Raises:
        ReadError: after the last one, if the archive goes on beyond its end.
    """
    for member in archive:
        yield member
        archive.members = []  # type: ignore[attr-defined] # or it would keep all members
    assert archive.fileobj is not None
    # To the end, where a compressed file has its checksum.
    while rest := archive.fileobj.read(BLOCK):
        if rest.strip(b"\0"):
            raise tarfile.ReadError(
                "more follows after its end: it is damaged, or archives were joined (pack their "
                "files into one)"
            )


@contextlib.contextmanager
def open_file(shard: str) -> Iterator[IO[bytes]]:
    """Open a shard on disk or at an address, to be read from its start."""
    if not is_address(shard):
        with Path(shard).open("rb") as file:
            yield file
        return
    files, path = import_fsspec().core.url_to_fs(shard)
    # Some web servers cannot send parts of a file, and a shard is read from start to end anyway.
    options = {"block_size": 0} if shard.startswith(("http://", "https://")) else {}
    with files.open(path, "rb", **options) as file:
        yield cast(IO[bytes], file)


def import_fsspec() -> Any:
    """Import fsspec."""
    return import_extra("fsspec", "stream", "shards at an address need")


class _Header(tarfile.TarInfo):
    """A header that raises an error if damaged; tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the mark at the end
                raise
            raise tarfile.ReadError(f"damaged or cut short ({error})") from error
        if header.type in LONG_HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a member's name and times take {header.size:,} bytes")
        return header


def regular_members(
    archive: tarfile.TarFile, passed: Callable[[str, str], None]
) -> Iterator[tarfile.TarInfo]:
    """Yield the visible regular files of an archive, keeping none in memory.

    *passed* is called with kind and name of each member that is hidden, or lies in a hidden
    folder, of each link, which is not followed, and of each device.
    """
    for member in members(archive):
        parts = PurePosixPath(member.name).parts
        hidden = any(is_hidden(part) and part != ".." for part in parts)
        if hidden and not member.isdir():
            passed("hidden files", member.name)
        elif member.isreg():
            yield member
        elif not member.isdir():
            passed("links" if member.islnk() or member.issym() else "devices", member.name)


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the content of a member; raise a ``ReadError`` if it is cut short."""
    file = archive.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise tarfile.ReadError("it ends within a member")
    return content
