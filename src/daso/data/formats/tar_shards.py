"""Images in tar shards, as the package webdataset writes them: on a disk, or behind any address that fsspec knows."""

from __future__ import annotations

import contextlib
import functools
import glob
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt

from daso.data.class_names import INTEGER, in_order
from daso.data.images.decode import SUFFIXES
from daso.data.images.encoded import EncodedImages, origin_of
from daso.data.listing import PARTS, Listing, part_called
from daso.data.source import UNLABELED
from daso.errors import DasoError, DataError, MissingDependencyError

ENDINGS = (".tar", ".tar.gz", ".tgz")
CLASSES = "classes.txt"
"""Beside the shards: the names of the classes that are numbers in them, a line each."""
BRACE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST_SHARDS = 1_000_000
LARGEST_MEMBER = 2**28
"""Bytes of an image or a label; larger ones are refused."""
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Kinds of members that only say more of the next one; tarfile reads them whole."""
LARGEST_HEADER = 2**20
CHUNK = 256
DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class Sample:
    """Members of a tar file that follow each other and have one key: the name up to the first point.

    Attributes:
        key: with its folders.
        image: the encoded image; b"" where only keys were asked for, or none is there.
        label: the text of ``.cls``, or of "label" in ``.json``; None where there is none.
    """

    key: str
    image: bytes
    label: str | None


def is_shards(place: str) -> bool:
    """Whether a text names tar shards: a tar file, a pattern of such, or an address."""
    return is_address(place) or place.lower().endswith(ENDINGS)


def is_address(place: str) -> bool:
    """Whether a text is an address for fsspec, such as s3://bucket/name.tar, not a path."""
    return "://" in place


def absolute_place(place: Path | str) -> str:
    """Return a place in a form that holds from anywhere: an absolute path, or an address as it is."""
    return str(place) if is_address(str(place)) else str(Path(place).expanduser().resolve())


def expand(pattern: str) -> list[str]:
    """Return the shards that a pattern stands for: {000..127} counts, {a,b} lists, * fits files of a disk.

    Raises:
        DataError: these are none, or too many.
    """
    pieces: list[Sequence[str]] = []
    count, end = 1, 0
    for found in BRACE.finditer(pattern):
        first, last, listed = found.groups()
        numbers = range(int(first), int(last) + 1) if first else range(listed.count(",") + 1)
        count *= len(numbers)
        if not 0 < count <= MOST_SHARDS:
            raise DataError(
                f"{pattern}: {found.group()} makes it {count:,} shards; 1 to {MOST_SHARDS:,} can be"
            )
        choices = [f"{number:0{len(first)}d}" for number in numbers] if first else listed.split(",")
        pieces += [[pattern[end : found.start()]], choices]
        end = found.end()
    shards = ["".join(parts) for parts in itertools.product(*pieces, [pattern[end:]])]
    return [file for shard in shards for file in _fitting(shard)]


def _fitting(pattern: str) -> list[str]:
    if "*" not in pattern or is_address(pattern):
        return [pattern]
    files = sorted(glob.glob(pattern))  # noqa: PTH207 - a pattern may start anywhere
    if not files:
        raise DataError(f"{pattern}: no file fits this pattern")
    return files


def is_tar_folder(folder: Path) -> bool:
    """Whether a folder holds shards of labelled images: train-*.tar, labeled-*.tar ..."""
    return "train" in _shards_by_part(folder)


def list_tars(folder: Path) -> Listing:
    """List the images of a folder of shards, called by their parts: train-000.tar, unlabeled-000.tar, test-000.tar ...

    A labelled image has its class, a number or a name, in ``.cls``, or as "label" in ``.json``, beside it. Names of
    numbers are the lines of ``classes.txt``, where that is there.

    Raises:
        DataError: a shard is damaged, a label missing or unknown.
    """
    shards = {part: found for part, found in _shards_by_part(folder).items() if part in PARTS}
    read = {part: [_labels(shard) for shard in found] for part, found in shards.items()}
    texts = {part: [label for labels in found for label in labels] for part, found in read.items()}
    missing = [part for part, labels in texts.items() if part != "unlabeled" and None in labels]
    if missing:
        part = missing[0]
        raise DataError(
            f"{folder}: {texts[part].count(None)} {part} images have no label; give each a .cls, or move them into "
            "unlabeled-*.tar"
        )
    class_names, labels = _numbered(folder, texts)
    pools = {
        part: _pool(
            found,
            [len(of_shard) for of_shard in read[part]],
            np.array(labels[part], dtype=np.int64),
        )
        for part, found in shards.items()
    }
    return Listing(folder.resolve().name, str(folder), class_names, pools)


