"""Fetch published data sets into the user's cache folder and verify their checksums."""

from __future__ import annotations

import http.client
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from daso.data.benchmarks import stl10
from daso.errors import DataError

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes so far, and the total (None: unknown)."""

CHUNK = 2**20
TIMEOUT_SECONDS = 30.0
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CIFAR = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        checksum: ``md5:...`` or ``sha256:...`` in lower-case hexadecimal.
        members: files to unpack from *folder* in the archive; empty: the file is not unpacked.
    """

    url: str
    checksum: str
    members: tuple[str, ...] = ()
    folder: str = ""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


REMOTES: dict[str, tuple[Remote, ...]] = {
    "fashion-mnist": (
        Remote(FASHION_URL + "train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Remote(FASHION_URL + "train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
        Remote(FASHION_URL + "t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
        Remote(FASHION_URL + "t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (Remote(CIFAR + "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),),
    "cifar100": (
        Remote(CIFAR + "cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),
    ),
    "stl10": (
        Remote(
            "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            "md5:91f7769df0f17e558f3565bffb0c7dfb",
            (*stl10.FILES, stl10.NAMES_FILE),
            stl10.FOLDER,
        ),
    ),
}


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/daso``, or ``~/.cache/daso``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "daso"


def download(name: str, folder: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch a data set by name and return its folder; existing files are kept.

    Args:
        name: ``fashion-mnist``, ``cifar10``, ``cifar100`` or ``stl10``.
        folder: target; None: the folder *name* in the cache folder.

    Raises:
        DataError: the network or the disk fails, or a checksum is wrong.
    """
    folder = cache_folder() / name if folder is None else folder
    for remote in REMOTES[name]:
        unpacked = [folder / remote.folder / member for member in remote.members]
        if unpacked and all(file.is_file() for file in unpacked):
            continue
        archive = fetch(remote, folder, progress)
        if unpacked:
            _unpack(archive, remote, folder)
            archive.unlink()
    return folder


def fetch(remote: Remote, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch one file into a folder, unless it is there with the right checksum.

    The file appears only when it is complete and verified.
    """
    # pooch imports requests, which most commands do not need.
    import pooch
    import requests

    bar = None if progress is None else _ProgressBar(remote.file_name, progress)
    downloader = pooch.HTTPDownloader(
        progressbar=bar or False,
        chunk_size=CHUNK,
        timeout=TIMEOUT_SECONDS,
        headers={"Accept-Encoding": "identity"},  # or a .gz might arrive unpacked
    )
    target = folder / remote.file_name
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(remote.url, remote.checksum, remote.file_name, folder, downloader=downloader)
    except ValueError as error:
        cure = "The file was not kept; try again, or fetch it by other means"
        raise DataError(f"{remote.url}: {error}. {cure}") from error
    except (requests.RequestException, http.client.HTTPException, OSError) as error:
        raise DataError(
            f"{remote.url}: could not be fetched: {error}. Without a network, fetch it elsewhere "
            f"and put it at {target}"
        ) from error
    return target


class _ProgressBar:
    """Passes pooch's calls, which are those of tqdm, on to a function."""

    total: int | None = None

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress, self.done = name, progress, 0

    def update(self, count: int) -> None:
        self.done += count
        # At the end pooch resets the bar and fills it once more.
        self.progress(self.name, min(self.done, self.total or self.done), self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None: ...


def _unpack(archive: Path, remote: Remote, folder: Path) -> None:
    target = folder / remote.folder
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary, tarfile.open(archive) as packed:
            for member in packed:
                name = member.name.removeprefix(f"{remote.folder}/")
                if name != member.name and name in remote.members and member.isreg():
                    packed.extract(member, temporary, filter="data")
                    (Path(temporary) / member.name).replace(target / name)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive}: could not be unpacked: {error}") from error
    missing = [name for name in remote.members if not (target / name).is_file()]
    if missing:
        raise DataError(f"{archive}: missing {', '.join(missing)}")
