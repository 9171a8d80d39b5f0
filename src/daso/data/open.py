"""Open a data set by its name or its path."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from daso.data.benchmarks.cifar import (
    CIFAR10,
    CIFAR100,
    CifarLayout,
    archive_layout,
    locate_cifar,
    read_cifar,
)
from daso.data.benchmarks.digits import read_digits
from daso.data.benchmarks.download import REMOTES, Progress, cache_folder, download
from daso.data.benchmarks.idx import locate_idx, read_fashion_mnist, read_idx
from daso.data.benchmarks.semi_aves import IMAGES_PAGE, LISTS_PAGE, locate_semi_aves, read_semi_aves
from daso.data.benchmarks.stl10 import locate_stl10, read_stl10
from daso.data.formats.folder import is_class_folder, is_image_folder, list_folder, require_readable
from daso.data.formats.hf_hub import PREFIX, list_hub
from daso.data.formats.hf_saved import is_saved, list_saved
from daso.data.formats.manifest import is_manifest, list_manifest
from daso.data.formats.npz import read_npz
from daso.data.formats.parquet import list_parquet, locate_parquet, read_parquet
from daso.data.formats.tar_shards import is_tar_folder, list_tars
from daso.data.images.cache import Cache
from daso.data.images.encoded import Shrink
from daso.data.listing import Listing, own_source, read_listing
from daso.data.source import Source
from daso.errors import DataError, OptionError, nearest

NAMES = ("digits", "fashion-mnist", "cifar10", "cifar100", "stl10", "semi-aves", "semi-aves-open")
"""The data sets that have a name."""

USUAL_PLACES = {
    "fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),),
    "cifar10": (Path("data") / CIFAR10.folder,),
    "cifar100": (Path("data") / CIFAR100.folder,),
    "stl10": (Path("data/stl10_binary"),),
    "semi-aves": (Path("data/semi_aves"),),
    "semi-aves-open": (Path("data/semi-aves"), Path("data/semi_aves")),
}
"""Where files are looked for besides ``data/NAME`` and the cache folder; the first is Debian's."""
PAGES = {
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist "
    "(or: apt install dataset-fashion-mnist)",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "stl10": "https://cs.stanford.edu/~acoates/stl10/",
    **dict.fromkeys(
        ("semi-aves", "semi-aves-open"), f"{LISTS_PAGE} and its images from {IMAGES_PAGE}"
    ),
}
LAYOUTS = (
    "labeled/<class>/ with images",
    "a folder of images for each class",
    "train-*.parquet",
    "webdataset's shards (train-*.tar)",
    "a data set saved by Hugging Face's datasets",
    "MNIST's four IDX files",
    "CIFAR's pickles",
    "STL-10's .bin files",
    "Semi-Aves's list files",
)


@dataclass(frozen=True)
class Reading:
    """How encoded images are read; see ``open_source``."""

    size: int | None
    skip_bad: bool
    cache: Cache | None


def open_source(
    source: str,
    *,
    data: Path | None = None,
    folders: Mapping[str, str] | None = None,
    size: int | None = None,
    skip_bad: bool = False,
    download: bool = False,
    progress: Progress | None = None,
    cache: Cache | None = None,
    shrink: Shrink | None = None,
) -> Source:
    """Read a data set by name or path.

    Args:
        source: one of ``NAMES``; ``hf:NAME`` for a data set of the Hugging Face hub; or an image folder, a manifest,
            a folder of parquet, Arrow, IDX, CIFAR, STL-10 or Semi-Aves files, a CIFAR .tar.gz, or an .npz. A folder
            called like a name is opened as ``./name``.
        data: for a name, where its files are; None: ``data/NAME``, the usual places, the cache folder. For a
            manifest, the folder that its paths start in and may not leave; None: the manifest's.
        folders: for an image folder, where further parts are: "unlabeled", "val", "test"; see ``list_folder``.
        size: for people's own images and Semi-Aves, the side of the square to resize to.
        skip_bad: leave out what cannot be used, and record it in ``Source.skipped``.
        download: for a name, fetch missing files into *data*, or else into the cache folder; for a data set of the
            hub, into the cache of the package ``datasets``.
        progress: called as a download's bytes come.
        cache: where images are kept, once they are decoded; None: they are decoded into memory. Arrays and benchmarks
            that come decoded do not use it.
        shrink: for people's own images, decides the size that would be chosen where none is given.

    Raises:
        DataError: nothing is there, files are missing (the message says which, where, and how to get them),
            or what is there is wrong.
        OptionError: an option does not go with this source.
        MissingDependencyError: parquet files need pyarrow.
    """
    listing = (
        None
        if source in NAMES
        else list_own(source, data=data, folders=folders, skip_bad=skip_bad, download=download)
    )
    if listing is not None:
        return read_listing(listing, size=size, skip_bad=skip_bad, cache=cache, shrink=shrink)
    if folders:
        raise OptionError(
            f"{', '.join(folders)}: further folders go with an image folder, not with {source!r}"
        )
    if source in NAMES:
        reading = Reading(size, skip_bad, cache)
        found = _open_name(source, data, reading, fetch_missing=download, progress=progress)
    else:
        found = _open_path(Path(source).expanduser(), Reading(size, skip_bad, cache))
    height, width = found.train.images.shape[2:]
    if size is not None and (height, width) != (size, size):
        raise OptionError(
            f"size {size} does not go with {source!r}, whose images are {width} x {height}: "
            "arrays and benchmarks of one size are not resized"
        )
    return found


