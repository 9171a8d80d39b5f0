"""Pseudo-Label, Mean Teacher, MixMatch, ReMixMatch, USADTM: formulas, invariants, one graph, short trainings."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from daso.compose import Recipe, compose
from daso.data.source import Source
from daso.errors import OptionError
from daso.methods.method import Batch, Method
from daso.methods.mix import draw_mixup, encode_interleaved, interleaved_order, mixup
from daso.methods.ramp import ramp
from daso.methods.remixmatch import turn
from daso.nets.network import Network
from daso.parts import Facts
from daso.refine.guess import Guess, Refiner
from daso.train.fit import fit
from daso.train.run import prepare

K, D = 4, 16
COUNTS = torch.tensor([9, 5, 2, 1])
BASES = ("pseudolabel", "meanteacher", "mixmatch", "remixmatch")
METHODS = (*BASES, "usadtm", *(f"{base}+daso" for base in BASES))
HALF_RAMP = {"pseudolabel": 200, "meanteacher": 200, "mixmatch": 8, "remixmatch": 8}
IMAGES = [(1, 8, None), (3, 12, 8)]
"""Channels, side and the network's resolution."""


class OneLayer(nn.Module):
    """An encoder that is quick to trace."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = D
        self.convolution = nn.Conv2d(channels, D, 3, bias=False)
        self.norm = nn.BatchNorm2d(D)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.convolution(x))).amax((2, 3))


def make_network(seed: int = 0, channels: int = 1, resolution: int | None = None) -> Network:
    torch.manual_seed(seed)
    mean, std = [0.5, 0.4, 0.3][:channels], [0.25, 0.2, 0.3][:channels]
    heads = {"class": K, "rotation": 4}
    network = Network(OneLayer(channels), heads, mean, std, resolution=resolution)
    with torch.no_grad():
        network.heads["class"].weight *= 3  # so that guesses differ in how sure they are
    return network


def make_batch(
    method: Method, step: int = 0, labeled: int = 8, unlabeled: int = 8, channels: int = 1, size: int = 8
) -> Batch:
    generator = torch.Generator().manual_seed(step)

    def images(count: int) -> Tensor:
        return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)

    return Batch(
        (images(labeled),),
        torch.randint(0, K, (labeled,), generator=generator),
        tuple(images(unlabeled) for _ in method.unlabeled_views),
        torch.arange(unlabeled),
        torch.tensor(step),
        method.draw(labeled, unlabeled, generator),
    )


def build(name: str, counts: Tensor = COUNTS, **options: Any) -> Method:
    """Compose a method whose every part acts from the first steps on, also on guesses as unsure as those here."""
    eager: dict[str, Any] = {"threshold": 0.4} if name.startswith("pseudolabel") else {}
    eager |= {"warmup_steps": 0, "histogram_period": 1, "queue_length": 8} if "daso" in name else {}
    eager |= {"warmup_steps": 0, "cosine_threshold": 0.5} if name == "usadtm" else {}
    return compose(name, Facts(K, D, counts, counts, 1000, 100), {**eager, **options})


def gradient(loss: Tensor, network: Network) -> list[Tensor]:
    network.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


def total(method: Method, network: Network, teacher: Network, batch: Batch) -> Tensor:
    return torch.stack(list(method(network, teacher, batch).losses.values())).sum()


def logits_of(network: Network, images: Tensor, head: str = "class") -> list[Tensor]:
    """Return the logits of each image, uint8 or float, passed alone."""
    return [network.classify(network(image[None]), head)[0] for image in images]


def soft_cross_entropy(logits: list[Tensor], targets: list[Tensor]) -> Tensor:
    pairs = zip(logits, targets, strict=True)
    return torch.stack([-(target * row.log_softmax(0)).sum() for row, target in pairs]).mean()


def mixtures(network: Network, batch: Batch, targets: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the logits and the labels of the mixtures, one row at a time, given the targets of one view."""
    views = [*batch.labeled, *batch.unlabeled]
    images = [network.normalize(image[None])[0] for view in views for image in view]
    labels = [torch.eye(K)[label] for label in batch.labels] + targets * len(batch.unlabeled)
    factor, order = batch.draws["mixup_factor"], batch.draws["mixup_order"].tolist()
    mixed = [factor * images[i] + (1 - factor) * images[j] for i, j in enumerate(order)]
    labels = [factor * labels[i] + (1 - factor) * labels[j] for i, j in enumerate(order)]
    return logits_of(network, torch.stack(mixed)), labels


