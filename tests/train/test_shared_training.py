"""One training over one process and over two: the same losses, queue, histogram and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import shared_training
import torch
from forked import finish, start
from shared_training import METHODS

STATE = {
    "fixmatch+abc+daso": [
        "method.refine.queue.seen",
        "method.refine.histogram",
        "network.heads.abc.weight",
    ],
    "remixmatch+daso": ["method.refine"],
    "fixmatch+estimate+darp": [
        "method.refine.guesses",
        "method.refine.refined",
        "method.refine.target",
    ],
    "fixmatch+la+align": ["method.refine"],
}
"""Tensors that must have been filled for the comparison to mean something."""
FITTED = 1e-8
"""Tolerance where L-BFGS has fitted a readout: from features that differ by 1e-16 it finds heads that
differ by up to 2e-10, in one process too."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train every method in one process and in two."""
    out = tmp_path_factory.mktemp("shared")
    for size in (1, 2):
        given = (size, out, list(METHODS))
        running = [start(shared_training.main, rank, *given) for rank in range(size)]
        assert [finish(process) for process in running] == [0] * size
    return out


@pytest.mark.parametrize("method", METHODS)
def test_processes_together_train_as_one(trained: Path, method: str) -> None:
    one, shared = (safetensors.torch.load_file(trained / f"{method}-{n}") for n in (1, 2))
    assert one["losses"].dtype == torch.float64
    assert len(one["losses"]) == METHODS[method][0]
    assert (one["losses"] > 0).all(0).any()
    assert len(one["measured"]) > 100
    assert one.keys() == shared.keys()
    near = FITTED if "mixture" in method.split("+") else 1e-10
    for name, value in one.items():
        torch.testing.assert_close(shared[name], value, rtol=near, atol=near, msg=name)
    for name in STATE.get(method, []):
        values = [value for key, value in one.items() if key.startswith(name)]
        assert values
        assert all(value.abs().sum() > 0 for value in values), name