def _open_name(
    name: str,
    data: Path | None,
    reading: Reading,
    *,
    fetch_missing: bool,
    progress: Progress | None,
) -> Source:
    if name == "digits":
        if data is not None:
            raise OptionError("digits come with scikit-learn; leave data out")
        return read_digits()
    read = _readers(reading)[name]
    reasons: list[str] = []
    for place in _places(name, data):
        try:
            reader = read(place)
        except DataError as error:
            reasons.append(str(error))
            continue
        return dataclasses.replace(reader(), place=str(place.resolve()))
    fetched = REMOTES.get(name, ())
    if fetch_missing and fetched:
        place = download(name, data, progress=progress)
        return dataclasses.replace(read(place)(), place=str(place.resolve()))
    files = ", ".join(remote.file_name for remote in fetched) or "its list files"
    looked = "\n".join(f"  {reason}" for reason in reasons)
    raise DataError(
        f"{name}: its files were not found. Looked in:\n{looked}\n"
        f"Get {files} from {PAGES[name]} and say with --data where they are"
        + (
            ", or have them fetched with --download."
            if fetched
            else "; --download cannot fetch them."
        )
    )


def _places(name: str, data: Path | None) -> list[Path]:
    if data is not None:
        return [data]
    return [Path("data") / name, *USUAL_PLACES[name], cache_folder() / name]


def _readers(reading: Reading) -> dict[str, Callable[[Path], Callable[[], Source]]]:
    """For each name, what looks into a place (DataError: not there) and returns what reads it."""

    def fashion_mnist(place: Path) -> Callable[[], Source]:
        found = locate_idx(place)
        return lambda: read_fashion_mnist(found)

    def stl10(place: Path) -> Callable[[], Source]:
        found = locate_stl10(place)
        return lambda: read_stl10(found)

    def semi_aves(*, open_set: bool) -> Callable[[Path], Callable[[], Source]]:
        def look(place: Path) -> Callable[[], Source]:
            found = locate_semi_aves(place, open_set=open_set)
            return lambda: read_semi_aves(found, open_set=open_set, **vars(reading))

        return look

    def cifar(layout: CifarLayout) -> Callable[[Path], Callable[[], Source]]:
        def look(place: Path) -> Callable[[], Source]:
            try:
                found = locate_cifar(place, layout)
            except DataError as error:
                return parquet(place, layout, error)
            return lambda: read_cifar(found, layout)

        return look

    def parquet(place: Path, layout: CifarLayout, missing: DataError) -> Callable[[], Source]:
        try:
            found = locate_parquet(place)
        except DataError:
            raise missing from None
        return lambda: _same_classes(
            read_parquet(
                found, name=layout.name, mean=layout.mean, std=layout.std, **vars(reading)
            ),
            layout,
            found,
        )

    return {
        "fashion-mnist": fashion_mnist,
        "cifar10": cifar(CIFAR10),
        "cifar100": cifar(CIFAR100),
        "stl10": stl10,
        "semi-aves": semi_aves(open_set=False),
        "semi-aves-open": semi_aves(open_set=True),
    }


