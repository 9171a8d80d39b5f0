"""The auxiliary balanced classifier: its losses image by image, its masks, its targets, its place at test time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_learners import FeaturesAsImages
from torch import Tensor, nn

from daso.compose import compose
from daso.evaluate.predict import predict_logits
from daso.methods.method import Batch
from daso.parts import Facts
from daso.refine.daso import DASO
from daso.refine.guess import Guess
from daso.terms.abc import ABC
from daso.terms.term import Outputs
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import train_run

COUNTS = torch.tensor([30, 3, 60, 12])
K, D, STEPS = len(COUNTS), 6, 1000
SHARE = [0.1, 1.0, 0.05, 0.25]


def make_network() -> FeaturesAsImages:
    generator = torch.Generator().manual_seed(1)
    weights = (torch.randn(K, D, generator=generator).double() for _ in range(2))
    return FeaturesAsImages(next(weights), torch.zeros(K).double(), abc=next(weights))


def features(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed)).double()


def random_probs(rows: int) -> Tensor:
    return (
        torch.randn(rows, K, generator=torch.Generator().manual_seed(5)).double().mul(2).softmax(1)
    )


def certain(label: int, rows: int) -> Tensor:
    return torch.full((rows, K), 0.001).index_fill_(1, torch.tensor(label), 0.997)


def outputs_of(
    probs: Tensor, step: int, draws: dict[str, Tensor], labels: Tensor, seed: int = 0
) -> Outputs:
    rows = torch.arange(len(probs))
    # The learner believes in another class, as surely as in another image's.
    of_learner = probs.roll((1, 1), (0, 1))
    guess = Guess(
        of_learner, features(len(probs), seed), rows, torch.tensor(step), {}, {"abc": probs}
    )
    return Outputs(
        features(len(labels), seed + 1), labels, features(len(probs), seed + 2), guess, draws
    )


def one_draw(labeled: int, unlabeled: int, seed: int = 0) -> dict[str, Tensor]:
    return ABC(COUNTS, STEPS).draw(labeled, unlabeled, torch.Generator().manual_seed(seed))


def test_the_losses_are_the_papers_image_by_image() -> None:
    for step in (0, 1, 413, 999):
        network, abc = make_network(), ABC(COUNTS, STEPS, balanced_threshold=0.6)
        probs = random_probs(200)
        labels, draws = torch.arange(100) % K, one_draw(100, 200)
        outputs = outputs_of(probs, step, draws, labels)
        losses = abc(network, outputs)

        total = 0.0
        for z, y, u in zip(
            outputs.labeled, labels.tolist(), draws["abc_labeled"].tolist(), strict=True
        ):
            if u < SHARE[y]:
                total -= network.classify(z, "abc").log_softmax(0)[y].item()
        assert losses["abc_labeled"].item() == pytest.approx(total / 100, rel=1e-9), step

        total, epoch = 0.0, int(500 * step / STEPS)
        for p, z, u in zip(probs, outputs.strong, draws["abc_unlabeled"].tolist(), strict=True):
            if p.max() >= 0.6 and u < 1 - epoch / 500 * (1 - SHARE[p.argmax()]):
                total -= (p * network.classify(z, "abc").log_softmax(0)).sum().item()
        assert total > 0, step
        assert losses["abc_unlabeled"].item() == pytest.approx(total / 200, rel=1e-9), step


def test_over_many_draws_classes_are_kept_with_their_probabilities() -> None:
    network, abc, many = make_network(), ABC(COUNTS, STEPS), 20_000
    nn.init.zeros_(network.weights["abc"])  # every image's loss is log K
    for label, share in enumerate(SHARE):
        for step in (0, 500, 998):
            labels, draws = torch.full((many,), label), one_draw(many, many, seed=step + label)
            losses = abc(network, outputs_of(certain(label, many), step, draws, labels))
            kept = 1 - int(500 * step / STEPS) / 500 * (1 - share)
            for name, probability in (("abc_labeled", share), ("abc_unlabeled", kept)):
                deviation = math.sqrt(probability * (1 - probability) / many)
                actual = losses[name].item() / math.log(K)
                assert abs(actual - probability) <= 4.5 * deviation + 1e-5, (label, step)


def test_a_guess_that_just_reaches_the_threshold_counts() -> None:
    network, draws = (
        make_network(),
        {"abc_labeled": torch.zeros(4), "abc_unlabeled": torch.zeros(8)},
    )
    assert ABC(COUNTS, STEPS).balanced_threshold == 0.95
    abc = ABC(COUNTS, STEPS, balanced_threshold=0.75)
    for probability, counts in ((0.75, True), (0.7499, False)):
        probs = torch.tensor([[probability, 1 - probability, 0, 0]]).repeat(8, 1)
        losses = abc(network, outputs_of(probs, 0, draws, torch.arange(4)))
        assert (losses["abc_unlabeled"] > 0) == counts


def test_the_probability_of_unlabeled_images_falls_in_500_stairs() -> None:
    network, abc = make_network(), ABC(COUNTS, 50_000)
    probs, labels = certain(0, 2000), torch.arange(4)
    draws = {"abc_unlabeled": torch.linspace(0, 1, 2001)[:-1], "abc_labeled": torch.zeros(4)}

    def at(step: int) -> float:
        return abc(network, outputs_of(probs, step, draws, labels))["abc_unlabeled"].item()

    assert at(20_000) == at(20_099)
    assert at(20_000) > at(20_100)


def test_what_draws_are_made_depends_on_the_generator_alone() -> None:
    first, second, other = one_draw(5, 7), one_draw(5, 7), one_draw(5, 7, seed=1)
    assert {name: tuple(value.shape) for name, value in first.items()} == {
        "abc_labeled": (5,),
        "abc_unlabeled": (7,),
    }
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["abc_unlabeled"], other["abc_unlabeled"])
    assert not torch.equal(first["abc_labeled"], first["abc_unlabeled"][:5])


def batch_of(step: int = 0, seed: int = 0) -> Batch:
    labels = torch.arange(12) % K
    weak, strong = features(20, seed + 1), features(20, seed + 2)
    return Batch(
        (features(12, seed),),
        labels,
        (weak, strong),
        torch.arange(20),
        torch.tensor(step),
        one_draw(12, 20, seed),
    )


def make(name: str, **options: object) -> Any:
    return compose(name, Facts(K, D, COUNTS, COUNTS, STEPS, 100), options).double()


def test_the_targets_carry_no_gradient_and_the_strong_views_do() -> None:
    network, batch = make_network(), batch_of()
    method = make("fixmatch+abc", balanced_threshold=0.0)
    labeled, weak, strong = (x.requires_grad_() for x in (*batch.labeled, *batch.unlabeled))
    losses = method(network, network, batch).losses
    assert losses["abc_unlabeled"] > 0
    losses["abc_unlabeled"].backward(retain_graph=True)
    assert weak.grad is None or weak.grad.abs().max() == 0
    assert labeled.grad is None or labeled.grad.abs().max() == 0
    assert strong.grad.abs().max() > 0
    assert network.weights["class"].grad is None
    # A target held fixed by hand gives the same gradient of the head.
    gradient = network.weights["abc"].grad.clone()
    network.zero_grad()
    target = network.classify(weak, "abc").softmax(1).detach()
    by_hand = -(target * network.classify(strong, "abc").log_softmax(1)).sum(1).mean()
    by_hand.backward()
    torch.testing.assert_close(gradient, network.weights["abc"].grad)
    losses["abc_labeled"].backward()
    assert labeled.grad.abs().max() > 0


def test_the_learners_own_losses_are_as_without_it() -> None:
    network, batch = make_network(), batch_of()
    plain = make("fixmatch", threshold=0.4)(network, network, batch).losses
    both = make("fixmatch+abc", threshold=0.4)(network, network, batch).losses
    assert both.keys() - plain.keys() == {"abc_labeled", "abc_unlabeled"}
    assert plain["unlabeled"] > 0
    assert all(torch.equal(both[name], plain[name]) for name in plain)


def test_daso_blends_its_guess_by_its_own_best_class() -> None:
    network, method = make_network(), make("fixmatch+daso+abc", warmup_steps=0)
    seen: list[Outputs] = []
    (term,) = method.terms
    term.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    daso = method.refine
    assert isinstance(daso, DASO)
    method(network, network, batch_of(0))
    daso.distribution.copy_(torch.tensor([0.5, 0.0, 0.4, 0.1]))
    batch = batch_of(1, seed=7)
    method(network, network, batch)
    v, weak = daso.weights(), batch.unlabeled[0]
    semantic = daso.semantic_logits(weak).softmax(1)
    plain, best = network.classify(weak, "abc").softmax(1), []
    for row, p, q in zip(seen[-1].guess.others["abc"], plain, semantic, strict=True):
        best.append(p.argmax().item())
        torch.testing.assert_close(row, (1 - v[best[-1]]) * p + v[best[-1]] * q)
    assert best != network.classify(weak).argmax(1).tolist()
    counted = daso.histogram.clone()
    method(network, network, batch_of(2))
    assert (daso.histogram - counted).sum() == 20


def test_a_trained_run_classifies_with_the_auxiliary_head(
    tiny_config: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    options = {"threshold": 0.2, "balanced_threshold": 0.2}
    prepared = prepare(tiny_config("fixmatch+abc+daso", method_options=options), digits)
    assert prepared.training.network.output == "abc"
    rows = list(train_run(prepared, tmp_path / "run"))
    losses = [row["losses"] for row in rows if row["event"] == "train"]
    assert all(math.isfinite(value) for row in losses for value in row.values())
    assert all(row["abc_labeled"] > 0 for row in losses)
    assert max(row["abc_unlabeled"] for row in losses) > 0

    network = load_model(tmp_path / "run", torch.device("cpu"), lambda message: None).network
    images = prepared.data.test.images[:50]
    logits, features_of = predict_logits(network, images), network(images)
    torch.testing.assert_close(logits, network.classify(features_of, "abc").detach())
    assert not torch.equal(logits.argmax(1), network.classify(features_of, "class").argmax(1))
    correct = (
        predict_logits(network, prepared.data.test.images).argmax(1) == prepared.data.test.labels
    )
    last = [row for row in rows if row["event"] == "evaluate"][-1]
    assert last["test"]["accuracy"] == pytest.approx(correct.float().mean().item())
