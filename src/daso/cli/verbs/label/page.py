"""From what ``daso label`` is given to the page: data, features, session, trainer, server."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from daso.cli.terminal.arguments import folders_of
from daso.cli.terminal.counters import embedding_progress, tell
from daso.cli.verbs.label.command import LabelCommand
from daso.data.places import is_named
from daso.errors import DataError, OptionError, flag
from daso.files import Row, leads_somewhere

if TYPE_CHECKING:  # wrong options need no torch
    from daso.data.journal import Journal
    from daso.data.labeling import LabelingData
    from daso.label.features import Encoder
    from daso.label.images import Embedding, Images, Progress

FEATURES = "label-features.safetensors"
"""File that keeps the features of the images, in a run folder or that of the rounds."""


@dataclass(frozen=True)
class Place:
    """What is labeled, and how it is trained.

    Attributes:
        folder: the run that was named, if any.
        arguments: of ``daso train``, without --out.
        network: pretrained encoder to compare the images by, if one was named.
        rounds: folder of the trainings.
    """

    source: str
    folders: dict[str, str]
    data: Path | None
    size: int | None
    folder: Path | None
    arguments: tuple[str, ...]
    network: str | None
    rounds: Path


def placed(command: LabelCommand) -> Place:
    """Return what the options mean, for a data set or a run.

    Raises:
        DataError: there is no such path.
        OptionError: a run is given with another place of its images.
        RunError: the configuration of the run is damaged.
    """
    source, network, out = command.source, command.network, command.out
    folders = folders_of(command)
    places = {**folders, "data": command.data, "cache": command.cache}
    given = {name: str(place) for name, place in places.items() if place}
    path = Path(source).expanduser()
    words = tuple(shlex.split(command.train))
    if network is not None:
        words = ("--network", network, "--freeze", *words)
    if (path / "config.json").exists():
        from daso.train.config import RunConfig

        if given:
            raise OptionError("a run knows its data; leave out --unlabeled, --val, --test, --data")
        config = RunConfig.read(path)
        if not is_named(config.source) and not Path(config.source).exists():
            where = f"the images of {source} are not at {config.source}"
            raise DataError(f"{where}; label them where they are now: daso label FOLDER")
        rounds = out or path.with_name(f"{path.name}-label")
        base = None if config.data is None else Path(config.data)
        own, arguments = dict(config.folders), ("--like", str(path), *words)
        return Place(config.source, own, base, config.size, path, arguments, network, rounds)
    if not leads_somewhere(path):
        raise DataError(f"{source}: no such file or folder; check the path")
    options = (word for name, place in given.items() for word in (flag(name), place))
    # Images that the page cannot read are left out of its trainings too.
    arguments = (source, *options, "--skip-bad", *words)
    rounds = out or Path("runs") / f"{path.resolve().name or 'data'}-label"
    return Place(source, folders, command.data, None, None, arguments, network, rounds)


def label(place: Place, data: LabelingData, journal: Journal, command: LabelCommand) -> None:
    """Serve the page until the process is asked to end; a training stops with a checkpoint."""
    from daso.label.images import Images
    from daso.label.preparation import Preparation
    from daso.label.session import Session
    from daso.label.training import Trainer
    from daso.label.web.app import Api, create_app
    from daso.label.web.server import serve
    from daso.label.web.thumbnails import Thumbnails

    rounds = [entry.details for entry in journal.entries if entry.action == "round"]
    known = [str(details["run"]) for details in rounds if details and "run" in details]
    trained = [Path(run) for run in known if (Path(run) / "summary.json").exists()]
    images = Images(data)
    start = trained[-1] if trained else place.folder
    # A name that means nothing is refused before the page opens; weights are needed for no label.
    named = None if start or place.network is None else _encoder(images, None, place)
    session = Session(data, journal)
    there = session.state()
    tell(
        f"{place.source}: {there['undecided']:,} of {there['images']:,} images to label, "
        f"{len(there['classes'])} classes"
    )

    told: set[str] = set()

    def compute(run: Path | None, progress: Progress) -> Embedding:
        embedding = _features(images, run, place, progress, named)
        for note in embedding.notes:
            if note not in told:
                told.add(note)
                tell(f"note: {note}")
        return embedding

    preparation = Preparation(session, compute, tell)
    preparation.start(start)

    def finished(run: Path, numbers: Row) -> None:
        preparation.take(run)
        session.finish_round(numbers)

    trainer = Trainer(place.arguments, place.rounds, finished, known)
    where = data.source.resolve()
    ends = f"{images.name(0)} {images.name(len(images) - 1)}"
    identity = hashlib.sha256(f"{where} {len(images)} {ends}".encode(errors="replace")).hexdigest()
    api = Api(session, Thumbnails(images.read, images.name), trainer, preparation)
    try:
        make_app = partial(create_app, api, where.name, identity[:16])
        serve(make_app, command.host, command.port, tell, open_browser=command.open)
    finally:
        preparation.close()
        trainer.close()
        session.wait(10)  # a fit that the end of the process would break off


def _features(
    images: Images, run: Path | None, place: Place, progress: Progress, encoder: Encoder | None
) -> Embedding:
    from daso.label import features

    print_progress = embedding_progress()

    def both(done: int, total: int) -> None:
        progress(done, total)
        print_progress(done, total)

    if run is not None or encoder is None:
        encoder = _encoder(images, run, place, progress)
    folder = place.rounds if run is None else run
    return features.cached(folder / FEATURES, images, encoder, both, tell)


def _encoder(
    images: Images, run: Path | None, place: Place, progress: Progress | None = None
) -> Encoder:
    """Return a run's model, else the pretrained encoder that was named, else one of patches."""
    import torch

    from daso.label import features
    from daso.train.config import RunConfig
    from daso.train.encoder.pretrained import open_backbone
    from daso.train.model import load_model
    from daso.train.options import TrainOptions

    options = TrainOptions(network=place.network, freeze=place.network is not None)
    if run is not None:
        options = RunConfig.read(run).train
    if options.freeze:
        backbone = open_backbone(options, (3, 224, 224))
        assert backbone is not None  # it would have been refused
        return features.of_backbone(backbone, options, len(images))
    if run is not None:
        return features.of_run(load_model(run, torch.device("cpu"), tell))
    return features.of_patches(images, progress)
