"""``daso label``: label images in the browser."""

from __future__ import annotations

import hashlib
import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from daso.cli.terminal.parse import parse
from daso.cli.training.command import Folder
from daso.data.formats.tar_shards import absolute_place
from daso.errors import DataError, MissingDependencyError, OptionError

if TYPE_CHECKING:  # help and wrong options need no torch
    from daso.data.journal import Journal
    from daso.data.labeling import LabelingData
    from daso.label.features import Embedding
    from daso.label.images import Images

FEATURES = "label-features.safetensors"
"""File that keeps the features of the images, in a run folder or that of the rounds."""


@dataclass(frozen=True)
class LabelCommand:
    """Label images in the browser: the ones that help most come first, and training is one click.

    Every label is kept at once in a journal beside the images, which daso train, validate and data
    check take into account by themselves.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE|RUN")]
    """The path of your images, as for daso train; images without any label will do. Or a run
    folder: its images, compared by its model."""
    out: Path | None = None
    """Folder of the trainings that the page starts (default: runs/SOURCE-label)."""
    train: str = ""
    """Options of these trainings: --train='--steps 2000 --holdout 200' (default: those of
    the run, or daso train's own)."""
    network: str | None = None
    """Pretrained encoder to compare the images by, and to train on with --freeze: hf:NAME,
    timm:NAME or a folder (default: the newest model; before the first training patches of the
    images, without a network)."""
    data: Path | None = None
    """For a manifest, the folder that its paths start in (default: its own)."""
    unlabeled: Annotated[str | None, tyro.conf.arg(metavar="FOLDER|TARS")] = None
    """Folder or tar shards of unlabeled images, if they are elsewhere."""
    val: Folder | None = None
    """Folder of validation images, with one folder per class, if they are elsewhere."""
    test: Folder | None = None
    """Folder of test images, with one folder per class, if they are elsewhere."""
    cache: Path | None = None
    """Folder that keeps decoded images, for data sets larger than memory."""
    export: Path | None = None
    """Write a CSV file of all images with their labels now, and end."""
    apply: bool = False
    """Sort the labeled files of a folder into labeled/CLASS/, and end. It can be repeated."""
    links: bool = False
    """With --apply: make hard links in place of copies."""
    move: bool = False
    """With --apply: move the files."""
    undo: bool = False
    """With --apply: put back the files that were sorted."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this computer's own shows your images to others."""
    port: int | None = None
    """Port to listen on; 0 takes any (default: the first free one from 8737)."""
    open: bool = True
    """Open the page in the browser."""

    @property
    def folders(self) -> dict[str, str]:
        """Places of the parts of an image folder that are elsewhere, by part."""
        places = {"unlabeled": self.unlabeled, "val": self.val, "test": self.test}
        return {part: absolute_place(str(place)) for part, place in places.items() if place}

    @property
    def how(self) -> Literal["copy", "link", "move"]:
        """How --apply sorts files."""
        return "link" if self.links else "move" if self.move else "copy"

    def check(self) -> None:
        chosen = [name for name in ("links", "move", "undo") if getattr(self, name)]
        if chosen and not self.apply:
            raise OptionError(f"--{chosen[0]} goes with --apply")
        if len(chosen) > 1 or (self.apply and self.export):
            names = ["export", "apply"] if self.apply and self.export else chosen
            raise OptionError(f"give one of {', '.join('--' + name for name in names)}")
        if self.port is not None and not 0 <= self.port < 2**16:
            raise OptionError(f"--port = {self.port}: must be from 0 to {2**16 - 1}")
        try:
            words = shlex.split(self.train)
        except ValueError as error:
            raise OptionError(f"--train = {self.train!r}: {error}") from None
        taken = {"--out", "--like", "--quiet"} & {word.partition("=")[0] for word in words}
        if taken:
            raise OptionError(f"--train: {', '.join(sorted(taken))} is set by the page")


@dataclass(frozen=True)
class Place:
    """What is labeled, and how it is trained.

    Attributes:
        folder: the run that was named, if any.
        arguments: of ``daso train``, without --out.
        rounds: folder of the trainings.
    """

    source: str
    folders: dict[str, str]
    data: Path | None
    size: int | None
    folder: Path | None
    arguments: tuple[str, ...]
    rounds: Path


def run(argv: Sequence[str]) -> int:
    """Serve the page until Ctrl-C."""
    command = parse(LabelCommand, argv, "daso label")
    command.check()
    shows_page = not command.apply and command.export is None
    for package in ("starlette", "uvicorn") if shows_page else ():
        try:
            importlib.import_module(package)
        except ImportError:
            raise MissingDependencyError(
                f"daso label needs {package}: pip install 'daso[label]'"
            ) from None
    place = _place(command)

    from daso.cli.terminal.counters import decoding_progress
    from daso.data.images.cache import Cache
    from daso.data.journal import Journal
    from daso.data.labeling import export_labels, open_for_labeling, sort_files, unsort_files

    cache = None
    if command.cache is not None:
        cache = Cache(command.cache.expanduser(), decoding_progress())
    data = open_for_labeling(
        place.source, data=place.data, folders=place.folders, size=place.size, cache=cache
    )
    for note in data.listing.notes:
        _notice(f"note: {note}")
    if command.export is not None:
        for note in export_labels(Journal.read(data.journal), data, command.export):
            _notice(f"note: {note}")
        print(command.export)
        return 0
    journal = Journal.open(data.journal)
    try:
        if command.apply:
            sort = unsort_files if command.undo else partial(sort_files, how=command.how)
            for note in sort(journal, data):
                _notice(note)
            return 0
        _label(command, place, data, journal)
    finally:
        journal.close()
        if shows_page:
            _notice(f"{len(journal.entries):,} entries are kept in {journal.path}")
    return 0


def _place(command: LabelCommand) -> Place:
    path = Path(command.source).expanduser()
    words = tuple(shlex.split(command.train))
    if command.network is not None:
        words = ("--network", command.network, "--freeze", *words)
    if (path / "config.json").exists():
        from daso.train.config import RunConfig

        config = RunConfig.read(path)
        if command.folders or command.data or command.cache:
            raise OptionError("a run knows its data; leave out --unlabeled, --val, --test, --data")
        rounds = command.out or path.with_name(f"{path.name}-label")
        data = None if config.data is None else Path(config.data)
        arguments = ("--like", str(path), *words)
        folders = dict(config.folders)
        return Place(config.source, folders, data, config.size, path, arguments, rounds)
    if not path.exists():
        raise DataError(f"{command.source}: no such file or folder; check the path")
    places = {**command.folders, "data": command.data, "cache": command.cache}
    given = (("--" + name, str(value)) for name, value in places.items() if value)
    arguments = (command.source, *(word for pair in given for word in pair), *words)
    name = path.resolve().name or "data"
    rounds = command.out or Path("runs") / f"{name}-label"
    return Place(command.source, command.folders, command.data, None, None, arguments, rounds)


def _label(command: LabelCommand, place: Place, data: LabelingData, journal: Journal) -> None:
    from starlette.types import ASGIApp

    from daso.label.app import create_app
    from daso.label.images import Images
    from daso.label.server import serve
    from daso.label.session import Session
    from daso.label.thumbnails import Thumbnails
    from daso.label.training import Row, Trainer

    rounds = [entry.details for entry in journal.entries if entry.action == "round"]
    known = [str(details["run"]) for details in rounds if details and "run" in details]
    trained = [Path(run) for run in known if (Path(run) / "summary.json").exists()]
    images = Images(data)
    _notice(f"{place.source}: {len(images):,} images to label, {len(data.class_names)} classes")
    start = trained[-1] if trained else place.folder
    session = Session(data, journal, _features(images, start, command, place))

    def finished(run: Path, numbers: Row) -> None:
        session.replace_embedding(_features(images, run, command, place))
        session.finish_round(numbers)

    trainer = Trainer(lambda: place.arguments, place.rounds, finished, known)
    where = data.source.resolve()
    ends = f"{images.name(0)} {images.name(len(images) - 1)}"
    identity = hashlib.sha256(f"{where} {len(images)} {ends}".encode(errors="replace")).hexdigest()

    def make(token: str, hosts: set[str], port: int) -> ASGIApp:
        return create_app(
            session,
            Thumbnails(images.read, images.name),
            token,
            trainer,
            name=where.name,
            identity=identity[:16],
            hosts=hosts,
            port=port,
        )

    try:
        serve(make, command.host, command.port, _notice, open_browser=command.open)
    finally:
        trainer.close()


def _features(images: Images, run: Path | None, command: LabelCommand, place: Place) -> Embedding:
    """Return the features of all images, computed or read from where they are kept.

    They are those of a run's model, else of the pretrained encoder that was named, else of patches.
    """
    import torch

    from daso.cli.terminal.counters import embedding_progress
    from daso.label import features
    from daso.train.config import RunConfig
    from daso.train.encoder.pretrained import open_backbone
    from daso.train.model import load_model
    from daso.train.options import TrainOptions

    folder = place.rounds if run is None else run
    options = TrainOptions(network=command.network, freeze=command.network is not None)
    if run is not None:
        options = RunConfig.read(run).train
    if options.freeze:
        backbone = open_backbone(options, (3, 224, 224))
        if backbone is None:
            raise OptionError(f"{options.network}: is not a pretrained encoder")
        encoder = features.of_backbone(backbone, options)
    elif run is not None:
        encoder = features.of_run(load_model(run, torch.device("cpu"), _notice))
    else:
        encoder = features.of_patches(images)
    folder.mkdir(parents=True, exist_ok=True)
    return features.cached(folder / FEATURES, images, encoder, embedding_progress())


def _notice(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
