"""Steps that are recorded on a pretended device and replayed: they train as plain steps do."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from pretend_cuda import PretendCuda
from pretended_training import CLOSE, METHODS, RECORDABLE, assert_equal, at_home

from daso.data.source import Source
from daso.errors import OptionError
from daso.refine.guess import Guess, Refiner
from daso.train.prepare import prepare
from tests.conftest import MakeConfig


@pytest.mark.parametrize(
    ("method", "optimizer"), [*((name, "sgd") for name in RECORDABLE), ("fixmatch+daso", "adamw")]
)
@pytest.mark.usefixtures("in_float64")
def test_a_recorded_step_trains_as_plain_steps_do(
    method: str, optimizer: str, cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    # Learning rate, decay of the average, ramps, warm-ups and histogram all change while it is replayed.
    options = {"method_options": METHODS[method], "optimizer": optimizer, "schedule": "cosine"}
    plain, recorded = (
        prepare(tiny_config(method, device="cuda", cuda_graph=graph, **options), digits)
        for graph in (False, True)
    )
    for step in range(10):
        expected, expected_total = plain.training.advance(plain.batches(step))
        actual, total = recorded.training.advance(recorded.batches(step))
        torch.testing.assert_close(total, expected_total, **CLOSE)
        assert actual.losses.keys() == expected.losses.keys()
    assert [graph.played for graph in cuda.graphs] == [10 - 3]
    assert_equal(
        at_home(recorded.training.tensors()),
        at_home(plain.training.tensors()),
        **CLOSE,
    )


@pytest.mark.usefixtures("in_float64")
def test_a_loaded_state_is_recorded_anew(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    config = tiny_config(device="cuda", cuda_graph=True, method_options=METHODS["fixmatch+daso"])
    first, second = prepare(config, digits), prepare(config, digits)
    for step in range(6):
        first.training.advance(first.batches(step))
        second.training.advance(second.batches(step))
    saved = {name: value.clone() for name, value in first.training.tensors().items()}
    for step in range(6, 8):
        second.training.advance(second.batches(step))
    second.training.load(saved, 6, 0.0)
    for step in range(6, 12):
        first.training.advance(first.batches(step))
        second.training.advance(second.batches(step))
    assert len(cuda.graphs) == 3
    assert_equal(at_home(second.training.tensors()), at_home(first.training.tensors()), **CLOSE)


def test_what_cannot_be_recorded_is_refused(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    with pytest.raises(OptionError, match="this training is on cpu"):
        prepare(tiny_config(cuda_graph=True), digits)
    with pytest.raises(OptionError, match="DARP does more in some steps than in others"):
        prepare(tiny_config("fixmatch+darp", cuda_graph=True, device="cuda"), digits)


class CountsItself(Refiner):
    """Refines by a number of the host, which a recording would not see change."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, guess: Guess) -> Guess:
        self.calls += 1
        return guess._replace(probs=guess.probs.roll(self.calls, 1))


@pytest.mark.usefixtures("in_float64")
def test_numbers_of_the_host_in_a_recording_are_seen(
    cuda: PretendCuda, tiny_config: MakeConfig, digits: Source
) -> None:
    unseen = []
    for mistake in ("count", "rate", "share"):
        plain, recorded = (
            prepare(
                tiny_config(
                    "fixmatch",
                    method_options={"threshold": 0.1},
                    device="cuda",
                    schedule="cosine",
                    cuda_graph=graph,
                ),
                digits,
            )
            for graph in (False, True)
        )
        if mistake == "count":
            for prepared in (plain, recorded):
                prepared.training.method.refine = CountsItself()
        elif mistake == "rate":
            for group in recorded.training.optimizer.param_groups:
                group["lr"] = 0.03
        else:
            recorded.training._averaging = 1.0
        for step in range(8):
            plain.training.advance(plain.batches(step))
            recorded.training.advance(recorded.batches(step))
        states = (at_home(p.training.tensors()) for p in (recorded, plain))
        if all(map(partial(torch.allclose, rtol=1e-3, atol=1e-5), *map(dict.values, states))):
            unseen.append(mistake)
    assert unseen == []
