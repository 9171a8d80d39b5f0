"""The loop: a generator of rows, and a state that can be saved and loaded exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import without_times
from safetensors.torch import load_file
from torch import Tensor

from daso.data.source import Source
from daso.data.training_data import prepare_data
from daso.errors import DivergedError, RunError
from daso.files import to_line
from daso.losses.logit_adjusted import LogitAdjusted
from daso.methods.fixmatch import FixMatch
from daso.nets.network import build_encoder
from daso.refine.daso import DASO
from daso.train.assemble import assemble
from daso.train.config import RunConfig
from daso.train.loop import fit
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare
from daso.train.run import train_run
from daso.train.step.sampling import derive_seed
from tests.conftest import SPLIT

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]
ACTIVE = {"threshold": 0.2, "warmup_steps": 4, "histogram_period": 4}


def rows_of(prepared: Prepared) -> list[Row]:
    return list(fit(prepared.training, prepared.batches, prepared.data))


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


def assert_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype, name
        assert torch.equal(value, second[name]), name


def test_a_method_composed_in_python_trains_as_its_name_does(
    tiny_config: MakeConfig, digits: Source
) -> None:
    values: dict[str, Any] = {"threshold": 0.2, "dist_temperature": 0.7}
    named = prepare(tiny_config("fixmatch+la+daso", method_options=values), digits)
    expected = [without_times(row) for row in rows_of(named)]

    data = prepare_data(digits, SPLIT, 0, torch.device("cpu"))
    counts = torch.from_numpy(data.class_counts)
    torch.manual_seed(derive_seed(0, "weights", 0))
    encoder = build_encoder("small-4", 1, 8)
    method = FixMatch(
        refine=DASO(10, encoder.dim, counts, 20, dist_temperature=0.7),
        supervised=LogitAdjusted(counts),
        threshold=0.2,
    )
    options = TrainOptions(20, 8, evaluate_every=5, precision="float32")
    training, batches = assemble(method, encoder, data, options)
    assert [without_times(row) for row in fit(training, batches, data)] == expected


def test_rows_come_one_by_one(tiny_config: MakeConfig, digits: Source) -> None:
    prepared = prepare(tiny_config(log_every=2), digits)
    rows = fit(prepared.training, prepared.batches, prepared.data)
    assert prepared.training.step == 0
    seen = []
    for row in rows:
        assert prepared.training.step == row["step"]
        seen.append((row["event"], row["step"]))
    trains = [step for event, step in seen if event == "train"]
    assert trains == [2, 4, 5, 6, 8, 10, 12, 14, 15, 16, 18, 20]
    assert [step for event, step in seen if event == "evaluate"] == [5, 10, 15, 20]
    assert list(rows) == []


def test_what_the_rows_hold(tiny_config: MakeConfig, digits: Source) -> None:
    rows = rows_of(prepare(tiny_config(method_options=ACTIVE, log_every=5), digits))
    for row in rows:
        json.loads(to_line(row), parse_constant=pytest.fail)
    train = [row for row in rows if row["event"] == "train"]
    assert set(train[-1]["losses"]) == {"labeled", "unlabeled", "align"}
    for row in train:
        assert row["loss"] == pytest.approx(sum(row["losses"].values()), rel=1e-5)
        assert row["learning_rate"] == 0.03
        assert row["steps_per_second"] > 0
        assert 0 <= row["share_confident"] <= 1
    assert train[-1]["share_confident"] > 0
    evaluate = [row for row in rows if row["event"] == "evaluate"][-1]
    for pool in ("test", "holdout"):
        assert 0 <= evaluate[pool]["balanced_accuracy"] <= 1
        assert len(evaluate[pool]["recall"]) == 10
        assert "balanced_accuracy" in evaluate[pool]["logit_adjusted"]
    pseudo_labels = evaluate["pseudo_labels"]
    for part in ("linear", "semantic", "final", "confident"):
        assert sum(pseudo_labels[part]["distribution"]) == pytest.approx(1)
    assert len(pseudo_labels["blend_weight"]) == len(pseudo_labels["queued"]) == 10
    assert sum(pseudo_labels["queued"]) == 20 * 8


def test_a_last_step_off_the_period_is_evaluated(tiny_config: MakeConfig, digits: Source) -> None:
    rows = rows_of(prepare(tiny_config("supervised", steps=8), digits))
    assert [(row["event"], row["step"]) for row in rows] == [
        ("train", 5),
        ("evaluate", 5),
        ("train", 8),
        ("evaluate", 8),
    ]
    assert all("pseudo_labels" not in row and "share_confident" not in row for row in rows)


def test_training_lowers_the_loss_and_learns(tiny_config: MakeConfig, digits: Source) -> None:
    config = tiny_config(
        "supervised", steps=80, evaluate_every=20, network="small-8", ema_decay=0.9, batch=32
    )
    rows = rows_of(prepare(config, digits))
    losses = [row["loss"] for row in rows if row["event"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert rows[-1]["test"]["accuracy"] > 0.3


def test_the_same_seed_gives_the_same_training(tiny_config: MakeConfig, digits: Source) -> None:
    first = prepare(tiny_config(method_options=ACTIVE, steps=10), digits)
    second = prepare(tiny_config(method_options=ACTIVE, steps=10), digits)
    other = prepare(tiny_config(method_options=ACTIVE, steps=10, seed=1), digits)
    assert_identical(first.training.tensors(), second.training.tensors())
    assert [without_times(row) for row in rows_of(first)] == [
        without_times(row) for row in rows_of(second)
    ]
    assert_identical(first.training.tensors(), second.training.tensors())
    rows_of(other)
    weights = "network.heads.class.weight"
    assert not torch.equal(first.training.tensors()[weights], other.training.tensors()[weights])


@pytest.mark.parametrize("method", ["fixmatch+daso", "supervised"])
def test_random_draws_between_rows_change_nothing(
    tiny_config: MakeConfig, digits: Source, method: str
) -> None:
    options = {} if method == "supervised" else ACTIVE
    undisturbed = prepare(tiny_config(method, method_options=options, steps=10), digits)
    disturbed = prepare(tiny_config(method, method_options=options, steps=10), digits)
    expected = [without_times(row) for row in rows_of(undisturbed)]
    torch.manual_seed(99)
    rows = []
    for row in fit(disturbed.training, disturbed.batches, disturbed.data):
        rows.append(without_times(row))
        torch.rand(13)
    assert rows == expected
    assert_identical(undisturbed.training.tensors(), disturbed.training.tensors())


def test_tensors_and_load_are_an_exact_round_trip(tiny_config: MakeConfig, digits: Source) -> None:
    first = prepare(tiny_config(method_options=ACTIVE), digits)
    for step in range(9):
        first.training.advance(first.batches(step))
    saved = copies(first.training.tensors())
    names = set(saved)
    for expected in ("network.", "average.", "momentum.", "method."):
        assert any(name.startswith(expected) for name in names)
    assert any("queue.features" in name for name in names)
    assert any("histogram" in name for name in names)
    assert any("running_mean" in name for name in names)

    second = prepare(tiny_config(method_options=ACTIVE), digits)
    assert not torch.equal(
        second.training.tensors()["network.heads.class.weight"], saved["network.heads.class.weight"]
    )
    second.training.load(saved, 9, 1.5)
    assert (second.training.step, second.training.seconds) == (9, 1.5)
    assert_identical(second.training.tensors(), saved)
    for step in range(9, 14):
        first.training.advance(first.batches(step))
        second.training.advance(second.batches(step))
    assert_identical(first.training.tensors(), second.training.tensors())
    # What was loaded must not share memory with what was saved.
    assert not torch.equal(
        saved["momentum.heads.class.weight"],
        second.training.tensors()["momentum.heads.class.weight"],
    )


def test_a_state_of_another_configuration_is_refused(
    tiny_config: MakeConfig, digits: Source
) -> None:
    first = prepare(tiny_config(), digits).training
    prepared = prepare(tiny_config(), digits)
    prepared.training.advance(prepared.batches(0))
    saved = copies(prepared.training.tensors())
    first.load(saved, 1, 0.0)
    for other in (
        {"method": "fixmatch"},
        {"network": "small-8"},
        {"network": "wrn-10-1"},
        {"method_options": {"queue_length": 7}},
        {"momentum": 0.0},
    ):
        changed = prepare(tiny_config(**other), digits).training
        before = copies(changed.tensors())
        with pytest.raises(RunError, match="another configuration"):
            changed.load(saved, 1, 0.0)
        assert changed.step == 0, other
        assert_identical(changed.tensors(), before)


def test_a_state_that_lacks_momentum_is_refused(tiny_config: MakeConfig, digits: Source) -> None:
    prepared = prepare(tiny_config(), digits)
    prepared.training.advance(prepared.batches(0))
    saved = copies(prepared.training.tensors())
    del saved["momentum.heads.class.weight"]
    with pytest.raises(RunError, match=r"momentum\.heads\.class\.weight"):
        prepare(tiny_config(), digits).training.load(saved, 1, 0.0)


def test_a_diverging_training_is_stopped_with_its_steps(
    tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(tiny_config("supervised", learning_rate=1e30, schedule="constant"), digits)
    with pytest.raises(DivergedError, match=r"the loss 'labeled' became nan in step 2") as caught:
        rows_of(prepared)
    assert (caught.value.step, caught.value.term) == (2, "labeled")
    assert "--learning-rate" in str(caught.value)


@pytest.mark.parametrize("every", [1, 2])
def test_a_diverging_training_leaves_no_checkpoint_of_broken_weights(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, every: int
) -> None:
    # The loss of a step is finite before the update that breaks the weights: an evaluation may fall between.
    config = tiny_config(
        "supervised", learning_rate=1e38, schedule="constant", evaluate_every=every
    )
    with pytest.raises(DivergedError):
        list(train_run(prepare(config, digits), tmp_path / "run"))
    for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"):
        for name, value in load_file(path).items():
            assert bool(value.isfinite().all()), f"{path.name}: {name}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["supervised", "fixmatch", "fixmatch+daso"])
def test_on_cuda_a_step_does_not_wait_for_the_device(tiny_config: MakeConfig, method: str) -> None:
    prepared = prepare(tiny_config(method, device="cuda"))
    for step in range(3):
        prepared.training.advance(prepared.batches(step))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3, 6):
            prepared.training.advance(prepared.batches(step))
    finally:
        torch.cuda.set_sync_debug_mode("default")
