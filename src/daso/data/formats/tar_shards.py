"""Images in tar shards as webdataset writes them, on disk or at an address for fsspec."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import itertools
import json
import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from daso.data.class_names import (
    INTEGER,
    NUMBER,
    in_order,
    joined,
    listed,
    meant_labels,
    number_labels,
    numbered_names,
    reading_notes,
    refuse_missing,
)
from daso.data.formats.manifest_rows import object_of
from daso.data.formats.passed_over import PassedOver
from daso.data.images.decode import SUFFIXES
from daso.data.images.encoded import EncodedImages, origin_of
from daso.data.listing import JOURNAL, Listing
from daso.data.part_names import part_called
from daso.data.places import is_address
from daso.data.source import UNLABELED
from daso.data.tar_files import import_fsspec, open_file, open_tar, read_member, regular_members
from daso.errors import DataError

ENDINGS = (".tar", ".tar.gz", ".tgz")
CLASSES = "classes.txt"
"""File beside the shards with the names of numbered classes, one per line."""
BRACE = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MOST_SHARDS = 1_000_000
LARGEST_MEMBER = 2**28
"""Maximum bytes of a member."""
START_BYTES = 2**16
"""Bytes at the beginning of a shard at an address that identify it."""
CHUNK = 256
Places = npt.NDArray[np.int64]
"""Offset and size of each image in a shard that is not compressed, (N, 2)."""
MAGIC, MAGIC_END = b"ustar", 262
"""Where the first header of a tar file that is not compressed names its format."""


@dataclass(frozen=True)
class Sample:
    """Consecutive members of a tar file with one key, the name up to its first point.

    Attributes:
        image: the encoded image; b"" if only keys are read.
        label: the text of ``.cls``, or "label" in ``.json``; "" if missing.
        offset, size: of the image in a shard that is not compressed.
    """

    key: str
    image: bytes
    label: str
    offset: int = 0
    size: int = 0


def is_shards(place: str) -> bool:
    """Whether a text is a tar file, a pattern of tar files, or an address."""
    return is_address(place) or place.lower().endswith(ENDINGS)


def expand(pattern: str) -> list[str]:
    """Expand a pattern: {000..127} counts, {a,b} lists, * matches files on disk."""
    pieces: list[Sequence[str]] = []
    count, end = 1, 0
    for brace in BRACE.finditer(pattern):
        first, last, texts = brace.groups()
        numbers = range(int(first), int(last) + 1) if first else range(texts.count(",") + 1)
        count *= len(numbers)
        if not 0 < count <= MOST_SHARDS:
            what = f"{brace.group()} gives {count:,} shards"
            raise DataError(f"{pattern}: {what}; must be 1 to {MOST_SHARDS:,}")
        choices = [f"{number:0{len(first)}d}" for number in numbers] if first else texts.split(",")
        pieces += [[pattern[end : brace.start()]], choices]
        end = brace.end()
    shards = ["".join(parts) for parts in itertools.product(*pieces, [pattern[end:]])]
    return [file for shard in shards for file in _matching(shard)]


def _matching(pattern: str) -> list[str]:
    if "*" not in pattern or is_address(pattern):
        return [pattern]
    files = sorted(glob.glob(pattern))  # noqa: PTH207 - a pattern may start anywhere
    if not files:
        raise DataError(f"{pattern}: no file matches")
    return files


def is_tar_folder(folder: Path, *, partial: bool = False) -> bool:
    """Whether a folder holds shards of labeled images, such as train-*.tar.

    With *partial* those of unlabeled images suffice.
    """
    parts = _shards_by_part(folder)[0]
    return "train" in parts or (partial and "unlabeled" in parts)


def list_tars(folder: Path, *, classes: Collection[str] | None = None) -> Listing:
    """List the images of a folder of shards, such as train-000.tar and unlabeled-000.tar.

    A labeled image has its class, a number or a name, in ``.cls``, or as "label" in ``.json``.
    ``classes.txt``, if present, names the numbers. Notes count what is passed over. For *classes*
    see ``Listing.partial``; with them there need not be labeled images.
    """
    shards, other = _shards_by_part(folder)
    if classes is not None:
        shards = {"train": [], **shards}
    passed = PassedOver()
    for path in sorted(folder.iterdir()):
        if path.is_file() and not is_shards(path.name) and path.name not in (CLASSES, JOURNAL):
            passed.add_file(str(path))
    found = {part: _places_and_labels(of_part, passed) for part, of_part in shards.items()}
    raw = {part: labels for part, (_, labels) in found.items()}
    notes = list(reading_notes(itertools.chain(*raw.values()), str(folder)))
    notes += passed.notes(str(folder))
    if other:
        what = "shards that are not read, as their names are of no part"
        notes.append(f"{folder}: {what}: {listed(other)}")
    meant = meant_labels(itertools.chain(*raw.values()))
    texts = {part: [meant[label] for label in of_part] for part, of_part in raw.items()}
    for part, of_part in texts.items():
        if not of_part and shards[part]:
            endings = ", ".join(sorted(SUFFIXES))
            reason = (
                f"{folder}: no images in its {part} shards ({endings}); add some, or remove them"
            )
            raise DataError("\n".join([reason, *passed.notes(str(folder))]))
        if part != "unlabeled" and "" in of_part:
            reason = (
                f"{folder}: {of_part.count('')} {part} images have no label; give each a .cls "
                "right after it in the archive (tar --sort=name), or move them to unlabeled-*.tar"
            )
            raise DataError("\n".join([reason, *passed.notes(str(folder))]))
    class_names = known = tuple(in_order(joined(texts["train"], classes)))
    numbered = bool(texts["train"]) and all(map(INTEGER.fullmatch, texts["train"]))
    if (folder / CLASSES).is_file() and numbered:  # 007 is a number, too
        texts = {part: [_plain(text) for text in of_part] for part, of_part in texts.items()}
    elif (folder / CLASSES).is_file() and texts["train"]:
        notes.append(f"{folder / CLASSES}: not read, as not all labels are numbers")
    if numbered and all(text == _plain(text) for text in texts["train"]):
        class_names, known = _class_names(folder, texts["train"])
    numbers = number_labels(texts, known, str(folder))
    pools = {
        part: _encoded(of_part, found[part][0], numbers[part]) for part, of_part in shards.items()
    }
    return Listing(
        folder.resolve().name,
        str(folder),
        class_names,
        pools,
        notes=tuple(notes),
        optional=() if known == class_names else class_names,
        partial=classes is not None,
    )


def unlabeled_tars(place: str, passed: PassedOver | None = None) -> EncodedImages:
    """List all images of the shards of a pattern; their labels are ignored."""
    shards = expand(place)
    places, labels = _places_and_labels(shards, passed)
    if not labels:
        raise DataError(f"{place}: no images in it")
    return _encoded(shards, places, np.full(len(labels), UNLABELED, dtype=np.int64))


def _places_and_labels(
    shards: Sequence[str], passed: PassedOver | None
) -> tuple[list[Places], list[str]]:
    all_places, labels = [], []
    for shard in shards:
        places = array("q")
        for sample in read_samples(shard, contents=False, passed=passed):
            places.extend((sample.offset, sample.size))
            labels.append(sample.label)
        all_places.append(np.array(places, dtype=np.int64).reshape(-1, 2))
    return all_places, labels


def read_samples(
    shard: str, *, contents: bool, passed: PassedOver | None = None
) -> Iterator[Sample]:
    """Yield the samples of a shard that have an image; without *contents* the image is empty.

    Raises:
        DataError: the shard is damaged, a member is too large, or the images of a sample have no
            ending of their own: those with points in their names.
    """
    passed = PassedOver() if passed is None else passed
    refused = PassedOver()
    with open_tar(shard) as archive:
        files = regular_members(archive, passed.add)
        for key, members in itertools.groupby(files, lambda member: _split(member.name)[0]):
            image, has_image, labels = b"", False, dict[str, str]()
            first, more, endings, place = "", [], set[str](), (0, 0)
            for member in members:
                first = first or member.name
                ending = _split(member.name)[1]
                endings.add(f".{ending}" if ending else "none")
                if member.size > LARGEST_MEMBER:
                    what = f"{member.name[:200]!r} has {member.size:,} bytes"
                    raise DataError(f"{shard}: {what}; at most {LARGEST_MEMBER:,} are read")
                if f".{ending}" in SUFFIXES and not has_image:
                    has_image, place = True, (member.offset_data, member.size)
                    image = read_member(archive, member) if contents else b""
                elif PurePosixPath(member.name).suffix.lower() in SUFFIXES:
                    more.append(member.name)
                elif ending in ("cls", "json"):
                    where = f"{shard}: {member.name[:200]!r}"
                    text = _label(read_member(archive, member), ending, where)
                    if any(_differ(text, other) for other in labels.values()):
                        raise DataError(
                            f"{where} has another label than before; give each image one"
                        )
                    labels[ending] = text or labels.get(ending, "")
            for name in more:
                kind = f"image files with a point before their {PurePosixPath(name).suffix}"
                (passed if has_image else refused).add(
                    "further images of a sample" if has_image else kind, name
                )
            if has_image:
                yield Sample(key, image, labels.get("cls") or labels.get("json", ""), *place)
            elif not more:
                known = ", ".join(sorted(endings)[:5])
                passed.add(f"samples without an image of a known ending (only {known})", first)
    if refused.kinds:
        raise DataError(
            "\n".join(refused.notes(shard))
            + "\nwhat follows the first point of a name is the kind of a member; write _ for the "
            "other points"
        )


def _split(name: str) -> tuple[str, str]:
    folder, _, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}/{stem}", ending.lower()


def _differ(one: str, other: str) -> bool:
    """Whether two labels contradict each other; a number and a name may mean the same class."""
    meant = {text for text in meant_labels([one, other]).values() if text}
    return len(meant) > 1 and len({bool(NUMBER.fullmatch(text)) for text in meant}) == 1


def _label(content: bytes, ending: str, where: str) -> str:
    """Return the label in a .cls or .json; "" if a .json has none."""
    if ending == "cls":
        return _text(content, where).strip()
    try:
        values = json.loads(content, object_pairs_hook=object_of)
    except DataError as error:
        raise DataError(f"{where} {error}; give each image one") from None
    except (ValueError, RecursionError):
        return ""
    label = values.get("label") if isinstance(values, dict) else None
    return "" if label is None or isinstance(label, dict | list) else str(label)


def _text(content: bytes, where: str, errors: str = "surrogateescape") -> str:
    """Decode the text of a label or of class names."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise DataError(f"{where}: is UTF-16 or UTF-32, or no text; write it as UTF-8")
    return content.decode("utf-8-sig", errors)


