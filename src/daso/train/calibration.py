"""Calibrate a run: ``calibration.json`` in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from daso.data.training_data import TrainingData
from daso.errors import RunError
from daso.evaluate.calibration import Calibration, calibrate, calibrated
from daso.evaluate.predict import predict_logits
from daso.files import plain, read_json, save_json
from daso.report.reliability import reliability_bins
from daso.train.model import load_model

NAME = "calibration.json"


def calibrate_run(
    folder: Path, data: TrainingData, warn: Callable[[str], None], encoder: nn.Module | None = None
) -> Calibration:
    """Fit the temperature of a run's model on its hold-out and write it.

    Raises:
        RunError: the run has no complete checkpoint, or its folder cannot be written.
    """
    model = load_model(folder, data.labeled.images.device, warn, encoder)
    logits, labels = np.zeros((0, len(data.class_names))), np.zeros(0, dtype=np.int64)
    if data.holdout is not None:
        logits = predict_logits(model.network, data.holdout.images).numpy()
        labels = data.holdout.labels.cpu().numpy()
    calibration = calibrate(logits, labels, model.step)
    if calibration.note is None:
        part = "holdout"
        if data.test is not None:
            part, labels = "test", data.test.labels.cpu().numpy()
            logits = predict_logits(model.network, data.test.images).numpy()
        answered = _reliability(calibrated(logits, calibration.temperature), labels)
        calibration = replace(calibration, answered={"measured_on": part, **answered})
    save_json(folder / NAME, plain(calibration.to_dict()))
    return calibration


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
        why = "the run is unfinished or of an older version; 'daso resume' calibrates it"
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
