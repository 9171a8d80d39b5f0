"""What holds for every learner: permuted classes, one graph, draws, ramps, DASO's warm-up, short trainings."""

import copy
import math
from typing import Any

import pytest
import torch
from small_learners import build, make_batch, make_network
from torch import Tensor

from daso.compose import Recipe
from daso.data.source import Source
from daso.errors import OptionError
from daso.methods.ramp import ramp
from daso.refine.guess import Guess, Refiner
from daso.train.loop import fit
from daso.train.prepare import prepare

BASES = ("pseudolabel", "meanteacher", "mixmatch", "remixmatch")
METHODS = (*BASES, "usadtm", *(f"{base}+daso" for base in BASES))
HALF_RAMP = {"pseudolabel": 200, "meanteacher": 200, "mixmatch": 8, "remixmatch": 8}


@pytest.mark.parametrize("name", METHODS)
def test_a_learner_is_one_graph_with_the_same_numbers(name: str) -> None:
    torch._dynamo.reset()
    plain, compiled = (
        build(name, **({"warmup_steps": 2} if "daso" in name else {})) for _ in range(2)
    )
    networks = [make_network(number // 2) for number in range(4)]
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for number in range(4):
        batch = make_batch(plain, number)
        expected, actual = plain(*networks[::2], batch), run(*networks[1::2], batch)
        assert expected.losses.keys() == actual.losses.keys()
        for loss, value in expected.losses.items():
            torch.testing.assert_close(actual.losses[loss], value)
        for part, labels in expected.pseudo_labels.labels.items():
            assert torch.equal(actual.pseudo_labels.labels[part], labels)
        torch.testing.assert_close(actual.pseudo_labels.mask, expected.pseudo_labels.mask)
    for (key, value), other in zip(
        plain.state_dict().items(), compiled.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_a_function_of_batch_and_draws_and_the_draws_of_the_generator(name: str) -> None:
    method, network = build(name), make_network().eval()
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 5, 6)]
    first, second, other = (method.draw(8, 8, generator) for generator in generators)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not first or not all(torch.equal(first[key], other[key]) for key in first)
    batch = make_batch(method, 2)
    losses = [copy.deepcopy(method)(network, network, batch).losses for _ in range(2)]
    assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


@pytest.mark.parametrize("name", BASES)
def test_the_loss_on_unlabelled_images_grows_from_nothing_and_then_stays(name: str) -> None:
    method, network, teacher = build(name), make_network().eval(), make_network(1).eval()

    def at(step: int) -> float:
        batch = make_batch(method)._replace(step=torch.tensor(step))
        return copy.deepcopy(method)(network, teacher, batch).losses["unlabeled"].item()

    end = 2 * HALF_RAMP[name]
    assert at(0) == 0
    assert at(end) > 0
    assert at(end // 2) == pytest.approx(at(end) / 2)
    assert at(end + 1) == at(999) == at(end)


def test_a_ramp_is_linear_and_none_is_1() -> None:
    values = [ramp(torch.tensor(step), 0.4, 10).item() for step in range(6)]
    assert values == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert ramp(torch.tensor(0), 0.0, 10).item() == 1


class Recorder(Refiner):
    """Remembers what it was shown."""

    observes = True
    observes_network = True

    def observe(
        self, images: Tensor, features: Tensor | None, labels: Tensor, teacher: Any
    ) -> None:
        self.online, self.averaged = features, teacher(images)

    def forward(self, guess: Guess) -> Guess:
        self.guess = guess
        return guess


@pytest.mark.parametrize("name", [*BASES, "fixmatch", "boss"])
def test_a_refiner_is_shown_the_labelled_features_of_network_and_teacher(name: str) -> None:
    method, network, teacher = build(name), make_network().eval(), make_network(1)
    method.refine = recorder = Recorder()
    batch = make_batch(method, 3)._replace(indices=torch.arange(40, 48))
    method(network, copy.deepcopy(teacher), batch)
    (images,), views = batch.labeled, batch.unlabeled
    seen = torch.cat([images, views[1]]) if name == "meanteacher" else images
    averaged = teacher(seen)
    torch.testing.assert_close(recorder.online, network(images))
    torch.testing.assert_close(recorder.averaged, averaged[: len(images)])
    guessed = averaged[len(images) :] if name == "meanteacher" else network(views[0])
    torch.testing.assert_close(recorder.guess.features, guessed)
    assert torch.equal(recorder.guess.indices, batch.indices)
    assert recorder.guess.step == 3
    assert not recorder.online.requires_grad
    assert not any(
        tensor.requires_grad for tensor in (recorder.guess.probs, recorder.guess.features)
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_short_training_runs_and_all_losses_stay_finite(
    name: str, digits: Source, tiny_config: Any
) -> None:
    options = {"warmup_steps": 2, "histogram_period": 2} if "daso" in name else {}
    prepared = prepare(tiny_config(name, method_options=options, steps=6, evaluate_every=3), digits)
    assert prepared.config.train.unlabeled_ratio == (2 if name == "usadtm" else 1)
    assert prepared.config.method_options.keys() == Recipe.parse(name).hyperparameters().keys()
    *_, last = fit(prepared.training, prepared.batches, prepared.data)
    assert last["event"] == "evaluate"
    assert 0 <= last["test"]["accuracy"] <= 1
    assert last["pseudo_labels"].keys() >= {"linear", "final", "share_confident"}
    assert prepared.training.broken() == []


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("pseudolabel", "threshold", 1.5),
        ("pseudolabel", "unlabeled_ramp", -0.1),
        ("meanteacher", "unlabeled_weight", -1.0),
        ("meanteacher", "unlabeled_ramp", 2.0),
        ("mixmatch", "temperature", 0.0),
        ("mixmatch", "mixup_alpha", 0.0),
        ("remixmatch", "mixup_alpha", math.inf),
        ("remixmatch", "premix_weight", -0.5),
        ("remixmatch", "rotation_weight", math.nan),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, option: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"{option} = {value}"):
        build(name, **{option: value})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixmatch+la", "labels are soft"),
        ("remixmatch+abc", "no single label"),
        ("meanteacher+abc", "no strong view"),
        ("usadtm+daso", "nearest prototypes"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        build(name)
