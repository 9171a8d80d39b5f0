"""Fetch published data sets into the user's cache folder, checked against the published checksum."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daso.data.benchmarks.archive import regular_members
from daso.errors import DataError, nearest

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes so far, and the bytes in all (None: the server does not say)."""

CHUNK = 2**20
LARGEST = 4 * 2**30
TIMEOUT = 30.0
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
STL10_URL = "http://ai.stanford.edu/~acoates/stl10/"
STL10_MEMBERS = (
    "train_X.bin",
    "train_y.bin",
    "test_X.bin",
    "test_y.bin",
    "unlabeled_X.bin",
    "class_names.txt",
    "fold_indices.txt",
)


@dataclass(frozen=True)
class Remote:
    """A published file: its address, its checksum (``md5:...`` or ``sha256:...``), what to unpack from it."""

    url: str
    checksum: str
    members: tuple[str, ...] = ()
    folder: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


REMOTES: dict[str, tuple[Remote, ...]] = {
    "fashion-mnist": (
        Remote(FASHION_URL + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Remote(FASHION_URL + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        Remote(FASHION_URL + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        Remote(FASHION_URL + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (
        Remote(CIFAR_URL + "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),
    ),
    "cifar100": (
        Remote(CIFAR_URL + "cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "stl10": (
        Remote(
            STL10_URL + "stl10_binary.tar.gz",
            "md5:91f7769df0f17e558f3565bffb0c7dfb",
            STL10_MEMBERS,
            "stl10_binary",
        ),
    ),
}


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/daso``, or ``~/.cache/daso``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "daso"


def download(
    name: str,
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    remotes: Mapping[str, tuple[Remote, ...]] = REMOTES,
) -> Path:
    """Fetch a data set by name and return the folder that then holds it; files already there are kept.

    Args:
        name: ``fashion-mnist``, ``cifar10``, ``cifar100`` or ``stl10``.
        folder: where to; None: the folder *name* in the cache folder.
        progress: called as the bytes come.
        remotes: the published files of each name.

    Raises:
        DataError: the name is unknown, the network or the disk fails, or the checksum is wrong.
    """
    if name not in remotes:
        raise DataError(
            f"{name!r} cannot be downloaded; {', '.join(remotes)} can.{nearest(name, remotes)}"
        )
    folder = cache_folder() / name if folder is None else folder
    for remote in remotes[name]:
        target = folder / remote.file_name
        wanted = [folder / remote.folder / member for member in remote.members]
        if wanted and all(file.is_file() for file in wanted):
            continue
        if not target.is_file() or file_checksum(target, remote.checksum) != remote.checksum:
            fetch(remote.url, target, checksum=remote.checksum, progress=progress)
        if wanted:
            extract(target, folder / remote.folder, remote.folder, remote.members)
            target.unlink()
    return folder


def fetch(
    url: str,
    target: Path,
    *,
    checksum: str,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> None:
    """Fetch one file; *target* appears only when it is whole and its checksum is right.

    Args:
        url: an http or https address.
        target: where the file is to lie.
        checksum: ``md5:...`` or ``sha256:...`` in lower-case hexadecimal.
        progress: called as the bytes come.
        timeout: seconds without an answer before giving up.

    Raises:
        DataError: no network, a refusal, too few or too many bytes, a wrong checksum, or a full disk.
    """
    import http.client
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url}: only http and https addresses are fetched")
    digest = _new_digest(checksum)
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer, _atomic(target) as file:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            done = 0
            while chunk := answer.read(CHUNK):
                done += len(chunk)
                if done > LARGEST:
                    raise DataError(f"{url}: more than {LARGEST:,} bytes came; given up")
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(target.name, done, total)
            if total is not None and done != total:
                raise DataError(
                    f"{url}: the connection ended after {done:,} of {total:,} bytes; try again"
                )
            found = f"{checksum.split(':')[0]}:{digest.hexdigest()}"
            if found != checksum:
                raise DataError(
                    f"{url}: the checksum is {found}, the published one {checksum}; the file was not kept. "
                    "Try again, or fetch it by other means"
                )
    except DataError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"{url}: could not be fetched: {error}. Without a network, fetch it elsewhere "
            f"and put it at {target}"
        ) from error


def extract(archive: Path, folder: Path, top: str, members: tuple[str, ...]) -> None:
    """Unpack the regular files ``top/member`` of a .tar.gz into *folder*, and nothing else.

    Raises:
        DataError: one is missing or no regular file, or the archive is damaged.
    """
    written: set[str] = set()
    for name, content in regular_members(archive, top, members, LARGEST):
        try:
            with _atomic(folder / name) as file:
                file.writelines(content)
        except OSError as error:
            raise DataError(f"{folder / name}: could not be written: {error}") from error
        written.add(name)
    missing = [name for name in members if name not in written]
    if missing:
        raise DataError(f"{archive}: missing {', '.join(missing)}")


def file_checksum(path: Path, like: str) -> str:
    """Return the checksum of a file, of the kind of *like* (``md5:...`` or ``sha256:...``)."""
    digest = _new_digest(like)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return f"{like.split(':')[0]}:{digest.hexdigest()}"


def _new_digest(checksum: str) -> hashlib._Hash:
    kind = checksum.split(":")[0]
    if kind not in ("md5", "sha256"):
        raise DataError(f"checksum {checksum!r} must begin with md5: or sha256:")
    return hashlib.new(kind, usedforsecurity=False)


@contextmanager
def _atomic(target: Path) -> Iterator[IO[bytes]]:
    """Write beside *target* and move it there when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=".part", dir=target.parent
    )
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as file:
            yield file
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
