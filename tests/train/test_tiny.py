"""Encoders whose strides are longer than what is left of an image compute in float32 on a CPU, whoever made them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from daso.data.source import Source
from daso.evaluate.predict import predict_logits
from daso.nets.network import Network, build_encoder
from daso.train.encoder.build import fall_back_to_float32
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig


class Halving(nn.Module):
    """Convolutions that halve the image, as those of any ImageNet model; more of them than 8 pixels have halves."""

    dim = 16

    def __init__(self, halvings: int) -> None:
        super().__init__()
        sides = [1, *[16] * halvings]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(sides))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x.mean((2, 3))


def test_float32_where_a_stride_is_longer_than_what_is_left() -> None:
    for halvings, shape, expected in (
        (3, (1, 8, 8), "bfloat16"),
        (4, (1, 8, 8), "float32"),
        (4, (1, 9, 9), "bfloat16"),
        (4, (1, 8, 32), "float32"),
        (4, (1, 32, 8), "float32"),
        (4, (64,), "bfloat16"),
    ):
        network = Network(Halving(halvings), {}, [0.5], [0.25], "bfloat16").train()
        fall_back_to_float32(network, shape)
        assert network.precision == expected
        assert network.training, halvings
        assert not any(module._forward_pre_hooks for module in network.modules()), halvings


def test_the_side_counts_to_which_images_are_resized() -> None:
    network = Network(Halving(4), {}, [0.5], [0.25], "bfloat16", resolution=32)
    fall_back_to_float32(network, (1, 8, 8))
    assert network.precision == "bfloat16"


@pytest.mark.parametrize("halvings", [3, 4])
def test_a_run_and_its_model_agree(
    halvings: int, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = Halving(halvings)
    config = tiny_config("supervised", network="python:Halving", precision="bfloat16", steps=4)
    prepared = prepare(config, digits, encoder=encoder)
    network = prepared.training.network
    list(train_run(prepared, tmp_path / "run"))
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    model = load_model(tmp_path / "run", torch.device("cpu"), print, encoder=Halving(halvings))
    assert (
        model.network.precision == network.precision == ("float32" if halvings == 4 else "bfloat16")
    )
    assert digits.test is not None
    images = torch.from_numpy(digits.test.images[:20])
    expected = predict_logits(prepared.training.average.network, images)
    assert torch.equal(predict_logits(model.network, images), expected)


def test_on_a_cpu_tiny_images_are_computed_in_float32() -> None:
    """The gradients of torch's strided bfloat16 convolutions of one pixel are partly memory that was never set."""
    for name, side in (("small-8", 1), ("small-8", 2), ("wrn-10-1", 2), ("resnet18", 4)):
        torch.manual_seed(0)
        images = torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8)
        networks = [
            Network(build_encoder(name, 3, side), {}, [0.5] * 3, [0.25] * 3, precision)
            for precision in ("float32", "bfloat16")
        ]
        networks[1].load_state_dict(networks[0].state_dict())
        for network in networks:
            fall_back_to_float32(network, (3, side, side))
            network(images).square().sum().backward()
        exact, coarse = ([p.grad for p in network.parameters()] for network in networks)
        assert all(map(torch.equal, coarse, exact)), name
