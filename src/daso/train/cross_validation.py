"""Cross-validation: every labeled image is classified once by a training that has not seen it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from daso.data.longtail import SplitOptions
from daso.data.training_data import TrainingData
from daso.errors import OptionError
from daso.evaluate.metrics import confusion_matrix, recall_precision, wilson_interval
from daso.evaluate.predict import predict_logits
from daso.files import plain, read_json, save_json
from daso.train.config import RunConfig
from daso.train.model import load_model

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


def answer_fold(folder: Path, data: TrainingData) -> None:
    """Write the predictions of a finished run's newest model on its held-out images.

    A checkpoint chosen by the held-out images would be biased.
    """
    if data.holdout is None:  # fewer images than folds
        truth, answers = [], []
    else:
        model = load_model(folder, data.labeled.images.device, lambda message: None)
        truth = data.holdout.labels.tolist()
        answers = predict_logits(model.network, data.holdout.images).argmax(1).tolist()
    save_json(folder / ANSWERS, {"labels": truth, "answers": answers})


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
