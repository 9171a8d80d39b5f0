"""Runs of several trainings: their rows, what one hands to the next, and that a stop changes nothing."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import killed_runs
import pytest
import torch
from forked import command
from run_files import comparable
from staged_runs import METHODS, OPTIONS, FindRun, ends_of, make_staged, newest_tensors
from test_killed_run import assert_same_end, finish, kill_after, start
from torch import Tensor

from daso.compose import Recipe
from daso.data.source import Source
from daso.files import read_json
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig


def test_steps_are_counted_on_and_rows_carry_their_stage(finished: FindRun) -> None:
    for method in METHODS:
        run, ends = finished(method), ends_of(method)
        steps = [row["step"] for row in run.rows if row["event"] == "train"]
        assert steps == sorted(set(steps)), method
        for row in run.rows:
            assert row["stage"] == next(
                stage for stage, end in enumerate(ends) if row["step"] <= end
            )
        # Every stage is evaluated each 3 of its own steps and at its end.
        starts = [0, *ends[:-1]]
        expected = [
            step
            for begin, end in zip(starts, ends, strict=True)
            for step in [*range(begin + 3, end, 3), end]
        ]
        assert [row["step"] for row in run.rows if row["event"] == "evaluate"] == expected, method


def test_the_summary_is_of_the_last_stage(finished: FindRun) -> None:
    for method in METHODS:
        run, ends = finished(method), ends_of(method)
        evaluations = [row for row in run.rows if row["event"] == "evaluate"]
        last = [row for row in evaluations if row["stage"] == len(ends) - 1]
        assert run.summary["steps"] == ends[-1], method
        assert run.summary["last"] == last[-1]["test"], method
        best = max(last, key=lambda row: (row["holdout"]["balanced_accuracy"], row["step"]))
        assert run.summary["best_on_holdout"]["step"] == best["step"], method


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_after_every_evaluation_ends_as_an_undisturbed_one(
    tiny_config: MakeConfig, digits: Source, finished: FindRun, tmp_path: Path, method: str
) -> None:
    folder, lives = tmp_path / "run", 0
    rows = train_run(prepare(make_staged(tiny_config, method), digits), folder)
    while not (folder / "summary.json").exists():
        stopped = next((True for row in rows if row["event"] == "evaluate"), False)
        if stopped:
            rows.close()
            prepared, rows = resume_run(folder, pytest.fail)
            lives += 1
    expected = finished(method)
    assert lives == len(expected.saved)
    assert prepared.step == ends_of(method)[-1]
    tensors = newest_tensors(folder)
    assert tensors.keys() == expected.saved[prepared.step].keys()
    for name, value in expected.saved[prepared.step].items():
        assert torch.equal(tensors[name], value), name
    assert comparable(folder) == expected.rows
    summary = read_json(folder / "summary.json")
    assert {**summary, "seconds": 0} == {**expected.summary, "seconds": 0}


def test_the_configuration_holds_every_hyperparameter_and_comes_back(
    finished: FindRun, digits: Source
) -> None:
    for method in METHODS:
        config = read_json(finished(method).folder / "config.json")
        assert config["method_options"].keys() == Recipe.parse(method).hyperparameters().keys()
        assert {**config["method_options"], **OPTIONS[method]} == config["method_options"]
        again = RunConfig.from_dict(config, "config.json")
        assert json.loads(json.dumps(prepare(again, digits).config.to_dict())) == config, method


def test_without_an_option_every_stage_is_evaluated_as_often(
    tiny_config: MakeConfig, digits: Source
) -> None:
    first = prepare(
        make_staged(tiny_config, "fixmatch+crest", steps=600, evaluate_every=None), digits
    )
    periods = [first.begin_stage(stage).training.options.evaluation_period for stage in range(3)]
    assert [first.training.options.evaluation_period, *periods] == [12] * 4
    assert (
        prepare(first.config, digits).training.options.evaluation_period == 12
    )  # as a resumed run has it


def test_a_default_that_follows_the_length_is_the_same_in_every_stage(
    tiny_config: MakeConfig, digits: Source
) -> None:
    config = tiny_config("fixmatch+daso+crest", method_options={"generations": 3}, steps=104)
    first = prepare(config, digits)
    stages = [first, first.begin_stage(1), first.begin_stage(2)]
    assert [stage.training.options.steps for stage in stages] == [34, 34, 36]
    assert [stage.training.method.refine.warmup_steps for stage in stages] == [6, 6, 6]
    assert first.config.method_options["warmup_steps"] == 6


@pytest.mark.parametrize(
    ("method", "handed_on"), [("fixmatch+crest", "adopted"), ("fixmatch+darp+estimate", "prior")]
)
def test_what_a_stage_hands_on_is_what_its_moving_average_says(
    finished: FindRun, method: str, handed_on: str
) -> None:
    run = finished(method)
    end = ends_of(method)[0]
    prepared = resume_run(run.folder, pytest.fail)[0]
    network = prepared.training.average.network

    def conclude(whose: str) -> Tensor:
        saved = {n.removeprefix(whose): t for n, t in run.saved[end].items() if n.startswith(whose)}
        network.load_state_dict(saved)
        prepared.plan.conclude(0, network, prepared.data)
        return prepared.plan.state_dict()[handed_on].clone()

    later = run.saved[end + 3][f"plan.{handed_on}"]
    assert torch.equal(conclude("average."), later)
    assert not torch.equal(conclude("network."), later)


def test_an_estimate_reaches_the_part_that_asks_for_it(finished: FindRun) -> None:
    run = finished("fixmatch+darp+estimate")
    first, last = run.saved[5], run.saved[18]
    torch.testing.assert_close(first["plan.prior"], torch.full((10,), 0.1))
    prior, guesses = last["plan.prior"], last["method.refine.guesses"]
    assert not torch.equal(prior, first["plan.prior"])
    torch.testing.assert_close(prior.sum().item(), 1.0)
    torch.testing.assert_close(last["method.refine.target"], len(guesses) * prior)
    assert not torch.equal(last["method.refine.refined"], torch.full_like(guesses, 0.1))
    evaluations = [row for row in run.rows if row["event"] == "evaluate"]
    assert [("pseudo_labels" in row) for row in evaluations] == [
        row["stage"] == 1 for row in evaluations
    ]
    assert evaluations[-1]["plan"]["unlabeled_prior"] == pytest.approx(prior.tolist())
    assert evaluations[-1]["plan"]["confusion_condition"][0] > 1


def test_compiled_stages_have_room_for_graphs_of_their_own(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_module = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda module, **options: compile_module(module, backend="eager", **options),
    )
    config = tiny_config(
        "fixmatch+crest-plus", method_options={"generations": 2}, steps=2, compile=True
    )
    with torch._dynamo.config.patch(recompile_limit=1):
        rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    assert rows[-1]["step"] == 2


def arguments(folder: Path) -> list[str]:
    line = (
        "train digits --method fixmatch+crest --generations 3 --crest-power 0.2 --threshold 0.3 --steps 60 --batch 16 "
        f"--network small-8 --evaluate-every 5 --log-every 3 --device cpu --out {folder}"
    )
    return line.split()


def test_a_killed_run_goes_on_in_its_generation(tmp_path: Path) -> None:
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    peace = start(command, arguments(undisturbed))
    # After the four files of a new run come two for each checkpoint, of the steps 5, 10, 15, 20; the first generation
    # is over, and what dies half written is the first checkpoint of the second one.
    first = start(killed_runs.die_in_write, arguments(folder), 13)
    assert finish(first) == -signal.SIGKILL
    second = start(
        killed_runs.slow_disk, ["resume", str(folder)], 0.2
    )  # it is not over before it is killed
    kill_after(
        second, folder, 40, random.Random().uniform(0, 0.05)
    )  # in the second generation or the third
    assert finish(second) == -signal.SIGKILL
    assert finish(start(command, ["resume", str(folder)])) == 0
    assert finish(peace) == 0
    assert_same_end(folder, undisturbed)