def pseudo_label_losses(network: Network, teacher: Network, batch: Batch) -> dict[str, Tensor]:
    per_image = []
    for row in logits_of(network, batch.unlabeled[0]):
        probs = row.softmax(0)
        per_image.append(-row.log_softmax(0)[probs.argmax()] * (probs.max() >= 0.4))
    labels = [torch.eye(K)[label] for label in batch.labels]
    return {
        "labeled": soft_cross_entropy(logits_of(network, batch.labeled[0]), labels),
        "unlabeled": 0.5 * torch.stack(per_image).mean(),
    }


def mean_teacher_losses(network: Network, teacher: Network, batch: Batch) -> dict[str, Tensor]:
    student, target = logits_of(network, batch.unlabeled[0]), logits_of(teacher, batch.unlabeled[1])
    squares = [(s.softmax(0) - t.softmax(0).detach()) ** 2 for s, t in zip(student, target, strict=True)]
    labels = [torch.eye(K)[label] for label in batch.labels]
    return {
        "labeled": soft_cross_entropy(logits_of(network, batch.labeled[0]), labels),
        "unlabeled": 0.5 * 50 * torch.stack(squares).sum() / (K * len(squares)),
    }


def mixmatch_losses(network: Network, teacher: Network, batch: Batch) -> dict[str, Tensor]:
    guesses = zip(*(logits_of(network, view) for view in batch.unlabeled), strict=True)
    means = [((a.softmax(0) + b.softmax(0)) / 2).detach() for a, b in guesses]
    logits, labels = mixtures(network, batch, [p**2 / (p**2).sum() for p in means])
    size = len(batch.labels)
    squares = [(row.softmax(0) - y) ** 2 for row, y in zip(logits[size:], labels[size:], strict=True)]
    return {
        "labeled": soft_cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 100 * torch.stack(squares).mean(),
    }


def remixmatch_losses(network: Network, teacher: Network, batch: Batch) -> dict[str, Tensor]:
    probs = torch.stack(logits_of(network, batch.unlabeled[0])).detach().softmax(1)
    aligned = [p * (COUNTS / COUNTS.sum() + 1e-6) / (probs.mean(0) + 1e-6) for p in probs]
    targets = [p**2 / (p**2).sum() for p in aligned]
    logits, labels = mixtures(network, batch, targets)
    size = len(batch.labels)
    turns = batch.draws["rotations"].tolist()
    strong = [network.normalize(image[None])[0] for image in batch.unlabeled[1]]
    turned = [torch.rot90(image, k, (1, 2)) for image, k in zip(strong, turns, strict=True)]
    rotations = logits_of(network, torch.stack(turned), "rotation")
    return {
        "labeled": soft_cross_entropy(logits[:size], labels[:size]),
        "unlabeled": 0.5 * 1.5 * soft_cross_entropy(logits[size:], labels[size:]),
        "premix": 0.5 * 0.5 * soft_cross_entropy(logits_of(network, batch.unlabeled[1]), targets),
        "rotation": 0.5 * soft_cross_entropy(rotations, [torch.eye(4)[k] for k in turns]),
    }


FORMULAS = {
    "pseudolabel": pseudo_label_losses,
    "meanteacher": mean_teacher_losses,
    "mixmatch": mixmatch_losses,
    "remixmatch": remixmatch_losses,
}