def _plain(label: str) -> str:
    return str(int(label)) if INTEGER.fullmatch(label) else label


def _shards_by_part(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return a folder's shards by part, and the names of those that are of no part."""
    shards: dict[str, list[str]] = {}
    other = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not path.name.lower().endswith(ENDINGS) or not path.is_file():
            continue
        part = part_called(re.split(r"[-_.]", path.name)[0])
        if part is None:
            other.append(path.name)
        else:
            shards.setdefault(part, []).append(str(path))
    return shards, other


def _class_names(folder: Path, numbers: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of numbered classes, and their numbers as texts."""
    file = folder / CLASSES
    if not file.is_file():
        found = np.array([int(text) for text in numbers], dtype=np.int64)
        names = numbered_names([found], str(folder))
        return names, names
    count = max(map(int, numbers), default=-1) + 1
    try:
        text = _text(file.read_bytes(), str(file), "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    names = tuple(line.strip() for line in text.rstrip().split("\n")) if text.strip() else ()
    if "" in names:
        what = f"line {names.index('') + 1} is empty, but the number of a line is that of its class"
        raise DataError(f"{file}: {what}; write a name into it, or remove it")
    refuse_missing(names, str(file))
    if len(names) < count:
        raise DataError(f"{file}: has {len(names)} names, but there is a label {count - 1}")
    return names, tuple(map(str, range(len(names))))


def _encoded(
    shards: Sequence[str], places: Sequence[Places], labels: npt.NDArray[np.int64]
) -> EncodedImages:
    remote_origin = functools.cache(_remote_origin)  # once, not for the name of every image

    def origin(shard: str) -> str:
        return remote_origin(shard) if is_address(shard) else origin_of(Path(shard))

    def chunks(shard: str) -> Iterator[Sequence[bytes]]:
        samples = read_samples(shard, contents=True)
        while some := [sample.image for sample in itertools.islice(samples, CHUNK)]:
            yield some

    @functools.lru_cache(maxsize=8)
    def keys(shard: int) -> tuple[str, ...]:
        samples = read_samples(shards[shard], contents=False)
        return tuple(sample.key.removeprefix("/") for sample in samples)

    def name(shard: int, row: int) -> str:
        return f"{shards[shard]}, {keys(shard)[row]}"

    def item(shard: int, row: int) -> bytes:
        return _read_image(shards[shard], *places[shard][row].tolist())

    counts = [len(of_shard) for of_shard in places]
    direct = item if all(map(_is_plain_tar, shards)) else None
    return EncodedImages.in_files(labels, shards, counts, chunks, name, direct, origin)


def _is_plain_tar(shard: str) -> bool:
    """Whether a shard is on disk and not compressed, so that each image has its place."""
    if is_address(shard):
        return False
    with contextlib.suppress(OSError), Path(shard).open("rb") as file:
        return file.read(MAGIC_END)[-len(MAGIC) :] == MAGIC
    return False


def _read_image(shard: str, offset: int, size: int) -> bytes:
    try:
        with Path(shard).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise DataError(f"{shard}: {error.strerror or error}") from error


def _remote_origin(shard: str) -> str:
    try:
        files, path = import_fsspec().core.url_to_fs(shard)
        about = files.info(path)
        # Some servers tell neither time nor checksum.
        with open_file(shard) as file:
            start = hashlib.blake2b(file.read(START_BYTES), digest_size=16).hexdigest()
    except Exception as error:  # storages raise anything
        raise DataError(f"{shard}: cannot be read: {str(error) or type(error).__name__}") from error
    kept = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
    return repr([shard, start, *(str(about.get(key)) for key in kept)])
