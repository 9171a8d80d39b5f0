"""What holds for every learner, alone and with every part that it takes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from small_learners import COUNTS, D, K, build, make_batch, make_network
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from daso.catalog import ADDITIONS, METHODS
from daso.compose import Recipe, compose
from daso.data.source import Source
from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch, Method, Step
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.parts import Facts
from daso.refine.guess import Guess, Refiner
from daso.train.loop import fit
from daso.train.prepare import prepare

PARTS = [
    name
    for name, place in ADDITIONS.items()
    if not place.startswith(("daso.plans.", "daso.readout."))
]
"""Parts of a step; plans and readouts act outside of it."""


def compositions() -> list[str]:
    """Return every learner, each with every part that it takes, and what the paper combines."""
    combined = "fixmatch+la+daso fixmatch+abc+daso fixmatch+la+abc+darp boss+la+abc+daso"
    names = [*METHODS, *combined.split()]
    for method, place in METHODS.items():
        # What FixMatch takes, its variants take in the same place.
        parts = ["daso", "abc"] if ".variants." in place else PARTS
        for part in parts:
            try:
                names.append(Recipe.parse(f"{method}+{part}").name)
            except OptionError:  # what it does not take is in test_compose.py
                continue
    return sorted(names)


NAMES = compositions()


def every(check: Callable[[str], None]) -> Callable[[str], None]:
    """Turn a check of one composition into a test of a learner, alone and with all that it takes."""

    def test(learner: str) -> None:
        for name in NAMES:
            if name.split("+")[0] == learner:
                check(name)  # pytest prints the name that it is given

    return pytest.mark.parametrize("learner", METHODS)(test)


def step(method: Method, networks: list[Network], batch: Batch) -> Step:
    method.begin_step(int(batch.step))
    result: Step = method(*networks, batch)
    method.end_step(*networks, batch)
    return result


def losses_of(method: Method, networks: list[Network], number: int) -> dict[str, Tensor]:
    return {
        name: loss.detach()
        for name, loss in step(method, networks, make_batch(method, number)).losses.items()
    }


def test_every_learner_and_every_part_is_here() -> None:
    parts = [name.split("+") for name in NAMES]
    assert {part for name in parts for part in name} == {*METHODS, *PARTS}
    with_daso = {name[0] for name in parts if "daso" in name}
    assert with_daso == METHODS.keys() - {"supervised", "usadtm", "mixtureteacher"}


@every
def test_permuting_the_classes_changes_nothing_but_their_names(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    named = order.argsort()
    plain, permuted = build(name), build(name, COUNTS[order])
    networks = [make_network(seed).eval() for seed in (0, 1)]
    others = copy.deepcopy(networks)
    for network in others:
        for called in ("class", "abc", "balanced", "enhanced"):
            head = network.heads[called]
            head.load_state_dict({"weight": head.weight[order], "bias": head.bias[order]})
        assert network.readout is not None
        network.readout.weight.copy_(network.readout.weight[:, order])
        network.readout.prior.copy_(network.readout.prior[order])
    for number in range(3):
        batch = make_batch(plain, number)
        expected = step(plain, networks, batch)
        actual = step(permuted, others, batch._replace(labels=named[batch.labels]))
        assert expected.losses.keys() == actual.losses.keys()
        torch.testing.assert_close(actual.losses, expected.losses, rtol=1e-6, atol=1e-9)
        if expected.pseudo_labels is not None:
            for part, labels in expected.pseudo_labels.labels.items():
                assert torch.equal(actual.pseudo_labels.labels[part], named[labels])
            torch.testing.assert_close(actual.pseudo_labels.mask, expected.pseudo_labels.mask)


@every
def test_every_loss_is_at_work_and_none_reaches_the_teacher(name: str) -> None:
    method, networks = build(name), [make_network(seed) for seed in (0, 1)]
    if getattr(method, "threshold", 1) < 1:
        unsure = {"adello": 0.9, "adello+abc": 0.9, "adello+daso": 0.27}  # which it needs as well
        method.threshold = unsure.get(name, 0.26)
    for number in (1, 2):
        batch = make_batch(method, number, unlabeled=32)._replace(step=torch.tensor(500 + number))
        losses, record = step(method, networks, batch)
        torch.stack(list(losses.values())).sum().backward()
        # What is kept after a step holds none of its graph.
        assert record is None or not (record.confidence.requires_grad or record.mask.requires_grad)
        assert not any(value.requires_grad for value in method.buffers())
        assert record is None or record.mask.is_floating_point()
    assert all(loss != 0 for loss in losses.values()), losses
    assert all(p.grad is None for p in networks[1].parameters())
    assert any(
        p.grad is not None and p.grad.abs().max() > 0 for p in networks[0].encoder.parameters()
    )


def test_no_gradient_flows_through_the_view_that_is_only_guessed_from() -> None:
    for name in NAMES:
        one_pass = isinstance(build(name), FixMatch)
        if one_pass or name.startswith(("meanteacher", "usadtm", "mixtureteacher")):
            check_that_no_gradient_flows(name)


def check_that_no_gradient_flows(name: str) -> None:
    options = {"information_weight": 0.0} if name.startswith("usadtm") else {}
    method, networks = build(name, **options), [make_network(seed).eval() for seed in (0, 1)]
    step(method, networks, make_batch(method, 1))
    batch = make_batch(method, 2)
    views = [networks[0].normalize(view).requires_grad_() for view in batch.unlabeled]
    images = networks[0].normalize(batch.labeled[0])
    batch = batch._replace(labeled=(images,), unlabeled=tuple(views), step=torch.tensor(500))
    losses = step(method, networks, batch).losses
    of_unlabeled = [loss for key, loss in losses.items() if "labeled" not in key.split("_")]
    torch.stack(of_unlabeled).sum().backward()
    *guessed, taught = views[::-1] if name.startswith("meanteacher") else views
    assert all(view.grad is None or view.grad.abs().max() == 0 for view in guessed)
    assert taught.grad.abs().max() > 0


@every
def test_the_state_goes_through_a_file_in_the_middle_of_a_training(name: str) -> None:
    first, second = build(name), build(name)
    networks = [make_network(seed).eval() for seed in (0, 1)]
    untouched = copy.deepcopy(first.state_dict())
    for number in range(5):
        losses_of(first, networks, number)
    state = {key: value.contiguous() for key, value in first.state_dict().items()}
    second.load_state_dict(load(save(state)))
    for number in range(5, 8):
        expected, actual = losses_of(first, networks, number), losses_of(second, networks, number)
        assert all(torch.equal(actual[loss], value) for loss, value in expected.items())
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
        assert value.shape == untouched[key].shape
    stateful = {"daso", "darp", "align", "usadtm", "remixmatch"}
    stateful |= {"freematch", "softmatch", "debiaspl", "acr", "simpro", "adello", "cdmad"}
    remembers = stateful & set(name.split("+"))
    changed = any(
        not torch.equal(value, untouched[key]) for key, value in first.state_dict().items()
    )
    assert changed == bool(remembers)


def test_no_two_tensors_of_the_state_share_memory() -> None:
    """A checkpoint would refuse them."""
    sharing = []
    for name in NAMES:
        state = compose(name, Facts(K, D, COUNTS, COUNTS, 1000, 100)).state_dict()
        places = [value.data_ptr() for value in state.values() if value.numel()]
        sharing += [name] * (len(set(places)) < len(places))
    assert sharing == []


def test_before_its_warm_up_daso_is_what_it_is_added_to_bit_for_bit() -> None:
    for name in NAMES:
        if "daso" in name.split("+"):
            check_that_daso_waits(name)


def check_that_daso_waits(name: str) -> None:
    base = "+".join(part for part in name.split("+") if part != "daso")
    options = {"align": False} if base == "remixmatch" else {}
    ends = []
    for method in (build(base, **options), build(name, **options, warmup_steps=9)):
        network = make_network()
        for number in range(3):
            # With batch statistics Mean Teacher's teacher would see the labeled images too.
            teacher = make_network(1).train(not base.startswith("meanteacher"))
            batch = make_batch(method, number)._replace(step=torch.tensor(number + 5))
            network.zero_grad()
            torch.stack(list(method(network, teacher, batch).losses.values())).sum().backward()
            torch.optim.SGD(network.parameters(), lr=0.1).step()
        ends.append(network)
    for plain, daso in zip(*(network.parameters() for network in ends), strict=True):
        assert torch.equal(plain, daso)


def test_trainings_are_by_default_those_of_the_paper() -> None:
    one_each = {"pseudolabel", "meanteacher", "mixmatch", "remixmatch", "mixtureteacher"}
    own = {"supervised": (0.1, "multistep"), "mixtureteacher": (0.1, "one-cycle")}
    for name in METHODS:
        method, (rate, schedule) = build(name), own.get(name, (0.03, "constant"))
        assert (method.learning_rate, method.schedule) == (rate, schedule)
        assert method.unlabeled_ratio == (1 if name in one_each else 2)
        assert method.labeled_views == ("weak",)


def test_steps_are_functions_of_the_batch_and_draws_of_the_generator() -> None:
    for name in METHODS:
        method, network = build(name), make_network().eval()
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 5, 6)]
        first, second, other = (method.draw(8, 8, generator) for generator in generators)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert not first or not all(torch.equal(first[key], other[key]) for key in first)
        batch = make_batch(method, 2)
        losses = [copy.deepcopy(method)(network, network, batch).losses for _ in range(2)]
        assert all(torch.equal(losses[0][key], losses[1][key]) for key in losses[0])


def test_losses_on_unlabeled_images_grow_from_nothing_and_then_stay() -> None:
    ends = {"pseudolabel": 400, "meanteacher": 400, "mixmatch": 16, "remixmatch": 16}
    assert ends.keys() == {name for name in METHODS if hasattr(build(name), "unlabeled_ramp")}
    for name, end in ends.items():
        method, networks = build(name), [make_network(seed).eval() for seed in (0, 1)]

        def at(number: int, method: Method = method, networks: Any = networks) -> float:
            batch = make_batch(method)._replace(step=torch.tensor(number))
            return copy.deepcopy(method)(*networks, batch).losses["unlabeled"].item()

        assert at(0) == 0
        assert at(end) > 0
        assert at(end // 2) == pytest.approx(at(end) / 2)
        assert at(end + 1) == at(999) == at(end)


def test_a_ramp_is_linear_and_none_is_1() -> None:
    values = [ramp(torch.tensor(step), 0.4, 10).item() for step in range(6)]
    assert values == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    assert ramp(torch.tensor(0), 0.0, 10).item() == 1


def joint_and_apart(name: str, training: bool) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
    """Return losses and gradients of two steps, with the weak views in the pass of the others and apart."""
    found = []
    for weak_pass in ("joint", "apart"):
        method, network = build(name, weak_pass=weak_pass), make_network().train(training)
        for number in range(2):
            batch = make_batch(method, number, labeled=12, unlabeled=20)
            network.zero_grad()
            losses = step(method, [network, make_network(1)], batch).losses
            torch.stack(list(losses.values())).sum().backward()
        found.append((losses, [p.grad for p in network.parameters() if p.grad is not None]))
    return found


def test_weak_views_that_go_apart_change_nothing_but_batch_statistics() -> None:
    for name in ("fixmatch+la+abc+daso", "boss"):
        joint, apart = joint_and_apart(name, training=False)
        assert joint[0]["unlabeled"] > 0, name
        torch.testing.assert_close(apart, joint)
        (joint_losses, _), (apart_losses, _) = joint_and_apart(name, training=True)
        assert (apart_losses["labeled"] - joint_losses["labeled"]).abs() > 1e-4, name


class Watching(Refiner):
    """Remembers what it was shown: labeled images, their features by network and teacher, a guess."""

    observes = observes_network = True

    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        self.seen = images, labels, features, teacher(images)

    def forward(self, guess: Guess) -> Guess:
        self.guess = guess
        return guess


def test_a_refiner_sees_labeled_images_and_guesses_as_network_and_teacher_do() -> None:
    for name in METHODS:
        if f"{name}+daso" in NAMES:
            check_what_a_refiner_sees(name)


def check_what_a_refiner_sees(name: str) -> None:
    method, network = build(name), make_network().eval()
    method.refine = watching = Watching()
    batch = make_batch(method, 3)._replace(indices=torch.arange(40, 48))
    (images,), views = batch.labeled, batch.unlabeled
    for training in (False, True):  # with batch statistics it matters what shares a pass
        method(network, make_network(1).train(training), batch)
        teacher, from_teacher = make_network(1).train(training), name == "meanteacher"
        averaged = teacher(torch.cat([images, views[1]]) if from_teacher else images)
        seen, labels, own, by_teacher = watching.seen
        assert torch.equal(seen, images)
        assert torch.equal(labels, batch.labels)
        torch.testing.assert_close(own, network(images))
        torch.testing.assert_close(by_teacher, averaged[: len(images)])
        guessed = averaged[len(images) :] if from_teacher else network(views[0])
        torch.testing.assert_close(watching.guess.features, guessed)
        rows = watching.guess.parts["linear"].sum(1)
        torch.testing.assert_close(rows, torch.ones_like(rows))
    assert torch.equal(watching.guess.indices, batch.indices)
    assert watching.guess.step == 3
    carried = (own, watching.guess.probs, watching.guess.features)
    assert not any(tensor.requires_grad for tensor in carried)


class Seven(LabeledLoss):
    """Remembers what it was given, and is 7."""

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        self.seen = logits, labels, step
        return 0 * logits.sum() + 7


def test_the_loss_on_labeled_images_is_the_one_that_was_added() -> None:
    for name in (name for name in METHODS if f"{name}+la" in NAMES):
        method, networks = build(name), [make_network(seed).eval() for seed in (0, 1)]
        method.supervised = loss = Seven()
        batch = make_batch(method, 3)
        assert step(method, networks, batch).losses["labeled"] == 7
        logits, labels, number = loss.seen
        torch.testing.assert_close(logits, networks[0].classify(networks[0](batch.labeled[0])))
        assert logits.requires_grad
        assert torch.equal(labels, batch.labels)
        assert number == 3


ONE_GRAPH = """
supervised+ldam fixmatch+align+sharpen+daso boss+la+abc+daso freematch softmatch debiaspl+la
acr simpro adello cdmad cossl pseudolabel+class-balanced+daso meanteacher+daso mixmatch+daso
remixmatch+daso remixmatch usadtm mixtureteacher+la
"""
GRAPHS = dict.fromkeys(ONE_GRAPH.split(), 1) | {"fixmatch+darp": 2}  # with and without a refinement
"""Compositions of which a step is compiled, and into how many graphs."""


def test_every_learner_and_every_part_is_compiled() -> None:
    assert {part for name in GRAPHS for part in name.split("+")} == {*METHODS, *PARTS}


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_a_step_is_one_graph_with_the_same_numbers(name: str) -> None:
    torch._dynamo.reset()
    parts = name.split("+")
    options: dict[str, float] = {"warmup_steps": 2} if "daso" in parts else {}
    options |= {"reweight_from": 0.002} if {"ldam", "class-balanced"} & set(parts) else {}
    options |= {"darp_start": 0.001, "darp_period": 2} if "darp" in parts else {}
    plain, compiled = (build(name, **options) for _ in range(2))
    networks = [make_network(number // 2) for number in range(4)]
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(compiled, backend=counter, fullgraph=True)
    for number in range(4):
        batch = make_batch(plain, number)
        for method in (plain, compiled):
            method.begin_step(number)
        torch.testing.assert_close(run(*networks[1::2], batch), plain(*networks[::2], batch))
    torch.testing.assert_close(compiled.state_dict(), plain.state_dict())
    assert counter.frame_count == GRAPHS[name]


@pytest.mark.parametrize(
    "name", ["pseudolabel+daso", "meanteacher+daso", "mixmatch+daso", "remixmatch+daso", "usadtm"]
)
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
