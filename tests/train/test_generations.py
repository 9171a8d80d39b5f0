"""Generations: they start from scratch, on the labels that were adopted, and nothing else sees these."""

from __future__ import annotations

import pytest
import torch
from staged_runs import CREST, STEPS, FindRun, make_staged

from daso.data.source import Source
from daso.plans.crest import adopt
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run
from tests.conftest import MakeConfig


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
