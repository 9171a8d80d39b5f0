"""A run: a configuration, a folder that explains itself, and the training between them.

The folder holds ``config.json`` (everything resolved), ``data.json`` (classes, counts, normalisation, the split's
fingerprint), ``environment.json``, ``metrics.jsonl`` (a row per event), ``checkpoints/`` and, once the training is
over, ``summary.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daso.data.open import NAMES, open_source
from daso.data.order import derive_seed
from daso.data.source import Source
from daso.data.store import TrainingData, prepare_data
from daso.errors import OptionError, RunError
from daso.evaluate.summary import summarize
from daso.files import plain, read_json, read_rows, remove_leftovers, save_json, to_line, write_atomically
from daso.methods.compose import Facts, compose, parts_of, resolved_options
from daso.nets.network import Network, build_encoder
from daso.train.batches import Batches
from daso.train.checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from daso.train.config import RunConfig
from daso.train.environment import describe_environment
from daso.train.fit import Row, fit
from daso.train.lock import claim_folder, lock_folder
from daso.train.training import Training, choose_device


@dataclass(frozen=True)
class Prepared:
    """Everything built from a configuration, ready to train."""

    config: RunConfig
    data: TrainingData
    training: Training
    batches: Batches


def default_network(size: int) -> str:
    """Return the network for images of *size* pixels when none is named."""
    if size <= 28:
        return "small"
    return "wrn-28-2" if size <= 64 else "resnet18"


def _notice(message: str) -> None:
    """Drop a message."""


def prepare(config: RunConfig, source: Source | None = None) -> Prepared:
    """Build data, network, method and training from a configuration, and resolve its defaults.

    Args:
        config: what is wanted.
        source: the opened source, if the caller has it; else it is opened from the configuration.

    Raises:
        DasoError: an option or the data does not fit; nothing has been written.
    """
    options = config.train
    parts_of(config.method)
    device = choose_device(options.device)
    if source is None:
        data_path = None if config.data is None else Path(config.data)
        source = open_source(config.source, data=data_path, size=config.size, skip_bad=config.skip_bad)
    data = prepare_data(source, config.split, options.seed, device)
    channels, height, width = data.labeled.images.shape[1:]
    if options.resolution is not None and height != width:
        raise OptionError(f"resolution makes images square, these are {height} x {width}")
    size = options.resolution or max(height, width)
    name = options.network or default_network(size)

    torch.manual_seed(derive_seed(options.seed, "weights", 0))
    encoder = build_encoder(name, channels, size)
    network = Network(
        encoder, {"class": len(data.class_names)}, data.mean, data.std, options.precision, options.resolution
    )
    facts = Facts(
        num_classes=len(data.class_names),
        dim=encoder.dim,
        class_counts=torch.from_numpy(data.class_counts),
        total_steps=options.steps,
        num_unlabeled=0 if data.unlabeled is None else len(data.unlabeled),
    )
    method = compose(config.method, facts, config.method_options)
    batches = Batches(data, method, options, config.augmentation)
    training = Training(network.to(device), method.to(device), options)

    split = config.split
    if split.labeled_head is not None:
        split = dataclasses.replace(split, holdout=len(data.split.holdout))
    resolved = dataclasses.replace(
        config,
        data=config.data or source.place,
        size=height if height == width else None,
        split=split,
        augmentation=batches.augmentation,
        method_options=resolved_options(config.method, method),
        train=dataclasses.replace(
            options,
            network=name,
            learning_rate=training.base_rate,
            schedule=training.schedule,
            evaluate_every=options.evaluation_period,
            device=str(device),
        ),
    )
    return Prepared(resolved, data, training, batches)


def describe_data(data: TrainingData) -> dict[str, Any]:
    """Return what a run folder says of its data; enough, with the configuration, to rebuild the network."""

    def count(pool: Any) -> int:
        return 0 if pool is None else len(pool)

    truth = None
    if data.unlabeled is not None and bool((data.unlabeled.labels >= 0).all()):
        truth = torch.bincount(data.unlabeled.labels, minlength=len(data.class_names)).tolist()
    return {
        "class_names": list(data.class_names),
        "labeled_counts": data.class_counts.tolist(),
        "unlabeled_counts": truth,
        "unlabeled": count(data.unlabeled),
        "holdout": count(data.holdout),
        "test": count(data.test),
        "image_shape": list(data.labeled.images.shape[1:]),
        "mean": list(data.mean),
        "std": list(data.std),
        "split_fingerprint": data.fingerprint,
        "images_fingerprints": data.images_fingerprints,
    }


def train_run(prepared: Prepared, folder: Path) -> Iterator[Row]:
    """Train into a new run folder, yielding the rows that ``fit`` yields.

    Raises:
        RunError: the folder holds something already, another process has it, or it cannot be written.
    """
    with claim_folder(folder):
        device = prepared.data.labeled.images.device
        save_json(folder / "environment.json", describe_environment(device))
        save_json(folder / "data.json", describe_data(prepared.data))
        save_json(folder / "config.json", prepared.config.to_dict())
        yield from _go_on(prepared, folder)


def moved(config: RunConfig, data: Path | None, device: str | None = None) -> RunConfig:
    """Return a run's configuration with its files, or its device, elsewhere."""
    if data is not None:
        place = str(data.resolve())
        named = config.source in NAMES
        config = (
            dataclasses.replace(config, data=place) if named else dataclasses.replace(config, source=place)
        )
    if device is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, device=device))
    return config


