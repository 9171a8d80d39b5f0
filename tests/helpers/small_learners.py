"""Small networks, batches and row-by-row formulas that the tests of the learners share."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daso.compose import compose
from daso.methods.method import Batch, Method
from daso.nets.network import Network
from daso.parts import Facts
from daso.refine.guess import Guess, Refiner

K, D = 4, 16
EAGER: dict[str, dict[str, Any]] = {
    **{name: {"threshold": 0.4} for name in ("pseudolabel", "fixmatch", "boss")},
    "usadtm": {"warmup_steps": 0, "cosine_threshold": 0.5},
    "daso": {"warmup_steps": 0, "histogram_period": 1, "queue_length": 8},
    "darp": {"darp_start": 0.0, "darp_period": 1},
    "abc": {"balanced_threshold": 0.4},
    **{name: {"reweight_from": 0.0} for name in ("ldam", "class-balanced")},
}
"""Options with which a part acts from the first steps on."""
COUNTS = torch.tensor([9, 5, 2, 1])


class OneLayer(nn.Module):
    """An encoder that is quick to trace."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = D
        self.convolution = nn.Conv2d(channels, D, 3, bias=False)
        self.norm = nn.BatchNorm2d(D)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.convolution(x))).amax((2, 3))


def make_network(seed: int = 0, channels: int = 1, resolution: int | None = None) -> Network:
    torch.manual_seed(seed)
    mean, std = [0.5, 0.4, 0.3][:channels], [0.25, 0.2, 0.3][:channels]
    heads = {"class": K, "rotation": 4, "abc": K}
    network = Network(OneLayer(channels), heads, mean, std, resolution=resolution)
    with torch.no_grad():
        for name in ("class", "abc"):
            network.heads[name].weight *= 3  # so that guesses differ in how sure they are
    return network


def make_batch(
    method: Method,
    step: int = 0,
    labeled: int = 8,
    unlabeled: int = 8,
    channels: int = 1,
    size: int = 8,
) -> Batch:
    generator = torch.Generator().manual_seed(step)

    def images(count: int) -> Tensor:
        return torch.randint(
            0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8
        )

    return Batch(
        (images(labeled),),
        torch.randint(0, K, (labeled,), generator=generator),
        tuple(images(unlabeled) for _ in method.unlabeled_views),
        torch.arange(unlabeled),
        torch.tensor(step),
        method.draw(labeled, unlabeled, generator),
    )


def build(name: str, counts: Tensor = COUNTS, **options: Any) -> Method:
    """Compose a method whose every part acts from the first steps on, also on guesses as unsure as those here."""
    parts, eager = name.split("+"), dict[str, Any]()
    for part, values in EAGER.items():
        eager |= values if part in parts else {}
    return compose(name, Facts(K, D, counts, counts, 1000, 100), {**eager, **options})


def gradient(loss: Tensor, network: Network) -> list[Tensor]:
    network.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def total(method: Method, network: Network, teacher: Network, batch: Batch) -> Tensor:
    return torch.stack(list(method(network, teacher, batch).losses.values())).sum()


def logits_of(network: Network, images: Tensor, head: str = "class") -> list[Tensor]:
    """Return the logits of each image, uint8 or float, passed alone."""
    return [network.classify(network(image[None]), head)[0] for image in images]


def soft_cross_entropy(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    pairs = zip(logits, targets, strict=True)
    return torch.stack([-(target * row.log_softmax(0)).sum() for row, target in pairs]).mean()


def mixtures(
    network: Network, batch: Batch, targets: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the logits and the labels of the mixtures, row by row, given the targets of one view."""
    views = [*batch.labeled, *batch.unlabeled]
    images = [network.normalize(image[None])[0] for view in views for image in view]
    labels = [torch.eye(K)[label] for label in batch.labels] + targets * len(batch.unlabeled)
    factor, order = batch.draws["mixup_factor"], batch.draws["mixup_order"].tolist()
    mixed = [factor * images[i] + (1 - factor) * images[j] for i, j in enumerate(order)]
    labels = [factor * labels[i] + (1 - factor) * labels[j] for i, j in enumerate(order)]
    return logits_of(network, torch.stack(mixed)), labels


def unrefined(probs: Tensor) -> Tensor:
    return probs


def blended(probs: Tensor) -> Tensor:
    """Refine guesses so that other classes become likely; to sharpen before is not to sharpen after."""
    return 0.6 * probs.roll(1, -1) + 0.4 * torch.tensor([0.1, 0.2, 0.3, 0.4])


def agreement(probs: Tensor, strong: Tensor) -> Tensor:
    """Return a loss of the refined guess about an image and the features of its strong view."""
    return -0.1 * (probs * strong[:K].log_softmax(0)).sum()


class Blended(Refiner):
    """Refines by ``blended`` and adds a loss on the strong view."""

    def forward(self, guess: Guess) -> Guess:
        return guess._replace(probs=blended(guess.probs))

    def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
        pairs = zip(guess.probs, strong, strict=True)
        return {"agreement": torch.stack([agreement(p, z) for p, z in pairs]).mean()}


Formula = Callable[[Network, Network, Batch, Callable[[Tensor], Tensor]], dict[str, Tensor]]
"""From network, teacher, batch and what refines a guess to the losses by name."""
REFINERS = pytest.mark.parametrize("refine", [unrefined, blended])
IMAGES = pytest.mark.parametrize(("channels", "size", "resolution"), [(1, 8, None), (3, 12, 8)])


def check_formula(
    method: Method, formula: Formula, refine: Callable[[Tensor], Tensor], step: int, *images: Any
) -> None:
    """Check the losses of a step and their gradient against a formula that goes image by image.

    Args:
        method: not refined yet.
        formula: of its losses.
        refine: its guesses are refined by this.
        step: of the batch.
        images: their channels and side, and the network's resolution.
    """
    channels, size, resolution = images
    if refine is blended:
        method.refine = Blended()
    network, teacher = (make_network(seed, channels, resolution).eval() for seed in (0, 1))
    batch = make_batch(method, 3, channels=channels, size=size)._replace(step=torch.tensor(step))
    losses = method(network, teacher, batch).losses
    expected = formula(network, teacher, batch, refine)
    assert losses.keys() == expected.keys()
    for loss, value in expected.items():
        assert value > 0
        torch.testing.assert_close(losses[loss], value, rtol=1e-4, atol=1e-6)
    actual_gradient, expected_gradient = (
        gradient(torch.stack(list(found.values())).sum(), network) for found in (losses, expected)
    )
    for actual, wanted in zip(actual_gradient, expected_gradient, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in teacher.parameters())
