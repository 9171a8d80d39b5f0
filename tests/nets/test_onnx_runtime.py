"""Features of a frozen encoder by ONNX Runtime: the same as torch's, or torch computes them."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from daso.nets import onnx_runtime
from daso.nets.network import Network, build_encoder
from daso.nets.onnx_runtime import OnnxEncoder, accelerate


class Choosing(nn.Module):
    """An encoder that looks at its values, which no graph can express."""

    dim = 1

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True) if x.sum() > 0 else x.flatten(1)[:, :1]


class Noisy(nn.Module):
    """An encoder that never answers alike."""

    dim = 3

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.randn(len(x), 3)


def wrapped(encoder: nn.Module, precision: str = "float32", side: int | None = None) -> Network:
    torch.manual_seed(0)
    return Network(encoder, {}, [0.5] * 3, [0.25] * 3, precision, side).eval()


@pytest.fixture(autouse=True)
def _for_small_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "WORTHWHILE", 1)
    monkeypatch.setattr(onnx_runtime, "ENOUGH", 0.0)


@pytest.mark.parametrize("channels", [3, 1])  # gray images are normalized to three channels
def test_features_are_those_of_torch_for_any_number_of_images(channels: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("wrn-10-1", 3, 32).eval()
    network, fast = wrapped(encoder, side=32), wrapped(encoder, side=32)
    assert accelerate(fast, (channels, 24, 24), 100)
    assert isinstance(fast.encoder, OnnxEncoder)
    for count in (1, 5, 8):
        images = torch.randint(0, 256, (count, channels, 24, 24), dtype=torch.uint8)
        with torch.no_grad():
            expected, found = network(images), fast(images)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize(
    "why", ["few images", "bfloat16", "slower", "not installed", "not expressed", "different"]
)
def test_torch_computes_the_features_otherwise(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: nn.Module = {"not expressed": Choosing, "different": Noisy}.get(
        why, lambda: build_encoder("small", 3, 32)
    )()
    network = wrapped(encoder.eval(), "bfloat16" if why == "bfloat16" else "float32")
    if why == "few images":
        monkeypatch.setattr(onnx_runtime, "WORTHWHILE", 2**26)
    if why == "slower":
        monkeypatch.setattr(onnx_runtime, "ENOUGH", float("inf"))
    if why == "not installed":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not accelerate(network, (3, 32, 32), 100)
    assert network.encoder is encoder
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, encoder.dim)