def unlabeled_tars(place: str) -> EncodedImages:
    """Return the pool of all images of the shards that a pattern stands for; labels in them are not looked at.

    Raises:
        DataError: a shard is not there or damaged, or there is no image in them.
        MissingDependencyError: an address needs fsspec.
    """
    shards = expand(place)
    counts = [sum(1 for _ in read_samples(shard, contents=False)) for shard in shards]
    if not sum(counts):
        raise DataError(f"{place}: no images in it")
    return _pool(shards, counts, np.full(sum(counts), UNLABELED, dtype=np.int64))


def read_samples(shard: str, *, contents: bool) -> Iterator[Sample]:
    """Yield the samples of a shard that have an image, or, without *contents*, only their keys.

    Raises:
        DataError: the file is not there, damaged, or has a member that is too large.
        MissingDependencyError: an address needs fsspec.
    """
    with _opened(shard, "r|*" if contents else "r:*") as archive:
        for key, members in itertools.groupby(
            _members(archive), lambda member: _split(member.name)[0]
        ):
            image, label, has_image = b"", None, False
            for member in members:
                ending = _split(member.name)[1]
                if member.size > LARGEST_MEMBER:
                    raise DataError(
                        f"{shard}: {member.name[:200]!r} has {member.size:,} bytes; at most {LARGEST_MEMBER:,}"
                    )
                if f".{ending}" in SUFFIXES and not has_image:
                    has_image = True
                    image = _content(archive, member) if contents else b""
                elif ending == "cls":
                    label = _content(archive, member).decode("utf-8", "replace").strip()
                elif ending == "json" and label is None:
                    label = _json_label(_content(archive, member))
            if has_image:
                yield Sample(key, image, label)


class _Header(tarfile.TarInfo):
    """A member's header, of which a damaged one is an error: tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header of 512 bytes."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the mark at the end
                raise
            raise tarfile.ReadError(f"damaged or cut short ({error})") from error
        if header.type in LONG_HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a member's name and times take {header.size:,} bytes")
        return header


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
            yield member
        archive.members = []  # type: ignore[attr-defined] # else it keeps all that it has seen


def _split(name: str) -> tuple[str, str]:
    """Return the key and the ending, in lower case, of a member."""
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}/{stem}", ending.lower()


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise tarfile.ReadError("it ends within a member")
    return content


def _json_label(content: bytes) -> str | None:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return None
    label = values.get("label") if isinstance(values, dict) else None
    return None if label is None or isinstance(label, dict | list) else str(label)


@contextlib.contextmanager
def _opened(shard: str, mode: Literal["r|*", "r:*"]) -> Iterator[tarfile.TarFile]:
    """Open a shard; whatever damage raises comes out as DataError.

    With "r|*" it is read from its start to its end, with "r:*" what is not asked for is passed over on a disk.
    """
    mode = (
        "r|*" if is_address(shard) else mode
    )  # the small members of a shard are passed over no faster than read
    try:
        with (
            _file(shard) as file,
            tarfile.open(fileobj=file, mode=mode, tarinfo=_Header) as archive,
        ):
            yield archive
    except DasoError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{shard}: there is no such file") from error
    # tarfile lets the errors of what it is built of through, and fsspec those of any storage.
    except Exception as error:
        if not isinstance(error, DAMAGE) and not is_address(shard):
            raise
        reason = (
            (error.strerror if isinstance(error, OSError) else None)
            or str(error)
            or type(error).__name__
        )
        if isinstance(error, tarfile.TarError) or not is_address(shard):
            raise DataError(
                f"{shard}: not a readable tar file: {reason}; fetch it again"
            ) from error
        raise DataError(f"{shard}: cannot be read: {reason}") from error


@contextlib.contextmanager
def _file(shard: str) -> Iterator[IO[bytes]]:
    if not is_address(shard):
        with Path(shard).open("rb") as file:
            yield file
        return
    files, path = _fsspec().core.url_to_fs(shard)
    # Not every web server can send a part of a file, and a shard is read from start to end anyway.
    in_one_go = {"block_size": 0} if shard.startswith(("http://", "https://")) else {}
    with files.open(path, "rb", **in_one_go) as file:
        yield cast(IO[bytes], file)


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            "shards behind an address need fsspec: pip install 'daso[stream]'"
        ) from error
    return fsspec


def _shards_by_part(folder: Path) -> dict[str, list[str]]:
    shards: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        part = part_called(re.split(r"[-_.]", path.name)[0])
        if part is not None and path.name.lower().endswith(ENDINGS) and path.is_file():
            shards.setdefault(part, []).append(str(path))
    return shards


def _labels(shard: str) -> list[str | None]:
    return [sample.label for sample in read_samples(shard, contents=False)]


def _numbered(
    folder: Path, texts: dict[str, list[str | None]]
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Return the names of the classes and the labels as numbers."""
    given = {text for text in texts["train"] if text is not None}
    if all(INTEGER.fullmatch(text) for text in given):
        names = _class_names(folder, max(map(int, given), default=-1) + 1)
        numbers = {str(number): number for number in range(len(names))}
    else:
        names = tuple(in_order(given))
        numbers = {name: number for number, name in enumerate(names)}
    labels: dict[str, list[int]] = {}
    for part, values in texts.items():
        unknown = next((text for text in values if text is not None and text not in numbers), None)
        if unknown is not None and part != "unlabeled":
            raise DataError(
                f"{folder}: {part} label {unknown[:80]!r} is none of the {len(names)} classes: {', '.join(names)[:300]}"
            )
        labels[part] = [
            UNLABELED if text is None else numbers.get(text, UNLABELED) for text in values
        ]
    return names, labels


