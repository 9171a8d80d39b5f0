"""Small float64 networks and batches that the tests of the core share.

In float64 two ways to compute one number differ by 1e-12 on every processor, and a mistake shows.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daso.compose import compose
from daso.methods.method import Batch, Method
from daso.nets.network import Network
from daso.nets.readout import Readout
from daso.parts import Facts

K, D = 4, 16
EAGER: dict[str, dict[str, Any]] = {
    **{name: {"threshold": 0.4} for name in ("pseudolabel", "fixmatch", "boss", "debiaspl")},
    "freematch": {"mean_decay": 0.9},
    "softmatch": {"mean_decay": 0.9},
    "acr": {"threshold": 0.4, "estimate_start": 0.0, "estimate_period": 2},
    "simpro": {"threshold": 0.4, "prior_period": 2},
    "adello": {"threshold": 0.4, "complementary_start": 0.0},
    "cdmad": {"threshold": 0.4, "debias_start": 0.0},
    "cossl": {"threshold": 0.4, "colearning_start": 0.0},
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


class Float64Network(Network):
    """A network whose features are not rounded to float32."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.encoder(self.normalize(images).double())
        return features


class FeaturesAsImages(nn.Module):
    """A network whose images are its features, with linear heads of given weights and biases."""

    def __init__(self, weight: Tensor, bias: Tensor, **others: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({"class": weight, **others})
        self.bias = nn.Parameter(bias)

    def forward(self, features: Tensor) -> Tensor:
        return features

    def classify(self, features: Tensor, head: str = "class") -> Tensor:
        logits = features @ self.weights[head].T
        return logits + self.bias if head == "class" else logits


def make_network(seed: int = 0, channels: int = 1, resolution: int | None = None) -> Network:
    torch.manual_seed(seed)
    mean, std = [0.5, 0.4, 0.3][:channels], [0.25, 0.2, 0.3][:channels]
    heads = {"class": K, "rotation": 4, "abc": K}
    network = Float64Network(OneLayer(channels), heads, mean, std, resolution=resolution)
    with torch.no_grad():
        for name in ("class", "abc"):
            network.heads[name].weight *= 3  # so that guesses differ in confidence
    network.readout = small_readout()
    for name in ("balanced", "debiased", "enhanced"):  # of ACR, CDMAD and CoSSL
        network.heads[name] = copy.deepcopy(network.heads["abc"])
    return network.double()


def small_readout() -> Readout:
    """Return a readout of the network's features as they are, of unit length."""
    readout = Readout({"network": D}, D, D, K)
    for matrix in (readout.blocks["network"].matrix, readout.blocks["network"].share):
        torch.nn.init.eye_(cast(Tensor, matrix))
    readout.weight.normal_()
    readout.prior.copy_(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    return readout


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
        shape = (count, channels, size, size)
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    return Batch(
        (images(labeled),),
        torch.randint(0, K, (labeled,), generator=generator),
        tuple(images(unlabeled) for _ in method.unlabeled_views),
        torch.arange(unlabeled),
        torch.tensor(step),
        method.draw(labeled, unlabeled, generator),
    )


def build(name: str, counts: Tensor = COUNTS, **options: Any) -> Method:
    """Compose a float64 method whose every part acts from the first steps on."""
    parts, eager = name.split("+"), dict[str, Any]()
    for part, values in EAGER.items():
        eager |= values if part in parts else {}
    facts = Facts(K, D, counts, counts, 1000, 100)
    return compose(name, facts, {**eager, **options}).double()
