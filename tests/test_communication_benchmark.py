"""The messages that benchmarks/communication.py counts are those that the network's layers must send."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from daso.nets.network import build_encoder


@pytest.fixture
def benchmark(import_benchmark: Callable[[str], ModuleType]) -> Any:
    return import_benchmark("communication")


def test_messages_of_a_step(benchmark: Any) -> None:
    found = benchmark.count(benchmark.Model(network="wrn-10-1", side=8))
    encoder = build_encoder("wrn-10-1", 3, 8)
    assert isinstance(encoder, nn.Module)
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    # Forward and backward through the network, and forward through its average, of which the queue has its features.
    assert found.norms == 3 * len(norms)
    assert found.gradients == 4 * sum(parameter.numel() for parameter in encoder.parameters())
    # The network sees two labelled images, four weak and four strong views; its average the labelled images.
    assert found.features == [4 * encoder.dim * 10, 4 * encoder.dim * 2]
    assert not torch.distributed.is_initialized()


def test_the_model_of_a_message(benchmark: Any) -> None:
    options = benchmark.Model(inside=(10, 100), between=(20, 10))
    assert benchmark.message(10**9, 8, options, reduced=False) == pytest.approx(10e-6 + 7 / 8 / 100)
    assert benchmark.message(10**9, 16, options, reduced=True) == pytest.approx(
        20e-6 + 2 * 15 / 16 / 10
    )
