"""Cross-validation: every labeled image is classified once by a training that has not seen it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.data.split import make_split
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import OptionError, RunError
from daso.evaluate.metrics import Array, confusion_matrix, recall_precision, wilson_interval
from daso.evaluate.predict import predict_logits
from daso.files import plain, read_json, save_sealed
from daso.train.config import RunConfig
from daso.train.model import load_model
from daso.train.run_data import refuse_other_data

ANSWERS = "answers.json"
"""File in a fold's run folder with the predictions on the held-out images."""


def fold_config(config: RunConfig, folds: int, fold: int, steps: int | None = None) -> RunConfig:
    """Return a run's configuration with one fold of its labeled images as the hold-out.

    Args:
        steps: another length than the run's; DASO's warm-up and the evaluations scale with it.

    Raises:
        OptionError: the labeled images are a benchmark's split, or the length is out of range.
    """
    if config.split.labeled_head is not None:
        raise OptionError(
            "the labeled images are drawn from a larger set (--labeled-head): evaluate the run on "
            "a test set, with several values of --seed"
        )
    config = dataclasses.replace(config, split=SplitOptions(folds=folds, fold=fold))
    if steps is None or steps == config.train.steps:
        return config
    share, options = steps / config.train.steps, dict(config.method_options)
    if options.get("warmup_steps") is not None:
        options["warmup_steps"] = round(options["warmup_steps"] * share)
    period = max(1, round(config.train.evaluation_period * share))
    train = dataclasses.replace(config.train, steps=steps, evaluate_every=period)
    return dataclasses.replace(config, train=train, method_options=options)


def check_folds(labels: Array, folds: int) -> None:
    """Refuse more folds than there are labeled images to test: some would hold none.

    Raises:
        OptionError: there are more.
    """
    counts = np.bincount(labels)
    most = int(counts[counts > 1].sum())
    if folds > most:
        raise OptionError(
            f"folds = {folds} is out of range (--folds): the run has {most} labeled images to "
            "test; the only one of a class is not"
        )


def require_data_of_run(folder: Path, config: RunConfig, source: Source) -> dict[str, Any]:
    """Return the checksums of a run's images; refuse a source that holds others.

    Test images may differ: a validation does not use them.

    Raises:
        RunError: the classes, images, labels or split differ from those of the run.
    """
    data = prepare_data(source, config.split, config.train.seed, torch.device("cpu"), 0)
    refuse_other_data(folder, config, data, ("labeled", "unlabeled", "holdout"))
    return {name: value for name, value in data.images_fingerprints.items() if name != "test"}


def check_fold(folder: Path, config: RunConfig, source: Source, images: dict[str, Any]) -> None:
    """Refuse a fold's folder that is left from another configuration, split or data.

    Args:
        images: what ``require_data_of_run`` has returned.
    """
    if not (folder / "config.json").exists():
        return
    what = ""
    split = make_split(source, config.split, config.train.seed)
    fingerprint = split.fingerprint(source.train.labels)
    if RunConfig.read(folder).fingerprint() != config.fingerprint():
        what = "configuration"
    elif read_json(folder / "data.json").get("split_fingerprint", fingerprint) != fingerprint:
        what = "data"
    elif (folder / ANSWERS).exists():
        try:
            answers = read_json(folder / ANSWERS)
        except RunError as error:
            raise RunError(f"{error}; remove it, and the fold answers again") from error
        truth = source.train.labels[split.holdout].tolist()
        if answers["labels"] != truth or answers.get("images", images) != images:
            what = "data"
    if what:
        raise RunError(
            f"{folder} holds a validation with another {what}; remove {folder.parent}, and the "
            "folds are trained again"
        )


def answer_fold(folder: Path, data: TrainingData, images: dict[str, Any]) -> None:
    """Write the predictions of a finished run's newest model on its held-out images.

    A checkpoint chosen by the held-out images would be biased. *images* are the checksums of the
    images of the run.
    """
    if data.holdout is None:  # fewer images than folds
        truth, answers = [], []
    else:
        model = load_model(folder, data.labeled.images.device, lambda message: None)
        truth = data.holdout.labels.tolist()
        answers = predict_logits(model.network, data.holdout.images).argmax(1).tolist()
    save_sealed(folder / ANSWERS, {"labels": truth, "answers": answers, "images": images})


def summarize_folds(
    folders: list[Path], class_names: tuple[str, ...], labeled: list[int]
) -> dict[str, Any]:
    """Summarize the predictions of all folds.

    Args:
        labeled: labeled images of each class, in any fold or in none.

    Returns:
        ``balanced_accuracy`` is the mean recall over the measured classes; ``recall`` and
            ``precision`` per class are None if not measured, or never predicted;
            ``recall_interval`` is 95%, Wilson; in ``counts`` rows are true classes, columns
            predictions.
    """
    read = [read_json(folder / ANSWERS) for folder in folders]
    labels, answers = (
        np.concatenate([np.array(fold[name], dtype=np.int64) for fold in read])
        for name in ("labels", "answers")
    )
    counts = confusion_matrix(labels, answers, len(class_names))
    recall, precision = recall_precision(counts)
    hits, measured = np.diag(counts), counts.sum(1)
    intervals = [
        wilson_interval(int(h), int(n)) if n else None for h, n in zip(hits, measured, strict=True)
    ]
    result = {
        "folds": len(folders),
        "images": len(labels),
        "class_names": list(class_names),
        "labeled": labeled,
        "measured": measured.tolist(),
        "accuracy": float(hits.sum() / len(labels)) if len(labels) else None,
        "balanced_accuracy": float(np.nanmean(recall)) if len(labels) else None,
        "recall": recall.tolist(),
        "recall_interval": intervals,
        "precision": precision.tolist(),
        "counts": counts.tolist(),
    }
    return dict(plain(result))
