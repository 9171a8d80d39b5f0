"""Open a data set by its name or its path."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from daso.data.formats.folder import (
    CONTAINERS,
    data_beside,
    is_class_folder,
    is_image_folder,
    list_folder,
)
from daso.data.formats.hf_hub import list_hub
from daso.data.formats.hf_saved import is_saved, list_saved
from daso.data.formats.image_walk import require_readable, subfolders
from daso.data.formats.manifest import is_manifest, list_manifest
from daso.data.formats.npz import read_npz
from daso.data.formats.parquet import list_parquet, locate_parquet
from daso.data.formats.tar_shards import ENDINGS, is_tar_folder, list_tars
from daso.data.images.cache import Cache
from daso.data.journal.apply import apply_journal, apply_to_source, read_journal
from daso.data.journal.entries import labels_in_force
from daso.data.journal.names import array_name
from daso.data.listing import Listing, Reading
from daso.data.places import HUB, NAMES, is_named
from daso.data.read_listing import checked_for_copies, read_listing
from daso.data.source import Source
from daso.errors import DataError, OptionError, named, nearest
from daso.files import leads_somewhere

USUAL_PLACES = {
    "fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),),
    "cifar10": (Path("data") / CIFAR10.folder,),
    "cifar100": (Path("data") / CIFAR100.folder,),
    "stl10": (Path("data/stl10_binary"),),
    "semi-aves": (Path("data/semi_aves"),),
    "semi-aves-open": (Path("data/semi-aves"), Path("data/semi_aves")),
}
"""Places of files besides ``data/NAME`` and the cache folder; the first is Debian's."""
AVES_PAGES = f"{LISTS_PAGE} and its images from {IMAGES_PAGE}"
PAGES = {
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist "
    "(or: apt install dataset-fashion-mnist)",
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar.html",
    "stl10": "https://cs.stanford.edu/~acoates/stl10/",
    "semi-aves": AVES_PAGES,
    "semi-aves-open": AVES_PAGES,
}
LAYOUTS = (
    "labeled/<class>/ with images; a folder of images for each class; train-*.parquet; "
    "webdataset's shards (train-*.tar); a data set saved by Hugging Face's datasets; MNIST's four "
    "IDX files; CIFAR's pickles; STL-10's .bin files; Semi-Aves's list files"
)


@dataclass(frozen=True)
class Benchmark:
    """The reader of a published data set; ``locate`` raises a DataError without its files."""

    locate: Callable[[Path], Path]
    read: Callable[[Path, Reading], Source]


def _cifar(layout: CifarLayout) -> Benchmark:
    """Return the reader of CIFAR's pickles, or of the hub's parquet files where those are not."""
    pickles = partial(locate_cifar, layout=layout)

    def locate(place: Path) -> Path:
        is_parquet = _has(locate_parquet, place) and not _has(pickles, place)
        return locate_parquet(place) if is_parquet else pickles(place)

    def read(place: Path, reading: Reading) -> Source:
        if _has(pickles, place):
            return read_cifar(place, layout)
        listing = list_parquet(place)
        if len(listing.class_names) != len(layout.class_names):
            raise DataError(
                f"{place}: has {len(listing.class_names)} classes, {layout.name} "
                f"has {len(layout.class_names)}; open another data set by the path of its folder"
            )
        published = dataclasses.replace(
            listing, name=layout.name, mean=layout.mean, std=layout.std, published=True
        )
        return read_listing(published, reading)

    return Benchmark(locate, read)


def _read_idx(path: Path, _: Reading) -> Source:
    name = path.resolve().name.lower()
    return (read_fashion_mnist if "fashion" in name and "mnist" in name else read_idx)(path)


