"""One training over 1, 2 and 4 processes: the same losses, queue, histogram and weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from shared_training import METHODS

SCRIPT = Path(__file__).parents[1] / "helpers" / "shared_training.py"
BY_FOUR = ["fixmatch+abc+daso", "remixmatch+daso"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train every method in one process and in two, some in four."""
    out = tmp_path_factory.mktemp("shared")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for size in (1, 2, 4):
        methods = BY_FOUR if size == 4 else list(METHODS)
        commands = [
            [sys.executable, SCRIPT, str(rank), str(size), out, *methods] for rank in range(size)
        ]
        running = [
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            for command in commands
        ]
        for process in running:
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors
    return out


@pytest.mark.parametrize(
    ("method", "size"), [*((m, 2) for m in METHODS), *((m, 4) for m in BY_FOUR)]
)
def test_processes_together_train_as_one(trained: Path, method: str, size: int) -> None:
    one, shared = (safetensors.torch.load_file(trained / f"{method}-{n}") for n in (1, size))
    assert one.keys() == shared.keys()
    assert len(one["losses"]) == METHODS[method][0]
    assert (one["losses"] > 0).all(0).any()
    off = {
        # What the first steps do differently by a rounding, thresholds and rectifiers make more of later on.
        name: float(
            (one[name].double() - shared[name].double()).abs().max()
            / (1 + one[name].double().abs().max())
        )
        for name in one
        if one[name].numel() and not name.startswith("momentum.") and name != "measured"
    }
    assert max(off.values()) < 2e-3, {name: value for name, value in off.items() if value >= 2e-3}
    assert (one["losses"][:5] - shared["losses"][:5]).abs().max() < 1e-4
    assert (
        one["measured"] - shared["measured"]
    ).abs().max() < 0.02  # an image or two at the edge of a class
    assert len(one["measured"]) > 100
    for name in ("method.refine.queue.seen", "method.refine.histogram"):
        if name in one:
            assert one[name].tolist() == shared[name].tolist()


def test_what_is_compared_is_there(trained: Path) -> None:
    """The state of the parts that remember something: a queue, a histogram, means, tables, counts."""
    places = {
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
    for method, names in places.items():
        state = safetensors.torch.load_file(trained / f"{method}-2")
        for name in names:
            found = [value for key, value in state.items() if key.startswith(name)]
            assert found, (method, name, list(state))
            assert all(value.abs().sum() > 0 for value in found), (method, name)
