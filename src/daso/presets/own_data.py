"""What the command line takes for people's own data where it is not told: chosen from the data, with the reasons."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from daso.data.source import Source
from daso.presets.sources import MISMATCH_TEMPERATURE, SourceDefaults

QUEUE_BYTES = 2**26
"""Of DASO's prototype queue."""
CHOSEN_BY = 200
"""Held-out images from which on the best network on them is taken; by fewer the choice would be chance."""
EVALUATION_SHARE = 0.15
"""Of the time of a training, at most, for evaluations."""


def choose_for(source: Source, device: torch.device) -> SourceDefaults:
    """Choose length, sizes and network for data that is no known benchmark.

    Args:
        source: the data, as it was read.
        device: that it is trained on.

    Returns:
        The defaults; ``reasons`` says why, by option.
    """
    accelerated = device.type != "cpu"
    labels, classes = source.train.labels, len(source.class_names)
    unlabeled = 0 if source.unlabeled is None else len(source.unlabeled)
    vectors = source.train.images.ndim == 3
    reasons: dict[str, str] = {}

    batch = 64 if accelerated else 16
    reasons["batch"] = "an accelerator takes large batches" if accelerated else "no accelerator"
    network, large = None, not vectors and max(source.train.images.shape[2:]) > 28
    most = 30_000 if accelerated else 2_000 if large else 6_000
    steps, reasons["steps"] = _steps(len(labels), unlabeled, batch, most, accelerated=accelerated)
    if not accelerated and large:
        network, reasons["network"] = "wrn-10-2", "no accelerator: a small network"
    precision: Literal["bfloat16"] | None = None
    if _bfloat16_is_fast(device) and not vectors:
        precision, reasons["precision"] = (
            "bfloat16",
            "this device computes it faster than float32",
        )
    measured = sum(len(pool) for pool in (source.test, source.validation) if pool is not None)
    evaluate_every, reasons["evaluate_every"] = _evaluation_period(
        measured or len(labels) // 5, steps, batch
    )
    held_out = len(source.validation) if source.validation is not None else _hold_out(source)
    deploy: Literal["best"] | None = None
    if held_out >= CHOSEN_BY:
        deploy, reasons["deploy"] = (
            "best",
            f"{held_out} held-out images are enough to choose a network by",
        )
    # The features of the usual encoders have up to 2,048 numbers.
    longest = QUEUE_BYTES // (4 * classes * 2048)
    queue_length = None
    if longest < 256:
        queue_length = max(8, longest)
        reasons["queue_length"] = (
            f"{classes} classes: a longer queue would take over {QUEUE_BYTES >> 20} MB"
        )
    reasons["dist_temperature"] = (
        "nobody knows how the unlabelled images are distributed; if like the labelled ones, 1.5 is better"
    )
    running = None if vectors else False
    reasons["queue_batch_statistics"] = (
        "prototypes by running statistics: of few labels, those of a batch lie apart from the unlabelled images"
    )
    return SourceDefaults(
        steps=steps,
        dist_temperature=MISMATCH_TEMPERATURE,
        batch=batch,
        network=network,
        precision=precision,
        evaluate_every=evaluate_every,
        queue_length=queue_length,
        queue_batch_statistics=running,
        deploy=deploy,
        reasons=reasons,
    )


def _hold_out(source: Source) -> int:
    """Return how many labelled images are held out: where nothing else is there to measure on, a fifth of a class."""
    if source.test is not None:
        return 0
    return int((np.bincount(source.train.labels) // 5).sum())


def _steps(
    labeled: int, unlabeled: int, batch: int, most: int, *, accelerated: bool
) -> tuple[int, str]:
    """Return the training steps for the paper's two unlabelled images per labelled one in a step, and why."""
    least, passes = (5_000, 100) if accelerated else (1_000, 50)
    images, per_step = (unlabeled, 2 * batch) if unlabeled else (labeled, batch)
    wanted = math.ceil(passes * images / per_step)
    steps = int(np.clip(round(wanted, -2), least, most))
    kind = "unlabelled" if unlabeled else "labelled"
    seen = steps * per_step / max(images, 1)
    where = "an accelerator" if accelerated else "a CPU"
    return (
        steps,
        f"{seen:.3g} passes over {images:,} {kind} images; from {least:,} to {most:,} on {where}",
    )


def _evaluation_period(measured: int, steps: int, batch: int) -> tuple[int, str]:
    """Return the steps between evaluations of so many images, and why.

    A step computes forward and backward, three times an evaluation's work an image, for labelled images and, of
    unlabelled ones twice as many, two views.
    """
    cheap = math.ceil(measured / (EVALUATION_SHARE * 3 * 5 * batch))
    period = min(max(steps // 50, cheap), max(1, steps // 10))
    return period, f"{steps // period} evaluations of {measured:,} images"


def _bfloat16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _has_matrix_units()


def _has_matrix_units() -> bool:
    """Whether the processor multiplies bfloat16 matrices by itself (AMX, AVX-512 BF16), as far as torch says."""
    questions = (
        getattr(torch.cpu, name, None)
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return any(bool(question()) for question in questions if question is not None)