STL10 = Benchmark(locate_stl10, lambda path, _: read_stl10(path))
SEMI_AVES = Benchmark(locate_semi_aves, read_semi_aves)
NAMED = {
    "fashion-mnist": Benchmark(locate_idx, lambda path, _: read_fashion_mnist(path)),
    "cifar10": _cifar(CIFAR10),
    "cifar100": _cifar(CIFAR100),
    "stl10": STL10,
    "semi-aves": SEMI_AVES,
    "semi-aves-open": Benchmark(
        partial(locate_semi_aves, open_set=True), partial(read_semi_aves, open_set=True)
    ),
}
IN_FOLDER = (Benchmark(locate_idx, _read_idx), _cifar(CIFAR10), _cifar(CIFAR100), STL10, SEMI_AVES)
"""The readers that are tried for an unnamed folder, in order."""


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
    largest_side: int | None = None,
    journal: int | None = None,
) -> Source:
    """Read a data set by name or path.

    Args:
        source: one of ``NAMES``; ``hf:NAME`` for a data set of the Hugging Face hub; or the path of
            an image folder, a manifest, a folder of parquet, Arrow, IDX, CIFAR, STL-10 or Semi-Aves
            files, a CIFAR .tar.gz, or an .npz. A folder that is called like a name is ``./name``.
        data: for a name, the folder of its files; None: ``data/NAME``, the usual places, the cache
            folder. For a manifest, the folder of all its images; None: the manifest's.
        folders: for an image folder, places of further parts: "unlabeled", "val", "test"; see
            ``list_folder``.
        size: for your own images and Semi-Aves, the side of the square to resize to.
        skip_bad: leave out unusable items, and record them in ``Source.skipped``.
        download: fetch missing files of a name into *data* or the cache folder, and those of a data
            set of the hub into the cache of ``datasets``.
        cache: keeps decoded images; None: they are decoded into memory. Arrays and benchmarks that
            are stored decoded do not use it.
        largest_side: for your own images without *size*, the largest side to choose. A note says
            whether it made them smaller.
        journal: how many entries of the journal of ``daso label`` to apply; None: all; 0: none.

    Raises:
        DataError: the source or its files are missing or invalid.
        OptionError: an option does not apply to this source.
        MissingDependencyError: a package is missing, such as pyarrow for parquet files.
    """
    reading = Reading(size, largest_side, skip_bad, cache, data, folders or {}, download)
    return open_with(reading, source, progress, journal)


def open_with(
    reading: Reading, source: str, progress: Progress | None = None, journal: int | None = None
) -> Source:
    """Read a data set as ``open_source`` does."""
    if source not in NAMES:
        listing = list_own(source, reading, journal)
        if listing is not None:
            return read_listing(listing, reading)
    if reading.folders:
        names = ", ".join(map(named, reading.folders))
        raise OptionError(f"{names} apply to image folders only, not to {source!r}")
    if source in NAMES:
        opened = _open_name(source, reading, progress)
    else:
        path = Path(source).expanduser()
        opened = open_arrays(path, reading, journal)
        if is_npz(path):
            name_of = {part: partial(array_name, part) for part in opened.parts()}
            skip = reading.skip_bad
            opened = checked_for_copies(opened, name_of, where=opened.name, skip_bad=skip)
    height, width = opened.train.images.shape[2:]
    size = reading.size
    if size is not None and (height, width) != (size, size):
        raise OptionError(
            f"{named('size')} {size} does not apply to {source!r}: its images are {width} x "
            f"{height}, and arrays and benchmarks of one size are not resized"
        )
    return opened


def list_own(source: str, reading: Reading, journal: int | None = None) -> Listing | None:
    """List the encoded images of a path or the hub; None if it holds arrays or a benchmark.

    The labels of the journal are those of ``daso label``, if there are any.
    """
    path = Path(source).expanduser()
    kept = None if is_named(source) else read_journal(path, journal)
    listing = list_files(source, reading, None if kept is None else labels_in_force(kept))
    if listing is None or kept is None:
        return listing
    return apply_journal(listing, kept, base_of(path, reading.data), skip_bad=reading.skip_bad)


def base_of(path: Path, data: Path | None = None) -> Path:
    """Return the folder in which the journal's names of a source's images start."""
    return data or (path.parent if path.is_file() else path)


def list_files(source: str, reading: Reading, classes: Collection[str] | None) -> Listing | None:
    """List images as ``list_own`` does, before a journal; for *classes* see ``Listing.partial``."""
    data, folders, skip_bad = reading.data, reading.folders, reading.skip_bad
    if source.startswith(HUB):
        if data is not None or folders:
            raise OptionError(
                f"{source!r} is complete: leave {named('data')} and other folders out"
            )
        return list_hub(source, download=reading.download)
    path = Path(source).expanduser()
    if not leads_somewhere(path):
        raise DataError(
            f"no such source: {source!r}; use an existing file or folder, or the name of a data "
            f"set ({', '.join(NAMES)}).{nearest(source, NAMES)}"
        )
    if is_manifest(path) and not folders:
        return list_manifest(path, images=data, skip_bad=skip_bad, classes=classes)
    if data is not None:
        raise OptionError(
            f"{named('data')} applies to named data sets ({', '.join(NAMES)}) and manifests only, "
            f"not to {source!r}"
        )
    if path.is_file():
        return None
    if not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder")
    require_readable(path)
    if is_saved(path) and not folders:
        return _with_others(list_saved(path, classes=classes), path, (".arrow",))
    partial = classes is not None
    if folders or is_image_folder(path, partial=partial):
        return list_folder(path, folders, skip_bad=skip_bad, classes=classes)
    if is_tar_folder(path, partial=partial):
        return _with_others(list_tars(path, classes=classes), path, ENDINGS)
    if _has(locate_parquet, path):
        return _with_others(list_parquet(path, classes=classes), path, (".parquet",))
    if any(_has(benchmark.locate, path) for benchmark in IN_FOLDER):
        return None
    if not partial and not is_class_folder(path):
        return None
    return list_folder(path, skip_bad=skip_bad, classes=classes)


