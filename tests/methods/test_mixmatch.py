"""MixMatch: its formula, with and without a refiner."""

from collections.abc import Callable

import torch
from small_learners import (
    IMAGES,
    REFINERS,
    build,
    check_formula,
    logits_of,
    mixtures,
    soft_cross_entropy,
)
from torch import Tensor

from daso.methods.method import Batch
from daso.nets.network import Network

HALF_RAMP = 8


def formula(
    network: Network, teacher: Network, batch: Batch, refine: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    guesses = zip(*(logits_of(network, view) for view in batch.unlabeled), strict=True)
    means = [((a.softmax(0) + b.softmax(0)) / 2).detach() for a, b in guesses]
    logits, labels = mixtures(network, batch, [refine(p**2 / (p**2).sum()) for p in means])
    size = len(batch.labels)
    squares = [
        (row.softmax(0) - y) ** 2 for row, y in zip(logits[size:], labels[size:], strict=True)
    ]
    return {
        "labeled": soft_cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 100 * torch.stack(squares).mean(),
    }


@IMAGES
@REFINERS
def test_guesses_are_averaged_then_sharpened_then_refined_then_mixed(
    refine: Callable[[Tensor], Tensor], channels: int, size: int, resolution: int | None
) -> None:
    check_formula(build("mixmatch"), formula, refine, HALF_RAMP, channels, size, resolution)
