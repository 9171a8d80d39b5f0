"""A compiled step is compiled once, whatever changes from step to step: the step's number, rates, averages, modes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from daso.data.source import Source
from daso.train.loop import fit
from daso.train.prepare import prepare
from tests.conftest import MakeConfig


@pytest.mark.parametrize(
    ("method", "graphs"), [("fixmatch+daso", 1), ("remixmatch+daso", 1), ("fixmatch+darp", 2)]
)
def test_a_step_is_compiled_once(
    method: str,
    graphs: int,
    tiny_config: MakeConfig,
    digits: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # DARP has steps that refine its table and steps that do not.
    options: dict[str, Any] = (
        {"darp_start": 0.1, "darp_period": 2} if "darp" in method else {"warmup_steps": 3}
    )
    compile_module = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda module, **given: compile_module(module, backend="eager", **given)
    )
    config = tiny_config(
        method, method_options=options, steps=8, evaluate_every=4, schedule="cosine", compile=True
    )
    prepared = prepare(config, digits)
    torch._dynamo.reset()
    counters.clear()
    for row in fit(prepared.training, prepared.batches, prepared.data):
        assert row["step"] <= 8
    assert counters["stats"]["unique_graphs"] == graphs
