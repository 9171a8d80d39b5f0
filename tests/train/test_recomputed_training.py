"""Trainings that compute activations again: the weights of those that keep them; and where that is refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from daso.data.source import Source
from daso.errors import OptionError
from daso.train.config import RunConfig
from daso.train.prepare import prepare

MakeConfig = Callable[..., RunConfig]


def weights_after(config: RunConfig, source: Source, steps: int) -> dict[str, torch.Tensor]:
    prepared = prepare(config, source)
    for step in range(steps):
        prepared.training.advance(prepared.batches(step))
    return prepared.training.tensors()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", ["wrn-10-1", "small-4"])
@pytest.mark.parametrize("method", ["fixmatch+daso", "mixmatch", "supervised"])
def test_weights_after_some_steps_are_the_same(
    method: str, network: str, precision: str, tiny_config: MakeConfig, digits: Source
) -> None:
    found, expected = (
        weights_after(
            tiny_config(method, network=network, precision=precision, recompute=way), digits, 4
        )
        for way in (True, False)
    )
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_it_may_be_changed_when_a_run_goes_on(tiny_config: MakeConfig) -> None:
    assert tiny_config(recompute=True).fingerprint() == tiny_config().fingerprint()


def test_where_it_cannot_be_it_is_refused(tiny_config: MakeConfig, digits: Source) -> None:
    two = cast(Any, SimpleNamespace(rank=0, size=2))
    for options, processes in (({"compile": True}, None), ({}, two)):
        with pytest.raises(OptionError, match="--recompute"):
            prepare(tiny_config(recompute=True, **options), digits, processes=processes)
