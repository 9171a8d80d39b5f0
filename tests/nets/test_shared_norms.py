"""Batch norms over processes, here one: those of any kind are what torch's are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from daso.nets.distributed import Processes, SharedBatchNorm, share_batch_norms


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    Processes(dist.get_rank(), dist.get_world_size()).leave()


@pytest.mark.usefixtures("group", "in_float64")
def test_a_shared_norm_is_that_of_torch() -> None:
    kinds = {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"momentum": 0.3}
    for norm, kind in product((nn.BatchNorm1d, nn.BatchNorm2d), ({}, *kinds)):
        plain, shared = (nn.Sequential(norm(3, **kind)) for _ in range(2))
        share_batch_norms(shared)
        assert isinstance(shared[0], SharedBatchNorm)
        assert plain.state_dict().keys() == shared.state_dict().keys()
        for step in range(3):
            shape = (8, 3, *[4] * (norm is nn.BatchNorm2d), 5)
            values = torch.randn(shape, generator=torch.Generator().manual_seed(step))
            slope = torch.randn_like(values)
            x, y = (values.clone().requires_grad_() for _ in range(2))
            expected, actual = plain(x), shared(y)
            torch.testing.assert_close(actual, expected)
            (expected * slope).sum().backward()
            (actual * slope).sum().backward()
            torch.testing.assert_close(y.grad, x.grad)
        torch.testing.assert_close(shared.state_dict(), plain.state_dict())
        for own, other in zip(shared.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad)
        torch.testing.assert_close(shared.eval()(values), plain.eval()(values))