def resume_run(
    folder: Path,
    warn: Callable[[str], None] = _notice,
    *,
    data: Path | None = None,
    device: str | None = None,
) -> tuple[Prepared, Iterator[Row]]:
    """Go on with a run from its newest whole checkpoint; a run without one starts anew.

    Rows after the checkpoint are dropped from ``metrics.jsonl``: the run writes them again.

    Args:
        folder: of the run.
        warn: is told of damaged checkpoints.
        data: where the run's files are now, if they have moved.
        device: another one than the run's.

    Returns:
        What was prepared, and the remaining rows, none if the run was complete.

    Raises:
        RunError: the folder is no run, another process has it, or its data or configuration has changed.
    """
    config = RunConfig.from_dict(read_json(folder / "config.json"), str(folder / "config.json"))
    saved = read_json(folder / "data.json")
    lock = lock_folder(folder)
    try:
        prepared = prepare(moved(config, data, device))
        found = describe_data(prepared.data)
        for key, what in (("split_fingerprint", "split"), ("images_fingerprints", "images")):
            if saved.get(key) != found[key]:
                raise RunError(
                    f"the data of {folder} has changed: the fingerprint of its {what} was {saved.get(key)}, "
                    f"the same options now give {found[key]}"
                )
        checkpoints = folder / "checkpoints"
        for place in (folder, checkpoints):
            remove_leftovers(place)
        if has_checkpoint(checkpoints):
            checkpoint = load_checkpoint(checkpoints, warn)
            if checkpoint.configuration != prepared.config.fingerprint():
                raise RunError(
                    f"the checkpoint is of another configuration: {folder / 'config.json'} has been changed since; "
                    f"undo that, or train anew with 'daso train'"
                )
            prepared.training.load(checkpoint.tensors, checkpoint.step, checkpoint.seconds)
        else:
            warn(f"{folder} has no checkpoint: it starts from the beginning")
    except BaseException:
        lock.close()
        raise

    def rows() -> Iterator[Row]:
        with lock:
            yield from _go_on(prepared, folder)

    return prepared, rows()


def _go_on(prepared: Prepared, folder: Path) -> Iterator[Row]:
    """Train on from where the training stands, writing rows, checkpoints and at the end the summary."""
    training = prepared.training
    configuration = prepared.config.fingerprint()
    metrics = folder / "metrics.jsonl"
    rows = [row for row in read_rows(metrics) if row["step"] <= training.step]
    write_atomically(metrics, "".join(map(to_line, rows)).encode())
    if 0 < training.step < prepared.config.train.steps:
        environment = read_json(folder / "environment.json")
        now = describe_environment(prepared.data.labeled.images.device)
        environment.setdefault("resumed", []).append({"from_step": training.step, **now})
        save_json(folder / "environment.json", environment)
    for row in fit(training, prepared.batches, prepared.data):
        try:
            with metrics.open("a", encoding="utf-8") as file:
                file.write(to_line(row))
        except OSError as error:
            raise RunError(f"cannot write {metrics}: {error.strerror or error}") from error
        if row["event"] == "evaluate":
            rows.append(row)
            save_checkpoint(
                folder / "checkpoints", training.tensors(), training.step, training.seconds, configuration
            )
        yield row
    summary = {
        "method": prepared.config.method,
        "source": prepared.config.source,
        "seed": prepared.config.train.seed,
        "steps": training.step,
        "seconds": round(training.seconds, 3),
        "split_fingerprint": prepared.data.fingerprint,
        **summarize(rows),
    }
    save_json(folder / "summary.json", plain(summary))
