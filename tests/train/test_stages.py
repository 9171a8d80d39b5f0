"""Runs of several trainings: their rows, what one hands to the next, and that a stop changes nothing."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed_runs
import pytest
import torch
from forked import command
from safetensors.torch import load_file
from test_killed_run import assert_same_end, finish, kill_after, start
from torch import Tensor

from daso.compose import Recipe
from daso.data.source import Source
from daso.files import plain, read_json, read_rows
from daso.methods.supervised import Supervised
from daso.plans.crest import adopt
from daso.train.config import RunConfig
from daso.train.loop import evaluate_network
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]
CREST = {"generations": 3, "crest_power": 0.2}
OPTIONS: dict[str, dict[str, object]] = {
    "fixmatch+crest": {**CREST, "threshold": 0.2},
    "fixmatch+daso+crest-plus": {**CREST, "threshold": 0.2, "align_memory": 3},
    "remixmatch+crest-plus": CREST,
    "supervised+crt": {"retraining_steps": 5},
    "fixmatch+abc+crt": {"retraining_steps": 5, "threshold": 0.2},
    "fixmatch+darp+estimate": {
        "estimate_steps": 5,
        "threshold": 0.2,
        "darp_start": 0.3,
        "darp_period": 3,
    },
}
STEPS = 13
ENDS = {"crest": [4, 8, 13], "crest-plus": [4, 8, 13], "crt": [8, 13], "estimate": [5, 18]}
METHODS = list(OPTIONS)


def ends_of(method: str) -> list[int]:
    return ENDS[method.rpartition("+")[2]]


def make_staged(tiny_config: MakeConfig, method: str, **train: object) -> RunConfig:
    options = {"steps": STEPS, "evaluate_every": 3, "log_every": 2, **train}
    return tiny_config(method, method_options=OPTIONS[method], **options)


def comparable(folder: Path) -> list[Row]:
    rows = read_rows(folder / "metrics.jsonl")
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in rows
    ]


def newest_tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*.safetensors")))


class Finished:
    """A run that nobody disturbed, with the tensors that it saved at each evaluation."""

    def __init__(self, config: RunConfig, source: Source, folder: Path) -> None:
        self.folder = folder
        self.saved: dict[int, dict[str, Tensor]] = {}
        for row in train_run(prepare(config, source), folder):
            if row["event"] == "evaluate":
                self.saved[row["step"]] = newest_tensors(folder)
        self.rows = comparable(folder)
        self.summary = read_json(folder / "summary.json")


@pytest.fixture(scope="module")
def finished(
    tiny_config: MakeConfig, digits: Source, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Finished]:
    """Return a function that gives the complete run of a method; it is trained once."""
    runs: dict[str, Finished] = {}

    def find(method: str) -> Finished:
        if method not in runs:
            folder = tmp_path_factory.mktemp("stages") / "run"
            runs[method] = Finished(make_staged(tiny_config, method), digits, folder)
        return runs[method]

    return find


FindRun = Callable[[str], Finished]


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_counted_on_and_rows_carry_their_stage(finished: FindRun, method: str) -> None:
    run, ends = finished(method), ends_of(method)
    steps = [row["step"] for row in run.rows if row["event"] == "train"]
    assert steps == sorted(set(steps))
    for row in run.rows:
        assert row["stage"] == next(stage for stage, end in enumerate(ends) if row["step"] <= end)
    # Every stage is evaluated each 3 of its own steps and at its end.
    starts = [0, *ends[:-1]]
    expected = [
        step
        for begin, end in zip(starts, ends, strict=True)
        for step in [*range(begin + 3, end, 3), end]
    ]
    assert [row["step"] for row in run.rows if row["event"] == "evaluate"] == expected


@pytest.mark.parametrize("method", METHODS)
def test_the_summary_is_of_the_last_stage(finished: FindRun, method: str) -> None:
    run, ends = finished(method), ends_of(method)
    last = [row for row in run.rows if row["event"] == "evaluate" and row["stage"] == len(ends) - 1]
    assert run.summary["steps"] == ends[-1]
    assert run.summary["last"] == last[-1]["test"]
    best = max(last, key=lambda row: (row["holdout"]["balanced_accuracy"], row["step"]))
    assert run.summary["best_on_holdout"]["step"] == best["step"]


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


@pytest.mark.parametrize("method", METHODS)
def test_the_configuration_holds_every_hyperparameter_and_comes_back(
    finished: FindRun, digits: Source, method: str
) -> None:
    config = read_json(finished(method).folder / "config.json")
    assert config["method_options"].keys() == Recipe.parse(method).hyperparameters().keys()
    assert {**config["method_options"], **OPTIONS[method]} == config["method_options"]
    again = RunConfig.from_dict(config, "config.json")
    assert json.loads(json.dumps(prepare(again, digits).config.to_dict())) == config


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


def test_generations_start_from_scratch_with_weights_and_orders_of_their_own(
    tiny_config: MakeConfig, digits: Source
) -> None:
    first = prepare(make_staged(tiny_config, "fixmatch+crest"), digits)
    first.training.advance(first.batches(0))
    second, third = first.begin_stage(1), first.begin_stage(2)
    assert (second.training.step, second.first_step, third.first_step) == (0, 4, 8)
    weights = {
        stage.training.network.heads["class"].weight.sum().item()
        for stage in (first, second, third)
    }
    assert len(weights) == 3
    assert not torch.equal(first.batches(0).indices, second.batches(0).indices)
    again = first.begin_stage(1).training.tensors()
    assert all(torch.equal(value, again[name]) for name, value in second.training.tensors().items())


def test_a_generation_trains_on_what_the_checkpoint_says_was_adopted(finished: FindRun) -> None:
    run = finished("fixmatch+crest")
    assert (run.saved[4]["plan.adopted"] == -1).all()  # saved before the generation was concluded
    adopted = run.saved[7]["plan.adopted"]
    assert (adopted >= 0).any()
    assert torch.equal(run.saved[8]["plan.adopted"], adopted)
    assert not torch.equal(run.saved[13]["plan.adopted"], adopted)
    for row in run.rows:
        if row["event"] == "evaluate":
            labels = run.saved[row["step"]]["plan.adopted"]
            counts = torch.bincount(labels[labels >= 0], minlength=10)
            assert row["plan"] == {"adopted": counts.tolist()}
    prepared, rows = resume_run(run.folder, pytest.fail)
    assert not list(rows)
    given, total = len(prepared.data.labeled), len(prepared.batches.labeled)
    assert total == given + (run.saved[13]["plan.adopted"] >= 0).sum()


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


@pytest.mark.parametrize("loss", ["la", "ldam", "class-balanced"])
def test_what_rebalances_sees_labels_with_the_adopted_and_what_aligns_the_given_ones(
    tiny_config: MakeConfig, digits: Source, loss: str
) -> None:
    name = f"fixmatch+{loss}+abc+darp+crest-plus"
    first = prepare(tiny_config(name, method_options=CREST, steps=STEPS), digits)
    given = torch.from_numpy(first.data.class_counts)
    shares = first.plan.share.clone()
    # Of the rarest class, and of none of most others, images are adopted.
    adopted = first.plan.adopted
    adopted[:30], adopted[30:37] = 9, 4
    second = first.begin_stage(1)
    counts = given.clone()
    counts[9], counts[4] = counts[9] + 30, counts[4] + 7
    assert torch.equal(torch.bincount(second.batches.labeled.labels, minlength=10), counts)
    method = second.training.method
    if loss == "la":
        torch.testing.assert_close(method.supervised.prior, counts / counts.sum())
    else:
        effective = torch.tensor([(1 - 0.999**n) / (1 - 0.999) for n in counts.tolist()])
        torch.testing.assert_close(
            method.supervised.class_weights, 10 / effective / (1 / effective).sum()
        )
    if loss == "ldam":
        torch.testing.assert_close(method.supervised.margins, 0.5 * (counts.min() / counts) ** 0.25)
    torch.testing.assert_close(method.terms[0].kept_share, counts.min() / counts)
    align, darp = method.refine.refiners
    torch.testing.assert_close(align.target, given / given.sum())
    torch.testing.assert_close(darp.target, len(adopted) * given / given.sum())
    assert torch.equal(second.plan.share, shares)


def test_post_hoc_adjustment_is_by_the_given_labels_in_every_generation(finished: FindRun) -> None:
    run = finished("fixmatch+crest")
    model = load_model(run.folder, torch.device("cpu"), pytest.fail)
    prepared = resume_run(run.folder, pytest.fail)[0]
    given, test = torch.from_numpy(prepared.data.class_counts), prepared.data.test
    assert model.labeled_counts == tuple(given.tolist())
    assert len(prepared.batches.labeled) > given.sum()
    with torch.no_grad():
        logits = model.network.classify(model.network(test.images))
    adjusted = logits.double() - (given / given.sum()).log()
    last = [row for row in run.rows if row["event"] == "evaluate"][-1]
    loss = torch.nn.functional.cross_entropy(adjusted, test.labels).item()
    assert last["test"]["logit_adjusted"]["loss"] == pytest.approx(loss, rel=1e-5)


def test_a_generation_is_labeled_by_the_head_that_classifies(
    tiny_config: MakeConfig, digits: Source
) -> None:
    first = prepare(tiny_config("fixmatch+abc+crest", method_options=CREST, steps=STEPS), digits)
    network, images = first.training.average.network, first.data.unlabeled.images
    first.plan.conclude(0, network, first.data)
    network.eval()
    with torch.no_grad():
        by_head = {
            head: adopt(
                *network.classify(network(images), head).softmax(1).max(1), first.plan.share
            )
            for head in ("abc", "class")
        }
    assert torch.equal(first.plan.adopted, by_head["abc"])
    assert not torch.equal(by_head["abc"], by_head["class"])


@pytest.mark.parametrize("method", ["fixmatch+daso+crest-plus", "remixmatch+crest-plus"])
def test_the_alignments_temperature_falls_from_generation_to_generation(
    tiny_config: MakeConfig, digits: Source, method: str
) -> None:
    first = prepare(make_staged(tiny_config, method), digits)
    found = []
    for stage in range(3):
        parts = first.begin_stage(stage).training.method.modules()
        found += [part.align_temperature for part in parts if hasattr(part, "align_temperature")]
    assert found == [1.0, 0.75, 0.5]


@pytest.mark.parametrize("method", ["supervised+crt", "fixmatch+abc+crt"])
def test_retraining_leaves_the_encoder_as_it_is(finished: FindRun, method: str) -> None:
    saved = finished(method).saved
    before, after = saved[8], saved[13]
    kept = [name for name in before if name.startswith("average.encoder.")]
    assert any("running_mean" in name for name in kept)
    for name in kept:
        assert torch.equal(after[name], before[name]), name
        assert torch.equal(after[name.replace("average.", "network.")], before[name]), name
    assert not any(name.startswith("momentum.encoder.") for name in after)
    assert "average.heads.abc.weight" not in after
    for name in ("network.heads.class.weight", "average.heads.class.weight"):
        assert not torch.equal(after[name], before[name])


def test_retraining_starts_from_a_random_classifier_and_goes_by_options_of_its_own(
    tiny_config: MakeConfig, digits: Source
) -> None:
    of_the_run = {"learning_rate": 0.01, "schedule": "cosine", "optimizer": "adamw"}
    options = {"retraining_steps": 40, "retraining_rate": 0.2}
    config = tiny_config("fixmatch+crt", method_options=options, steps=50, **of_the_run)
    first = prepare(config, digits)
    for step in range(2):
        first.training.advance(first.batches(step))
    second = first.begin_stage(1).training
    for network in (second.network, second.average.network):
        head = network.heads["class"]
        for trained in (first.training.network, first.training.average.network):
            assert (head.weight - trained.heads["class"].weight).abs().min() > 1e-6
        assert (head.bias == 0).all()
        assert not (first.training.network.heads["class"].bias == 0).any()
    assert isinstance(first.training.optimizer, torch.optim.AdamW)
    assert isinstance(second.optimizer, torch.optim.SGD)
    # A warm-up of one step, then the base rate until 80 and 90% of the 40 steps.
    rates = [second.rate_of(step) for step in range(40)]
    assert rates == pytest.approx([0.2] * 32 + [0.002] * 4 + [0.00002] * 4)


@pytest.mark.parametrize("method", ["supervised+crt", "fixmatch+abc+crt"])
def test_retraining_is_measured_with_the_new_classifier(finished: FindRun, method: str) -> None:
    run = finished(method)
    model = load_model(run.folder, torch.device("cpu"), pytest.fail)
    data = resume_run(run.folder, pytest.fail)[0].data
    last = [row for row in run.rows if row["event"] == "evaluate"][-1]
    assert plain(evaluate_network(model.network, data)["test"]) == last["test"]
    old = {
        n[len("average.") :]: t
        for n, t in run.saved[8].items()
        if n.startswith("average.heads.class")
    }
    model.network.load_state_dict(old, strict=False)
    assert evaluate_network(model.network, data)["test"]["loss"] != last["test"]["loss"]


def test_retraining_looks_at_labels_alone_all_classes_equally_often(
    tiny_config: MakeConfig, digits: Source
) -> None:
    second = prepare(make_staged(tiny_config, "fixmatch+abc+crt", batch=50), digits).begin_stage(1)
    assert isinstance(second.training.method, Supervised)
    batches = [second.batches(step) for step in range(40)]
    assert all(batch.unlabeled == () and len(batch.indices) == 0 for batch in batches)
    counts = torch.bincount(torch.cat([batch.labels for batch in batches]))
    assert counts.min() > 140  # of 200 expected each; by shuffled passes it would be 51
    assert second.training.base_rate == 0.1
    assert second.training.schedule == "multistep"


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