def _class_names(folder: Path, count: int) -> tuple[str, ...]:
    file = folder / CLASSES
    if not file.is_file():
        if count > 100_000:
            raise DataError(
                f"{folder}: the largest label is {count - 1}; number the classes 0, 1, 2 ..."
            )
        return tuple(map(str, range(count)))
    try:
        names = tuple(
            line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if len(names) < count:
        raise DataError(f"{file}: has {len(names)} names, and there is a label {count - 1}")
    return names


def _pool(
    shards: Sequence[str], counts: Sequence[int], labels: npt.NDArray[np.int64]
) -> EncodedImages:
    """Return the pool of all images of some shards, each with so many."""
    remote_origin = functools.cache(
        _remote_origin
    )  # asked for once, not for every image that has a name

    def origin(shard: str) -> str:
        return remote_origin(shard) if is_address(shard) else origin_of(Path(shard))

    def chunks() -> Iterator[Sequence[bytes]]:
        for shard, count in zip(shards, counts, strict=True):
            seen = 0
            samples = read_samples(shard, contents=True)
            while some := [sample.image for sample in itertools.islice(samples, CHUNK)]:
                seen += len(some)
                yield some
            if seen != count:
                raise DataError(f"{shard}: had {count} images, and now {seen}; start again")

    def name_of(index: int) -> str:
        for shard, count in zip(shards, counts, strict=True):
            if index < count:
                return f"{shard}, {_keys(shard, origin(shard))[index]}"
            index -= count
        raise IndexError(index)

    def origins() -> Iterator[str]:
        yield from map(origin, shards)

    return EncodedImages(labels, name_of, chunks, from_files=False, origins=origins)


@functools.lru_cache(maxsize=8)
def _keys(shard: str, origin: str) -> tuple[str, ...]:
    """Return the keys of a shard's images, for messages; *origin* is another text if the shard is another one."""
    return tuple(sample.key.removeprefix("/") for sample in read_samples(shard, contents=False))


def _remote_origin(shard: str) -> str:
    try:
        files, path = _fsspec().core.url_to_fs(shard)
        about = files.info(path)
    except Exception as error:  # of any storage
        raise DataError(f"{shard}: cannot be read: {str(error) or type(error).__name__}") from error
    kept = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    return repr([shard.rpartition("/")[2], *(str(about.get(key)) for key in kept)])
