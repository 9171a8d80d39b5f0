"""Features of a frozen encoder by other engines: the same as torch's, or torch computes them."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from daso.nets import engines
from daso.nets.engines import FusedEncoder, OnnxEncoder, accelerate
from daso.nets.network import Network, build_encoder


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
    monkeypatch.setattr(engines, "WORTHWHILE", 1)
    monkeypatch.setattr(engines, "ENOUGH", 0.0)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [(OnnxEncoder, "float32"), (FusedEncoder, "float32"), (FusedEncoder, "bfloat16")],
)
@pytest.mark.parametrize("channels", [3, 1])  # gray images are normalized to three channels
def test_features_are_those_of_torch_for_any_number_of_images(
    engine: type[engines.Engine], precision: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine is FusedEncoder:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    torch.manual_seed(0)
    encoder = build_encoder("wrn-10-1", 3, 32).eval()
    exact, network, fast = (
        wrapped(encoder, kind, side=32) for kind in ("float32", precision, precision)
    )
    assert accelerate(fast, (channels, 24, 24), 100) == engine.name
    assert isinstance(fast.encoder, engine)
    for count in (1, 5, 8):
        images = torch.randint(0, 256, (count, channels, 24, 24), dtype=torch.uint8)
        with torch.no_grad():
            right, expected, found = exact(images), network(images), fast(images)
        assert (found.shape, found.dtype) == (expected.shape, torch.float32)
        limit = 1e-4 * float(right.abs().max()) + 3 * float((right - expected).abs().max())
        assert float((found - right).abs().max()) <= limit


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("why", ["few images", "slower", "not expressed", "different"])
def test_torch_computes_the_features_otherwise(
    why: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: nn.Module = {"not expressed": Choosing, "different": Noisy}.get(
        why, lambda: build_encoder("small", 3, 32)
    )()
    network = wrapped(encoder.eval(), precision)
    if why == "few images":
        monkeypatch.setattr(engines, "WORTHWHILE", 2**26)
    if why == "slower":
        monkeypatch.setattr(engines, "ENOUGH", float("inf"))
    assert accelerate(network, (3, 32, 32), 100) == "torch"
    assert network.encoder is encoder
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, encoder.dim)
