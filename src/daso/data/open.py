"""Open a data set by its name or its path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from daso.data.cifar import CIFAR10, CIFAR100, CifarLayout, archive_layout, locate_cifar, read_cifar
from daso.data.digits import read_digits
from daso.data.download import REMOTES, Progress, cache_folder, download
from daso.data.folder import is_image_folder, read_folder
from daso.data.idx import locate_idx, read_fashion_mnist, read_idx
from daso.data.npz import read_npz
from daso.data.parquet import locate_parquet, read_parquet
from daso.data.semi_aves import IMAGES_PAGE, LISTS_PAGE, locate_semi_aves, read_semi_aves
from daso.data.source import Source
from daso.data.stl10 import locate_stl10, read_stl10
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
    **dict.fromkeys(("semi-aves", "semi-aves-open"), f"{LISTS_PAGE} and its images from {IMAGES_PAGE}"),
}
LAYOUTS = (
    "labeled/<class>/ with images",
    "train-*.parquet",
    "MNIST's four IDX files",
    "CIFAR's pickles",
    "STL-10's .bin files",
    "Semi-Aves's list files",
)


def open_source(
    source: str,
    *,
    data: Path | None = None,
    size: int | None = None,
    skip_bad: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Source:
    """Read a data set by name or path.

    Args:
        source: one of ``NAMES``; or an image folder, a folder of parquet, IDX, CIFAR, STL-10 or Semi-Aves
            files, a CIFAR .tar.gz, or an .npz. A folder called like a name is opened as ``./name``.
        data: for a name, where its files are; None: ``data/NAME``, the usual places, the cache folder.
        size: for image folders, parquet and Semi-Aves, the side of the square to resize to.
        skip_bad: for the same, leave unreadable images out and record them in ``Source.skipped``.
        download: for a name, fetch missing files into *data*, or else into the cache folder.
        progress: called as a download's bytes come.

    Raises:
        DataError: nothing is there, files are missing (the message says which, where, and how to get them),
            or what is there is wrong.
        OptionError: an option does not go with this source.
        MissingDependencyError: parquet files need pyarrow.
    """
    if source in NAMES:
        found = _open_name(source, data, size, skip_bad, fetch_missing=download, progress=progress)
    else:
        if data is not None:
            raise OptionError(
                f"data says where a named data set is ({', '.join(NAMES)}); {source!r} is a path"
            )
        found = _open_path(source, size, skip_bad)
    height, width = found.train.images.shape[2:]
    if size is not None and (height, width) != (size, size):
        raise OptionError(
            f"size {size} does not go with {source!r}, whose images are {width} x {height}: "
            "only image folders, parquet files and Semi-Aves are resized"
        )
    return found


def _open_name(
    name: str,
    data: Path | None,
    size: int | None,
    skip_bad: bool,
    *,
    fetch_missing: bool,
    progress: Progress | None,
) -> Source:
    if name == "digits":
        if data is not None:
            raise OptionError("digits come with scikit-learn; leave data out")
        return read_digits()
    read = _readers(size, skip_bad)[name]
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
        + (", or have them fetched with --download." if fetched else "; --download cannot fetch them.")
    )


def _places(name: str, data: Path | None) -> list[Path]:
    if data is not None:
        return [data]
    return [Path("data") / name, *USUAL_PLACES[name], cache_folder() / name]


def _readers(size: int | None, skip_bad: bool) -> dict[str, Callable[[Path], Callable[[], Source]]]:
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
            return lambda: read_semi_aves(found, open_set=open_set, size=size, skip_bad=skip_bad)

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
                found, name=layout.name, size=size, skip_bad=skip_bad, mean=layout.mean, std=layout.std
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


def _open_path(source: str, size: int | None, skip_bad: bool) -> Source:
    path = Path(source).expanduser()
    if path.is_file():
        return _open_file(path)
    if not path.is_dir():
        raise DataError(
            f"{source!r} is neither a data set's name ({', '.join(NAMES)}) nor a file or folder that exists."
            f"{nearest(source, NAMES)}"
        )
    if is_image_folder(path):
        return read_folder(path, size=size, skip_bad=skip_bad)
    candidates: tuple[tuple[Callable[[Path], Path], Callable[[Path], Source]], ...] = (
        (locate_parquet, lambda _: read_parquet(path, size=size, skip_bad=skip_bad)),
        (locate_idx, lambda found: read_fashion_mnist(found) if "fashion" in _name(path) else read_idx(path)),
        (lambda folder: locate_cifar(folder, CIFAR10), lambda found: read_cifar(found, CIFAR10)),
        (lambda folder: locate_cifar(folder, CIFAR100), lambda found: read_cifar(found, CIFAR100)),
        (locate_stl10, read_stl10),
        (locate_semi_aves, lambda found: read_semi_aves(found, size=size, skip_bad=skip_bad)),
    )
    for locate, read in candidates:
        try:
            found = locate(path)
        except DataError:
            continue
        return read(found)
    holds = sorted(entry.name for entry in path.iterdir())[:8]
    raise DataError(
        f"{path}: no known layout. A data folder holds one of: {'; '.join(LAYOUTS)}. "
        f"This one holds {', '.join(holds) or 'nothing'}"
    )


def _open_file(path: Path) -> Source:
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.name.lower().endswith((".tar.gz", ".tgz")):
        return read_cifar(path, archive_layout(path))
    raise DataError(
        f"{path}: files that can be opened end in .npz, or are CIFAR's .tar.gz; "
        "give the folder of parquet, IDX, STL-10 or image files"
    )


def _name(path: Path) -> str:
    return path.resolve().name.lower()
