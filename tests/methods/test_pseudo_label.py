"""Pseudo-Label: its formula, with and without a refiner."""

from collections.abc import Callable

import torch
from small_learners import IMAGES, REFINERS, K, build, check_formula, logits_of, soft_cross_entropy
from torch import Tensor

from daso.methods.method import Batch
from daso.nets.network import Network

HALF_RAMP = 200


def formula(
    network: Network, teacher: Network, batch: Batch, refine: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    per_image = []
    for row in logits_of(network, batch.unlabeled[0]):
        probs = refine(row.detach().softmax(0))
        per_image.append(-row.log_softmax(0)[probs.argmax()] * (probs.max() >= 0.4))
    labels = [torch.eye(K)[label] for label in batch.labels]
    return {
        "labeled": soft_cross_entropy(logits_of(network, batch.labeled[0]), labels),
        "unlabeled": 0.5 * torch.stack(per_image).mean(),
    }


@IMAGES
@REFINERS
def test_the_confident_refined_guess_teaches_the_view_itself(
    refine: Callable[[Tensor], Tensor], channels: int, size: int, resolution: int | None
) -> None:
    check_formula(build("pseudolabel"), formula, refine, HALF_RAMP, channels, size, resolution)