def _same_classes(source: Source, layout: CifarLayout, place: Path) -> Source:
    if len(source.class_names) != len(layout.class_names):
        raise DataError(
            f"{place}: these parquet files have {len(source.class_names)} classes, {layout.name} has "
            f"{len(layout.class_names)}; open the folder by its path if it is another data set"
        )
    return source


def list_own(
    source: str,
    *,
    data: Path | None = None,
    folders: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    download: bool = False,
) -> Listing | None:
    """List people's own images at a path without decoding any; None if it holds arrays or a benchmark.

    Args:
        source, data, folders, skip_bad, download: see ``open_source``.

    Raises:
        DataError: nothing is there, or what is there is wrong.
        OptionError: an option does not go with this source.
        MissingDependencyError: parquet and Arrow files need pyarrow, the hub the package ``datasets``.
    """
    if source.startswith(PREFIX):
        if data is not None or folders:
            raise OptionError(f"{source!r} is complete: leave data and further folders out")
        return list_hub(source, download=download)
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(
            f"{source!r} is neither a data set's name ({', '.join(NAMES)}) nor a file or folder that exists."
            f"{nearest(source, NAMES)}"
        )
    if is_manifest(path) and not folders:
        return list_manifest(path, images=data, skip_bad=skip_bad)
    if data is not None:
        raise OptionError(
            f"data says where a named data set ({', '.join(NAMES)}) or a manifest's images are; {source!r} is neither"
        )
    if path.is_file():
        return None
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder")
    require_readable(path)
    if is_saved(path) and not folders:
        return list_saved(path)
    if folders or is_image_folder(path):
        return list_folder(path, folders, skip_bad=skip_bad)
    if is_tar_folder(path):
        return list_tars(path)
    if _located(locate_parquet, path):
        return list_parquet(path)
    if _benchmark(path) is not None or not is_class_folder(path):
        return None
    return list_folder(path, skip_bad=skip_bad)


def _located(locate: Callable[[Path], Path], path: Path) -> Path | None:
    try:
        return locate(path)
    except DataError:
        return None


def _benchmark(path: Path) -> Callable[[Reading], Source] | None:
    """Return what reads the benchmark's files in a folder, if there are."""
    candidates: tuple[tuple[Callable[[Path], Path], Callable[[Path, Reading], Source]], ...] = (
        (
            locate_idx,
            lambda found, *_: (
                read_fashion_mnist(found) if "fashion" in _name(path) else read_idx(path)
            ),
        ),
        (
            lambda folder: locate_cifar(folder, CIFAR10),
            lambda found, *_: read_cifar(found, CIFAR10),
        ),
        (
            lambda folder: locate_cifar(folder, CIFAR100),
            lambda found, *_: read_cifar(found, CIFAR100),
        ),
        (locate_stl10, lambda found, *_: read_stl10(found)),
        (locate_semi_aves, lambda found, reading: read_semi_aves(found, **vars(reading))),
    )
    for locate, read in candidates:
        found = _located(locate, path)
        if found is not None:
            return functools.partial(read, found)
    return None


def is_named(source: str) -> bool:
    """Whether a source is found by its name from wherever a run is resumed, not by its path."""
    return source in NAMES or source.startswith(PREFIX)


def _open_path(path: Path, reading: Reading) -> Source:
    if path.is_file():
        return _open_file(path, reading.skip_bad)
    read = _benchmark(path)
    if read is not None:
        return read(reading)
    holds = sorted(entry.name for entry in path.iterdir())[:8]
    raise DataError(
        f"{path}: no known layout. A data folder holds one of: {'; '.join(LAYOUTS)}. "
        f"This one holds {', '.join(holds) or 'nothing'}"
    )


def _open_file(path: Path, skip_bad: bool) -> Source:
    if path.suffix.lower() == ".npz":
        return own_source(read_npz(path), skip_bad=skip_bad)
    if path.name.lower().endswith((".tar.gz", ".tgz")):
        return read_cifar(path, archive_layout(path))
    raise DataError(
        f"{path}: files that can be opened end in .npz, .csv, .tsv, .jsonl or .parquet (manifests), or are CIFAR's "
        ".tar.gz; give the folder of parquet, IDX, STL-10 or image files"
    )


def _name(path: Path) -> str:
    return path.resolve().name.lower()