def _with_others(listing: Listing, folder: Path, read: Sequence[str]) -> Listing:
    firsts = [Path(pool.name_of(0)) for pool in listing.pools.values() if len(pool)]
    inside = {first.relative_to(folder).parts[0] for first in firsts}
    notes = data_beside(folder, read, read_folders=inside)
    return dataclasses.replace(listing, notes=(*listing.notes, *notes))


def _has_classes(folder: Path) -> bool:
    with contextlib.suppress(DataError, OSError):
        return is_image_folder(folder) or is_class_folder(folder)
    return False


def _has(locate: Callable[[Path], Path], path: Path) -> bool:
    try:
        locate(path)
    except DataError:
        return False
    return True


def _open_name(name: str, reading: Reading, progress: Progress | None) -> Source:
    if name == "digits":
        if reading.data is not None:
            raise OptionError(f"digits come with scikit-learn; leave {named('data')} out")
        return read_digits()
    benchmark, reasons = NAMED[name], []
    usual = [Path("data") / name, *USUAL_PLACES[name], cache_folder() / name]
    for place in usual if reading.data is None else [reading.data]:
        try:
            benchmark.locate(place)
        except DataError as error:
            reasons.append(f"  {error}")
            continue
        break
    else:
        remotes = REMOTES.get(name, ())
        if not (reading.download and remotes):
            files = ", ".join(remote.file_name for remote in remotes) or "its list files"
            hint = ", or add --download" if remotes else "; --download cannot fetch them"
            looked = "\n".join(reasons)
            raise DataError(
                f"{name}: its files were not found. Looked in:\n{looked}\n"
                f"Get {files} from {PAGES[name]} and give their place with --data{hint}."
            )
        place = download(name, reading.data, progress)
    return dataclasses.replace(benchmark.read(place, reading), place=str(place.resolve()))


def is_npz(path: Path) -> bool:
    """Whether a path is a file of arrays."""
    return path.is_file() and path.name.lower().endswith(".npz")


def open_arrays(path: Path, reading: Reading | None = None, journal: int | None = None) -> Source:
    """Open a path that holds arrays, with the labels of its journal; copies are not looked for."""
    kept = read_journal(path, journal)
    opened = list_arrays(path, reading or Reading(), partial=kept is not None)
    return opened if kept is None else apply_to_source(opened, kept)


def list_arrays(path: Path, reading: Reading, *, partial: bool) -> Source:
    """Open arrays as ``open_arrays`` does, before a journal; see ``Listing.partial``."""
    name = path.name.lower()
    if is_npz(path):
        return read_npz(path, partial=partial)
    if path.is_file() and name.endswith((".tar.gz", ".tgz")):
        return read_cifar(path, archive_layout(path))
    if path.is_file():
        raise DataError(
            f"{path}: unknown kind of file; use .npz, .csv, .tsv, .jsonl or .parquet (manifests), "
            "or CIFAR's .tar.gz; give the folder of parquet, tar, IDX, STL-10 or image files"
        )
    for benchmark in IN_FOLDER:
        if _has(benchmark.locate, path):
            opened = benchmark.read(path, reading)
            if benchmark == SEMI_AVES:  # images in folders
                return opened
            beside = data_beside(path, CONTAINERS)  # archives of the very files lie there
            return dataclasses.replace(opened, notes=(*opened.notes, *beside))
    entries = sorted(path.iterdir())
    content = ", ".join(entry.name for entry in entries[:8]) or "nothing"
    manifest = next(filter(is_manifest, entries), None)
    hint = f"; to read {manifest}, which may list the images, give it itself" if manifest else ""
    inner = filter(_has_classes, (path / name for name in subfolders(path)))
    hint += "".join(f"; to read {folder}, give it itself" for folder in itertools.islice(inner, 1))
    raise DataError(
        f"{path}: no known layout. A data folder holds one of: {LAYOUTS}. "
        f"This one holds {content}{hint}"
    )
