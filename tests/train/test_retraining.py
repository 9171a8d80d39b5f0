"""Retraining of the classifier: the encoder stays, the classifier and the options are new."""

from __future__ import annotations

import pytest
import torch
from staged_runs import FindRun, make_staged

from daso.data.source import Source
from daso.files import plain
from daso.methods.supervised import Supervised
from daso.train.evaluation import evaluate_network
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run
from tests.conftest import MakeConfig


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
