"""Defaults for your own data, chosen from the data, with reasons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from daso.data.source import Source
from daso.presets.sources import MISMATCH_TEMPERATURE, SourceDefaults

QUEUE_BYTES = 2**26
"""Largest size of DASO's prototype queue."""
LARGEST_FEATURE = 2048
"""Largest number of dimensions of a feature in common encoders."""
ENOUGH_TO_CHOOSE = 200
"""Held-out images to choose the best network by; with fewer, chance would choose."""
EVALUATION_SHARE = 0.15
"""Largest share of the training time for evaluations."""


def choose_for(source: Source, device: torch.device) -> SourceDefaults:
    """Choose length, sizes and network, with reasons, for data that is not a known benchmark."""
    accelerated = device.type != "cpu"
    labels, classes = source.train.labels, len(source.class_names)
    unlabeled = 0 if source.unlabeled is None else len(source.unlabeled)
    vectors = source.train.images.ndim == 3
    options: dict[str, Any] = {}
    daso: dict[str, Any] = {}
    reasons: dict[str, str] = {}

    large = not vectors and max(source.train.images.shape[2:]) > 28
    most = 30_000 if accelerated else 2_000 if large else 6_000
    batch = options["batch"] = 64 if accelerated else 16
    reasons["batch"] = "an accelerator takes large batches" if accelerated else "no accelerator"
    steps, reasons["steps"] = _steps(len(labels), unlabeled, batch, most, accelerated=accelerated)
    options["steps"] = steps
    if not accelerated and large:
        options["network"], reasons["network"] = "wrn-10-2", "no accelerator: a small network"
    measured = sum(len(pool) for pool in (source.test, source.validation) if pool is not None)
    options["evaluate_every"], reasons["evaluate_every"] = _evaluation_period(
        measured or len(labels) // 5, steps, batch
    )
    held_out = 0 if source.validation is None else len(source.validation)
    if source.validation is None and source.test is None:  # a fifth of each class
        held_out = int((np.bincount(labels) // 5).sum())
    if held_out >= ENOUGH_TO_CHOOSE:
        options["deploy"] = "best"
        reasons["deploy"] = f"{held_out} held-out images are enough to choose a network by"
    longest = QUEUE_BYTES // (4 * classes * LARGEST_FEATURE)
    if longest < 256:
        daso["queue_length"] = max(8, longest)
        reasons["queue_length"] = (
            f"{classes} classes: a longer queue would take over {QUEUE_BYTES >> 20} MB"
        )
    if not vectors:
        daso["queue_batch_statistics"] = False
        reasons["queue_batch_statistics"] = (
            "running statistics: with few labels, a batch's prototypes miss the unlabeled images"
        )
    reasons["dist_temperature"] = (
        "the unlabeled distribution is unknown; if it is that of the labeled images, 1.5 is better"
    )
    supervised, supervised_reasons = _supervised(len(labels), most // 2, options["evaluate_every"])
    return SourceDefaults(
        options=options,
        supervised=supervised,
        parts={"daso": daso},
        dist_temperature=MISMATCH_TEMPERATURE,
        reasons=reasons,
        supervised_reasons=supervised_reasons,
    )


def _supervised(labeled: int, most: int, period: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the length of a training on labels alone, and why."""
    batch = 64
    steps = int(np.clip(round(math.ceil(100 * labeled / batch), -2), 300, most))
    seen = steps * batch / max(labeled, 1)
    every = max(min(period, steps), steps // 5)
    training = {"batch": batch, "steps": steps, "evaluate_every": every}
    return training | {"schedule": "one-cycle", "ema_decay": 0.98}, {
        "batch": "a step takes labeled images only",
        "steps": f"{seen:.3g} passes over {labeled:,} labeled images; 300 to {most:,}",
        "evaluate_every": f"{steps // every} evaluations, since to fit a readout takes seconds",
        "schedule": "the rate falls to 0 whatever the length",
        "ema_decay": "an average over more than 50 steps of a short training lags behind it",
    }


def _steps(
    labeled: int, unlabeled: int, batch: int, most: int, *, accelerated: bool
) -> tuple[int, str]:
    """Return the training steps, with two unlabeled images per labeled one, and why."""
    least, passes = (5_000, 100) if accelerated else (1_000, 50)
    images, per_step = (unlabeled, 2 * batch) if unlabeled else (labeled, batch)
    steps = int(np.clip(round(math.ceil(passes * images / per_step), -2), least, most))
    kind = "unlabeled" if unlabeled else "labeled"
    seen = steps * per_step / max(images, 1)
    where = "an accelerator" if accelerated else "a CPU"
    reason = f"{seen:.3g} passes over {images:,} {kind} images; {least:,} to {most:,} on {where}"
    return steps, reason


def _evaluation_period(measured: int, steps: int, batch: int) -> tuple[int, str]:
    """Return the steps between evaluations, and why.

    A step computes forward and backward, three times the work of an evaluation per image, for
    5 views per labeled image: itself, and two of each of two unlabeled ones.
    """
    cheap = math.ceil(measured / (EVALUATION_SHARE * 3 * 5 * batch))
    period = min(max(steps // 50, cheap), max(1, steps // 10))
    return period, f"{steps // period} evaluations of {measured:,} images"
