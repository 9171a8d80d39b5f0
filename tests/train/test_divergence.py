"""NaN and infinities: found soon, named, never saved; the run stops, or goes on from before at a lower rate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from daso.cli import main
from daso.data.source import Source
from daso.errors import DivergedError
from daso.files import read_json, read_rows, to_line
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch, Step
from daso.nets.network import Network
from daso.train.config import RunConfig
from daso.train.loop import CHECK_EVERY, fit
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from daso.train.step.record import LossRecord
from daso.train.step.state import Training

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]
Forward = Callable[[FixMatch, Network, Network, Batch], Step]
BROKEN_AT = 13


def written(row: Row) -> str:
    return to_line(
        {key: value for key, value in row.items() if key not in ("seconds", "steps_per_second")}
    )


def break_loss(step: Step, features: Tensor, value: float) -> dict[str, Tensor]:
    return {**step.losses, "unlabeled": step.losses["unlabeled"] * value}


def break_gradient(step: Step, features: Tensor, value: float) -> dict[str, Tensor]:
    # The root of 0 is 0, and its slope infinite: the loss is finite, its gradient is not.
    return {**step.losses, "labeled": step.losses["labeled"] + (features * 0).sum().sqrt() * value}


def inject(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[..., dict[str, Tensor]], value: float
) -> None:
    """Make FixMatch fail in step BROKEN_AT, counted from 1."""
    forward: Forward = FixMatch.forward

    def failing(self: FixMatch, network: Network, teacher: Network, batch: Batch) -> Step:
        step = forward(self, network, teacher, batch)
        if int(batch.step) != BROKEN_AT - 1:
            return step
        return Step(breaks(step, network(batch.labeled[0]), value), step.pseudo_labels)

    monkeypatch.setattr(FixMatch, "forward", failing)


FAULTS = {
    "loss NaN": (break_loss, math.nan, "unlabeled"),
    "loss infinite": (break_loss, math.inf, "unlabeled"),
    "gradient": (break_gradient, 1.0, "weights"),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_step_term_and_images(
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    precision: str,
) -> None:
    breaks, value, term = FAULTS[fault]
    options = {"threshold": 0.1}
    config = tiny_config(
        "fixmatch", method_options=options, precision=precision, steps=100, log_every=1000
    )
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, evaluate_every=10))
    inject(monkeypatch, breaks, value)
    prepared, folder = prepare(config, digits), tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        list(train_run(prepared, folder))
    assert (caught.value.step, caught.value.term) == (BROKEN_AT, term)
    assert prepared.training.step - BROKEN_AT <= CHECK_EVERY
    found = read_json(folder / "divergence.json")
    assert (found["step"], found["term"], found["checkpoint"]) == (BROKEN_AT, term, 10)
    # The images are those that the step was given.
    batch, data = prepare(config, digits).batches(BROKEN_AT - 1), prepared.data
    assert data.unlabeled is not None
    assert found["images"]["unlabeled"] == batch.indices.tolist()
    assert torch.equal(data.labeled.labels[found["images"]["labeled"]], batch.labels)
    message = str(caught.value)
    assert f"in step {BROKEN_AT}" in message
    assert ", ".join(map(str, found["images"]["labeled"])) in message
    assert ("--precision float32" in message) == (precision == "bfloat16")
    assert_finite_checkpoints(folder, [10])


def assert_finite_checkpoints(folder: Path, steps: list[int]) -> None:
    paths = sorted((folder / "checkpoints").glob("*.safetensors"))
    assert [int(path.stem[5:]) for path in paths] == steps
    for path in paths:
        for name, value in load_file(path).items():
            assert bool(value.isfinite().all()), f"{path.name}: {name}"


def test_an_operation_that_refuses_nan_is_not_what_is_blamed(
    tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, break_gradient, 1.0)
    forward: Forward = FixMatch.forward

    def drawing(self: FixMatch, network: Network, teacher: Network, batch: Batch) -> Step:
        torch.multinomial(
            network(batch.labeled[0]).abs().detach() + 0.1, 1
        )  # raises where there is a NaN
        return forward(self, network, teacher, batch)

    monkeypatch.setattr(FixMatch, "forward", drawing)
    prepared = prepare(
        tiny_config("fixmatch", steps=100, log_every=1000, evaluate_every=100), digits
    )
    with pytest.raises(DivergedError) as caught:
        list(fit(prepared.training, prepared.batches, prepared.data))
    assert (caught.value.step, caught.value.term) == (BROKEN_AT, "weights")
    assert prepared.training.step == BROKEN_AT


def test_a_state_that_no_loss_depends_on_is_looked_at_too(
    tiny_config: MakeConfig, digits: Source
) -> None:
    prepared = prepare(
        tiny_config("fixmatch", steps=100, log_every=1000, evaluate_every=100), digits
    )
    name, running = next(
        (n, v)
        for n, v in prepared.training.tensors().items()
        if n.startswith("average.") and "running" in n
    )
    running[0] = math.nan
    with pytest.raises(DivergedError, match=f"'{name}', became infinite or NaN"):
        list(fit(prepared.training, prepared.batches, prepared.data))
    assert prepared.training.step <= CHECK_EVERY


def test_large_numbers_are_not_broken_ones(tiny_config: MakeConfig, digits: Source) -> None:
    for value, found in ((1e38, False), (math.inf, True), (-math.inf, True), (math.nan, True)):
        training = prepare(tiny_config("fixmatch"), digits).training
        assert training.broken() == [], value
        tensors = training.tensors()
        for name in ("network.heads.class.weight", "average.heads.class.bias"):
            tensors[name].data.flatten()[-1] = value
        assert training.broken() == (
            ["network.heads.class.weight", "average.heads.class.bias"] if found else []
        )


def test_steps_are_looked_at_together(
    tiny_config: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, sizes = LossRecord.check, []

    def counting(self: LossRecord) -> object:
        sizes.append(len(self))
        return look(self)

    monkeypatch.setattr(LossRecord, "check", counting)
    prepared = prepare(
        tiny_config("supervised", steps=50, log_every=1000, evaluate_every=1000), digits
    )
    list(fit(prepared.training, prepared.batches, prepared.data))
    assert sizes == [20, 20, 10]


def test_a_pause_saves_nothing_that_is_broken(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, break_gradient, 1.0)
    config = tiny_config("fixmatch", steps=20, log_every=20, evaluate_every=20, save_minutes=1e-9)
    with pytest.raises(DivergedError):
        list(train_run(prepare(config, digits), tmp_path / "run"))
    assert_finite_checkpoints(tmp_path / "run", [BROKEN_AT - 2, BROKEN_AT - 1])


def break_above(monkeypatch: pytest.MonkeyPatch, factor: float, at: int, stage: int = 0) -> None:
    """Break the weights in a stage's step *at* as long as the learning rate is more than *factor* of what it was."""
    advance = Training.advance

    def breaking(self: Training, batch: Batch) -> tuple[Step, Tensor]:
        result = advance(self, batch)
        is_first = self.options.seed == 0
        if self.step == at and self.rate_factor > factor and is_first == (stage == 0):
            next(self.network.parameters()).data[:] = math.nan
        return result

    monkeypatch.setattr(Training, "advance", breaking)


