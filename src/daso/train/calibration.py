"""Calibrate a run: ``calibration.json`` in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from daso.data.class_names import listed
from daso.data.images.decode import decode_for_model
from daso.data.images.decoded import DecodedImages
from daso.data.images.encoded import work_through
from daso.data.images.pool import Pool
from daso.data.listing import Reading
from daso.data.open import list_own
from daso.data.source import Source
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import (
    DataError,
    OptionError,
    RunError,
    how_many,
    nearest,
    problems,
    same_name,
    typed,
)
from daso.evaluate.calibration import Calibration, calibrate, calibrated
from daso.evaluate.predict import predict_logits
from daso.evaluate.reliability import reliability_bins
from daso.files import read_json, save_sealed
from daso.nets.backbone import checksum
from daso.train.evaluation import Answers
from daso.train.model import Model, load_model

NAME = "calibration.json"


def calibrate_run(
    folder: Path,
    data: TrainingData,
    answers: Answers,
    warn: Callable[[str], None],
    encoder: nn.Module | None = None,
) -> Calibration:
    """Fit the temperature of a run's model on its hold-out and write it.

    What ``daso calibrate`` has fitted to the same model on other images is kept.

    Args:
        answers: of the run's model.

    Raises:
        RunError: the run has no complete checkpoint, or its folder cannot be written.
    """
    model = load_model(folder, data.labeled.images.device, warn, encoder)
    if (folder / NAME).exists():
        kept = read_calibration(folder, model.step)
        if kept.given is not None and kept.model == fingerprint(model):
            return kept
    return _calibrate(folder, model, data, data.holdout, answers=answers)


def calibrate_again(
    folder: Path,
    model: Model,
    source: Source,
    given: DecodedImages | None = None,
    place: Path | None = None,
) -> Calibration:
    """Fit the temperature of a trained model again, on labels that its training has not seen.

    With too few of them nothing is written; the note of the result says so.

    Args:
        source: the images of the run.
        given: labeled images from *place*; None: the hold-out of the run.

    Raises:
        DataError: one of the given images is a labeled, unlabeled or test image of the run; the
            first 20 are named.
        RunError: the folder cannot be written.
    """
    config, device = model.config, next(model.network.parameters()).device
    data = prepare_data(source, config.split, config.train.seed, device, config.memory)
    if given is None:
        return _calibrate(folder, model, data, data.holdout, keep=True)
    seen = {
        key: name
        for name, pool in data.pools.items()
        if name != "holdout"
        for key in map(bytes, pool.digests)
    }
    known = [
        (name, f"is one of the run's {seen[key]} images")
        for name, key in zip(given.paths, map(bytes, given.digests), strict=True)
        if key in seen
    ]
    if known:
        is_one = "image is" if len(given) == 1 else "images are"
        what = f"{len(known):,} of {len(given):,} {is_one} the run's own"
        cure = (
            "The training has seen the labeled and unlabeled images, and the result is measured on "
            "the test images; leave these out"
        )
        raise DataError(problems(known, what, cure, between=" "))
    pool = Pool(torch.from_numpy(np.asarray(given.images)), torch.from_numpy(given.labels))
    return _calibrate(folder, model, data, pool, place=place, keep=True)


def read_labeled(place: Path, model: Model, tell: Callable[[str], None]) -> DecodedImages:
    """Decode labeled images as ``daso predict`` does, for a model that takes images.

    *tell* is called with notes about what is not used, and about labels that were read as others.

    Raises:
        DataError: an image cannot be read, or a class is not one of the model's.
        OptionError: the model takes vectors, or the place holds arrays or no labels.
    """
    if len(model.image_shape) != 3:
        raise OptionError(f"{place}: labeled images can be given to a model of images only")
    listing = list_own(str(place), Reading())
    if listing is None:
        raise OptionError(
            f"{place}: no labeled images in a known layout; give a folder with two class folders "
            "or more, a list of images with labels, a table or shards"
        )
    numbers = {name: number for number, name in enumerate(model.class_names)}
    names = [same_name(name, model.class_names) for name in listing.class_names]
    if unknown := [name for name in names if name not in numbers]:
        raise DataError(
            f"{place}: not among the classes of the model: {listed(unknown)}; it knows "
            f"{listed(model.class_names)}.{nearest(unknown[0], model.class_names)}"
        )
    for note in listing.notes:
        tell(f"note: {note}")
    for part in listing.pools.keys() - {"train"}:
        tell(f"note: {place}: its {part} images are not used")
    pool = listing.pools["train"]
    decoded = list(work_through(pool, partial(decode_for_model, shape=model.image_shape)))
    if faults := [(pool.name_of(k), one) for k, one in enumerate(decoded) if isinstance(one, str)]:
        what = f"{place}: {how_many(len(faults), 'image')} cannot be read"
        raise DataError(problems(faults, what, "Replace or remove them"))
    labels = np.array([numbers[name] for name in names], dtype=np.int64)[pool.labels]
    called = tuple(map(pool.name_of, range(len(pool))))
    return DecodedImages(np.array(decoded), labels, called)


def _calibrate(
    folder: Path,
    model: Model,
    data: TrainingData,
    fitted: Pool | None,
    *,
    place: Path | None = None,
    answers: Answers = MappingProxyType({}),
    keep: bool = False,
) -> Calibration:
    """Fit to labeled images, of a run or from *place*, and write it.

    *keep*: write nothing if nothing could be fitted.
    """

    def answered(pool: Pool, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        known = answers.get(name)
        logits = predict_logits(model.network, pool.images) if known is None else known
        return logits.numpy(), pool.labels.cpu().numpy()

    logits, labels = np.zeros((0, len(data.class_names))), np.zeros(0, dtype=np.int64)
    if fitted is not None:
        logits, labels = answered(fitted, "holdout" if place is None else "given")
    calibration = calibrate(logits, labels, model.step)
    if calibration.note is None:
        part, measured = ("holdout", data.holdout) if data.test is None else ("test", data.test)
        if measured is not None:
            logits, labels = answered(measured, part)
        measured_on = "given" if measured is None else part
        reliability = _reliability(calibrated(logits, calibration.temperature), labels)
        calibration = replace(calibration, answered={"measured_on": measured_on, **reliability})
    elif keep:
        return calibration
    if place is not None:
        calibration = replace(calibration, given=str(place), model=fingerprint(model))
    save_sealed(folder / NAME, asdict(calibration))
    return calibration


def fingerprint(model: Model) -> str:
    """Return a digest of a model's weights."""
    return checksum(model.network.state_dict())


def _reliability(probs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> dict[str, Any]:
    bins = reliability_bins(probs.max(1), probs.argmax(1) == labels)
    columns = {name: getattr(bins, name).tolist() for name in ("counts", "accuracy", "confidence")}
    return {"images": len(labels), "error": bins.error, **columns}


def read_calibration(folder: Path, step: int) -> Calibration:
    """Return the calibration of a run's checkpoint, or temperature 1 and a note that says why.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / NAME
    if not path.exists():
        cure = f"'daso resume {typed(folder)}' calibrates it"
        why = f"the run is unfinished or of an older version; {cure}"
        return Calibration(1.0, step, 0, note=f"{folder} has no {NAME}: {why}")
    values = read_json(path)
    try:
        calibration = Calibration(**values)
        if not 0 < float(calibration.temperature) < float("inf"):
            raise ValueError(f"temperature = {calibration.temperature}")
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if calibration.step != step:
        note = (
            f"{path} belongs to the checkpoint of step {calibration.step:,}, not of step {step:,}"
        )
        return Calibration(1.0, step, 0, note=note)
    return calibration
