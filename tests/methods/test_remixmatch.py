"""ReMixMatch: its formula, with and without a refiner, its alignment and its rotations."""

from collections.abc import Callable

import pytest
import torch
from small_learners import (
    COUNTS,
    IMAGES,
    REFINERS,
    agreement,
    blended,
    build,
    check_formula,
    logits_of,
    mixtures,
    soft_cross_entropy,
)
from torch import Tensor

from daso.errors import OptionError
from daso.methods.method import Batch
from daso.methods.remixmatch import turn
from daso.nets.network import Network

HALF_RAMP = 8


def formula(
    network: Network, teacher: Network, batch: Batch, refine: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    probs = torch.stack(logits_of(network, batch.unlabeled[0])).detach().softmax(1)
    aligned = [p * (COUNTS / COUNTS.sum() + 1e-6) / (probs.mean(0) + 1e-6) for p in probs]
    targets = [refine(p**2 / (p**2).sum()) for p in aligned]
    logits, labels = mixtures(network, batch, targets)
    size = len(batch.labels)
    turns = batch.draws["rotations"].tolist()
    strong = [network.normalize(image[None])[0] for image in batch.unlabeled[1]]
    turned = [torch.rot90(image, k, (1, 2)) for image, k in zip(strong, turns, strict=True)]
    rotations = logits_of(network, torch.stack(turned), "rotation")
    losses = {
        "labeled": soft_cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 1.5 * soft_cross_entropy(logits[size:], labels[size:]),
        "premix": 0.5 * 0.5 * soft_cross_entropy(logits_of(network, batch.unlabeled[1]), targets),
        "rotation": 0.5 * soft_cross_entropy(rotations, [torch.eye(4)[k] for k in turns]),
    }
    if refine is blended:
        features = [network(image[None])[0] for image in batch.unlabeled[1]]
        pairs = zip(targets, features, strict=True)
        losses["agreement"] = torch.stack([agreement(p, z) for p, z in pairs]).mean()
    return losses


@IMAGES
@REFINERS
def test_guesses_are_aligned_then_sharpened_then_refined_and_teach_every_view(
    refine: Callable[[Tensor], Tensor], channels: int, size: int, resolution: int | None
) -> None:
    check_formula(build("remixmatch"), formula, refine, HALF_RAMP, channels, size, resolution)


def test_remixmatch_aligns_unless_its_refiner_takes_the_place() -> None:
    names = {
        "remixmatch": True,
        "remixmatch+daso": False,
        "remixmatch+sharpen": True,
        "remixmatch+align": False,
    }
    for name, aligns in names.items():
        assert build(name).align is aligns
        assert build(name, align=not aligns).align is not aligns
    assert build("remixmatch").heads == {"rotation": 4}


@pytest.mark.parametrize("channels", [1, 3])
def test_images_turn_by_quarters(channels: int) -> None:
    images = torch.randn(8, channels, 5, 5)
    quarters = torch.arange(8) % 4
    turned = turn(images, quarters)
    for image, k, actual in zip(images, quarters.tolist(), turned, strict=True):
        assert torch.equal(actual, torch.rot90(image, k, (1, 2)))
    assert torch.equal(turn(images, torch.zeros(8, dtype=torch.int64)), images)
    assert torch.equal(turn(turned, -quarters % 4), images)
    with pytest.raises(OptionError, match="5 x 6"):
        turn(torch.randn(8, channels, 5, 6), quarters)