def rolling(tiny_config: MakeConfig, method: str = "fixmatch", **train: object) -> RunConfig:
    options = {"threshold": 0.1} | ({"generations": 2} if method.endswith("crest") else {})
    return tiny_config(
        method, method_options=options, log_every=4, on_divergence="rollback", **train
    )


def rolled(rows: list[Row]) -> list[tuple[int, int, float]]:
    return [
        (r["step"], r["diverged"], r["learning_rate_factor"])
        for r in rows
        if r["event"] == "rollback"
    ]


def test_a_run_is_rolled_back_and_goes_on_slower(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_above(monkeypatch, 0.3, at=BROKEN_AT)
    folder = tmp_path / "run"
    yielded = list(train_run(prepare(rolling(tiny_config), digits), folder))
    rows = read_rows(folder / "metrics.jsonl")
    assert rolled(rows) == rolled(yielded) == [(10, BROKEN_AT, 0.5), (10, BROKEN_AT, 0.25)]
    rates = {row["step"]: row["learning_rate"] for row in rows if row["event"] == "train"}
    assert rates == pytest.approx(
        dict.fromkeys((4, 5, 8, 10), 0.03) | dict.fromkeys((12, 15, 16, 20), 0.0075)
    )
    assert [row["step"] for row in rows if row["event"] == "evaluate"] == [5, 10, 15, 20]
    warning = next(row for row in rows if row["event"] == "rollback")["warnings"][0]
    assert "back to step 10" in warning["message"]
    assert read_json(folder / "summary.json")["steps"] == 20
    assert_finite_checkpoints(folder, [15, 20])


@pytest.mark.parametrize(
    ("method", "at", "stage", "back_to"),
    [
        ("fixmatch", 2, 0, 0),
        ("fixmatch", 7, 0, 5),
        ("fixmatch+crest", 2, 1, 10),
        ("fixmatch+crest", 7, 1, 15),
    ],
)
def test_a_run_that_is_rolled_back_and_stopped_ends_as_one_that_is_not_stopped(
    tiny_config: MakeConfig,
    digits: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    at: int,
    stage: int,
    back_to: int,
) -> None:
    # In step 2 there is no checkpoint yet, or only that of the generation before.
    break_above(monkeypatch, 0.3, at, stage)
    config = rolling(tiny_config, method, rollbacks=4)
    folders = [tmp_path / "undisturbed", tmp_path / "stopped"]
    list(train_run(prepare(config, digits), folders[0]))
    rows: Any = train_run(prepare(config, digits), folders[1])
    while not (folders[1] / "summary.json").exists():
        if next((row for row in rows if row["event"] != "train"), None) is None:
            break
        rows.close()
        rows = resume_run(folders[1])[1]
    first, second = (read_rows(folder / "metrics.jsonl") for folder in folders)
    diverged = at + 10 * stage
    assert rolled(first) == [(back_to, diverged, 0.5), (back_to, diverged, 0.25)]
    assert list(map(written, first)) == list(map(written, second))
    name = "checkpoints/step-000000020.safetensors"
    tensors, expected = load_file(folders[1] / name), load_file(folders[0] / name)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_run_is_rolled_back_only_so_often(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_above(monkeypatch, 0, at=BROKEN_AT)
    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=f"step {BROKEN_AT}"):
        list(train_run(prepare(rolling(tiny_config, rollbacks=2), digits), folder))
    assert rolled(read_rows(folder / "metrics.jsonl")) == [
        (10, BROKEN_AT, 0.5),
        (10, BROKEN_AT, 0.25),
    ]
    assert_finite_checkpoints(folder, [5, 10])


def test_a_run_that_stopped_can_be_rolled_back_when_it_is_resumed(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_above(monkeypatch, 0.5, at=BROKEN_AT)
    folder = tmp_path / "run"
    config = tiny_config("fixmatch")
    with pytest.raises(
        DivergedError, match=r"checkpoint of step 10 is kept.*--on-divergence rollback"
    ):
        list(train_run(prepare(config, digits), folder))
    with pytest.raises(DivergedError):
        list(resume_run(folder)[1])
    prepared: Prepared
    prepared, rows = resume_run(folder, on_divergence="rollback")
    assert prepared.step == 10
    assert rolled(list(rows)) == [(10, BROKEN_AT, 0.5)]
    assert read_json(folder / "summary.json")["steps"] == 20


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "train digits --method supervised --network small-4 --steps 40 --batch 8 --evaluate-every 10 --device cpu "
        f"--learning-rate 1e30 --on-divergence rollback --rollbacks 2 --out {tmp_path / 'run'}"
    )
    assert main(line.split()) == 1
    printed = capsys.readouterr().err
    assert printed.count("back to step 0") == 2
    assert "daso: the loss 'labeled' became nan in step 2" in printed
    assert "divergence.json" in printed