@pytest.mark.parametrize(("channels", "size", "resolution"), IMAGES)
@pytest.mark.parametrize("name", BASES)
def test_losses_and_gradient_are_the_formula_image_by_image(
    name: str, channels: int, size: int, resolution: int | None
) -> None:
    method = build(name)
    network, teacher = (make_network(seed, channels, resolution).eval() for seed in (0, 1))
    batch = make_batch(method, 3, channels=channels, size=size)
    batch = batch._replace(step=torch.tensor(HALF_RAMP[name]))
    step = method(network, teacher, batch)
    expected = FORMULAS[name](network, teacher, batch)
    assert step.losses.keys() == expected.keys()
    for loss, value in expected.items():
        assert value > 0
        torch.testing.assert_close(step.losses[loss], value, rtol=1e-4, atol=1e-6)
    actual_gradient = gradient(torch.stack(list(step.losses.values())).sum(), network)
    expected_gradient = gradient(torch.stack(list(expected.values())).sum(), network)
    for actual, wanted in zip(actual_gradient, expected_gradient, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-5)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_permuting_the_classes_changes_nothing_but_their_names(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    named = order.argsort()
    plain, permuted = build(name), build(name, COUNTS[order])
    networks = [make_network(seed).eval() for seed in (0, 1)]
    others = copy.deepcopy(networks)
    for network in others:
        head = network.heads["class"]
        head.load_state_dict({"weight": head.weight[order], "bias": head.bias[order]})
    for number in range(3):
        batch = make_batch(plain, number)
        expected = plain(*networks, batch)
        actual = permuted(*others, batch._replace(labels=named[batch.labels]))
        for loss, value in expected.losses.items():
            torch.testing.assert_close(actual.losses[loss], value, rtol=1e-4, atol=1e-6)
        assert torch.equal(
            actual.pseudo_labels.labels["final"], named[expected.pseudo_labels.labels["final"]]
        )
        assert torch.equal(actual.pseudo_labels.mask, expected.pseudo_labels.mask)


@pytest.mark.parametrize("name", METHODS)
def test_a_learner_is_one_graph_with_the_same_numbers(name: str) -> None:
    torch._dynamo.reset()
    plain, compiled = (build(name, **({"warmup_steps": 2} if "daso" in name else {})) for _ in range(2))
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
    for (key, value), other in zip(plain.state_dict().items(), compiled.state_dict().values(), strict=True):
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


@pytest.mark.parametrize("name", ["meanteacher", "mixmatch", "remixmatch"])
def test_before_its_warm_up_daso_is_its_base_bit_for_bit(name: str) -> None:
    # With batch statistics Mean Teacher's teacher would see the labelled images beside the others.
    options = {"align": False} if name == "remixmatch" else {}
    methods = [build(name, **options), build(f"{name}+daso", **options, warmup_steps=9)]
    networks = [make_network() for _ in methods]
    for number in range(3):
        for method, network in zip(methods, networks, strict=True):
            teacher = make_network(1).train(name != "meanteacher")
            batch = make_batch(method, number)._replace(step=torch.tensor(number + 5))
            gradient(total(method, network, teacher, batch), network)
            torch.optim.SGD(network.parameters(), lr=0.1).step()
    for plain, daso in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(plain, daso)


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


def test_a_teacher_that_is_the_student_and_sees_what_it_sees_teaches_nothing() -> None:
    method, network = build("meanteacher"), make_network().eval()
    batch = make_batch(method, 500)
    losses = method(network, network, batch._replace(unlabeled=batch.unlabeled[:1] * 2)).losses
    assert losses["unlabeled"] == 0


@pytest.mark.parametrize("name", ["mixmatch", "remixmatch"])
def test_with_factor_1_nothing_is_mixed(name: str) -> None:
    method, network = build(name, temperature=1.0, unlabeled_ramp=0.0), make_network().eval()
    batch = make_batch(method)
    batch.draws["mixup_factor"] = torch.tensor(1.0)
    losses = method(
        network, network, batch._replace(unlabeled=batch.unlabeled[:1] * len(batch.unlabeled))
    ).losses
    expected = F.cross_entropy(network.classify(network(batch.labeled[0])), batch.labels)
    torch.testing.assert_close(losses["labeled"], expected)
    if name == "mixmatch":  # its own, unsharpened guess is what it gives equal views
        assert losses["unlabeled"] < 1e-8
    else:  # the same cross-entropy, on the view unmixed and on three copies of it
        torch.testing.assert_close(losses["unlabeled"] / 1.5, losses["premix"] / 0.5)


def test_mixing_keeps_half_or_more_of_a_row_and_its_factor_is_beta_distributed() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([draw_mixup(0.5, 1, generator)["mixup_factor"] for _ in range(2000)])
    assert factors.min() >= 0.5
    assert factors.max() <= 1
    # The mean of max(l, 1 - l) for l from Beta(1/2, 1/2) is 1/2 + 1/pi; a standard deviation here is 0.0035.
    assert factors.mean().item() == pytest.approx(0.5 + 1 / math.pi, abs=0.02)
    draws = draw_mixup(0.5, 5, generator)
    values = torch.randn(5, 3)
    for row, partner in enumerate(draws["mixup_order"].tolist()):
        factor = draws["mixup_factor"]
        torch.testing.assert_close(
            mixup(values, draws)[row], factor * values[row] + (1 - factor) * values[partner]
        )
    assert sorted(draws["mixup_order"].tolist()) == list(range(5))


@pytest.mark.parametrize(("parts", "size"), [(3, 8), (4, 6), (5, 3), (1, 4)])
def test_interleaving_spreads_the_labelled_rows_evenly_and_undoes_itself(parts: int, size: int) -> None:
    order = interleaved_order(parts, size, torch.device("cpu"))
    assert torch.equal(order[order], torch.arange(parts * size))
    labeled = (order.view(parts, size) < size).sum(1)
    assert labeled.sum() == size
    assert labeled.max() - labeled.min() <= 1


@pytest.mark.parametrize(("labeled", "parts"), [(6, 3), (5, 1)])
def test_batch_statistics_are_of_the_interleaved_parts_or_of_the_whole(labeled: int, parts: int) -> None:
    network, images = make_network(), torch.randn(18, 1, 8, 8)
    features = encode_interleaved(network, images, labeled)
    order = interleaved_order(parts, 18 // parts, torch.device("cpu")).view(parts, -1)
    expected = torch.empty_like(features)
    for rows in order:
        expected[rows] = network(images[rows])
    torch.testing.assert_close(features, expected)
    assert (features - network(images)).abs().max() > 1e-3 or parts == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_images_turn_by_quarters(channels: int) -> None:
    images = torch.randn(8, channels, 5, 5)
    quarters = torch.arange(8) % 4
    turned = turn(images, quarters)
    for image, k, actual in zip(images, quarters.tolist(), turned, strict=True):
        assert torch.equal(actual, torch.rot90(image, k, (1, 2)))
    assert torch.equal(turn(images, torch.zeros(8, dtype=torch.int64)), images)
    assert torch.equal(turn(turned, -quarters % 4), images)
    with pytest.raises(OptionError, match="5 x 6"):
        turn(torch.randn(8, channels, 5, 6), quarters)


class Recorder(Refiner):
    """Remembers what it was shown."""

    observes = True
    observes_network = True

    def observe(self, images: Tensor, features: Tensor | None, labels: Tensor, teacher: Any) -> None:
        self.online, self.averaged = features, teacher(images)

    def forward(self, guess: Guess) -> Guess:
        self.guess = guess
        return guess


@pytest.mark.parametrize("name", BASES)
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
    assert not any(tensor.requires_grad for tensor in (recorder.guess.probs, recorder.guess.features))


def test_remixmatch_aligns_unless_its_refiner_takes_the_place() -> None:
    names = {
        "remixmatch": True,
        "remixmatch+daso": False,
        "remixmatch+sharpen": True,
        "remixmatch+align": False,
    }
    for name, aligns in names.items():
        assert build(name).align is aligns
        assert build(name, align=not aligns).align is not aligns
    assert build("remixmatch").heads == {"rotation": 4}


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
    assert prepared.training.is_finite()


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
