"""What holds for every learner, alone and with every part that it takes."""

import copy
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from small_learners import COUNTS, build, make_batch, make_network, total
from torch import Tensor

from daso.catalog import ADDITIONS, METHODS, outline
from daso.compose import Recipe
from daso.errors import OptionError
from daso.losses.labeled import LabeledLoss
from daso.methods.method import Batch, Method, Step
from daso.nets.network import Network
from daso.refine.guess import Refiner

PLANS = {name for name, place in ADDITIONS.items() if outline(place).kind == "plan"}


def compositions() -> list[str]:
    """Return every learner, each with every part that it takes, and what the paper puts together."""
    names = [
        *METHODS,
        "fixmatch+la+daso",
        "fixmatch+abc+daso",
        "fixmatch+la+abc+darp",
        "boss+la+abc+daso",
    ]
    for method in METHODS:
        for part in ADDITIONS.keys() - PLANS:
            try:
                names.append(Recipe.parse(f"{method}+{part}").name)
            except OptionError:  # what it does not take is in test_methods.py
                continue
    return sorted(names)


NAMES = compositions()
EVERY = pytest.mark.parametrize("name", NAMES)


def step(method: Method, networks: list[Network], batch: Batch) -> Step:
    method.begin_step(int(batch.step))
    return method(*networks, batch)


def losses_of(method: Method, networks: list[Network], number: int) -> dict[str, Tensor]:
    return {
        name: loss.detach()
        for name, loss in step(method, networks, make_batch(method, number)).losses.items()
    }


def test_every_learner_and_every_part_is_here() -> None:
    parts = [name.split("+") for name in NAMES]
    assert {part for name in parts for part in name} == METHODS.keys() | ADDITIONS.keys() - PLANS
    assert {name[0] for name in parts if "daso" in name} == METHODS.keys() - {
        "supervised",
        "usadtm",
    }


@EVERY
def test_permuting_the_classes_changes_nothing_but_their_names(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    named = order.argsort()
    plain, permuted = build(name), build(name, COUNTS[order])
    networks = [make_network(seed).eval() for seed in (0, 1)]
    others = copy.deepcopy(networks)
    for network in others:
        for called in ("class", "abc"):
            head = network.heads[called]
            head.load_state_dict({"weight": head.weight[order], "bias": head.bias[order]})
    for number in range(3):
        batch = make_batch(plain, number)
        expected = step(plain, networks, batch)
        actual = step(permuted, others, batch._replace(labels=named[batch.labels]))
        assert expected.losses.keys() == actual.losses.keys()
        for loss, value in expected.losses.items():
            torch.testing.assert_close(actual.losses[loss], value, rtol=1e-4, atol=1e-6)
        if expected.pseudo_labels is not None:
            for part, labels in expected.pseudo_labels.labels.items():
                assert torch.equal(actual.pseudo_labels.labels[part], named[labels])
            torch.testing.assert_close(actual.pseudo_labels.mask, expected.pseudo_labels.mask)


@EVERY
def test_every_loss_is_at_work_and_none_reaches_the_teacher(name: str) -> None:
    confident = {"threshold": 0.26} if name.startswith(("pseudolabel", "fixmatch", "boss")) else {}
    method, networks = build(name, **confident), [make_network(seed) for seed in (0, 1)]
    for number in (1, 2):
        batch = make_batch(method, number, unlabeled=32)._replace(step=torch.tensor(500 + number))
        losses, record = step(method, networks, batch)
        torch.stack(list(losses.values())).sum().backward()
        # What is kept after a step holds none of its graph.
        assert record is None or not (record.confidence.requires_grad or record.mask.requires_grad)
        assert not any(value.requires_grad for value in method.buffers())
    assert all(loss != 0 for loss in losses.values()), losses
    assert all(p.grad is None for p in networks[1].parameters())
    assert any(
        p.grad is not None and p.grad.abs().max() > 0 for p in networks[0].encoder.parameters()
    )


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name.startswith(("fixmatch", "boss", "meanteacher"))]
)
def test_no_gradient_flows_through_the_view_that_is_only_guessed_from(name: str) -> None:
    method, networks = build(name), [make_network(seed).eval() for seed in (0, 1)]
    step(method, networks, make_batch(method, 1))
    batch = make_batch(method, 2)
    views = [networks[0].normalize(view).requires_grad_() for view in batch.unlabeled]
    images = networks[0].normalize(batch.labeled[0])
    batch = batch._replace(labeled=(images,), unlabeled=tuple(views), step=torch.tensor(500))
    losses = step(method, networks, batch).losses
    torch.stack(
        [loss for key, loss in losses.items() if "labeled" not in key.split("_")]
    ).sum().backward()
    guessed, taught = views[::-1] if name.startswith("meanteacher") else views
    assert guessed.grad is None or guessed.grad.abs().max() == 0
    assert taught.grad.abs().max() > 0


@EVERY
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
    remembers = {"daso", "darp", "align", "usadtm", "remixmatch"} & set(name.split("+"))
    changed = any(
        not torch.equal(value, untouched[key]) for key, value in first.state_dict().items()
    )
    assert changed == bool(remembers)


@pytest.mark.parametrize("name", [name for name in NAMES if "daso" in name.split("+")])
def test_before_its_warm_up_daso_is_what_it_is_added_to_bit_for_bit(name: str) -> None:
    base = "+".join(part for part in name.split("+") if part != "daso")
    options = {"align": False} if base == "remixmatch" else {}
    ends = []
    for method in (build(base, **options), build(name, **options, warmup_steps=9)):
        network = make_network()
        for number in range(3):
            # With batch statistics Mean Teacher's teacher would see the labelled images beside the others.
            teacher = make_network(1).train(not base.startswith("meanteacher"))
            batch = make_batch(method, number)._replace(step=torch.tensor(number + 5))
            network.zero_grad()
            total(method, network, teacher, batch).backward()
            torch.optim.SGD(network.parameters(), lr=0.1).step()
        ends.append(network)
    for plain, daso in zip(*(network.parameters() for network in ends), strict=True):
        assert torch.equal(plain, daso)


class Watching(Refiner):
    """Remembers the labelled images that it was shown, and what the network and its teacher make of them."""

    observes = observes_network = True

    def observe(
        self,
        images: Tensor,
        features: Tensor | None,
        labels: Tensor,
        teacher: Callable[[Tensor], Tensor],
    ) -> None:
        self.seen = images, labels, features, teacher(images)


@pytest.mark.parametrize("name", [name for name in METHODS if f"{name}+daso" in NAMES])
def test_a_refiner_sees_the_labelled_images_as_the_network_and_as_the_teacher_does(
    name: str,
) -> None:
    method, (network, teacher) = build(name), [make_network(seed).eval() for seed in (0, 1)]
    method.refine = watching = Watching()
    batch = make_batch(method, 3)
    step(method, [network, teacher], batch)
    images, labels, own, averaged = watching.seen
    assert torch.equal(images, batch.labeled[0])
    assert torch.equal(labels, batch.labels)
    torch.testing.assert_close(own, network(images).detach())
    torch.testing.assert_close(averaged.detach(), teacher(images).detach())
    assert not own.requires_grad


class Seven(LabeledLoss):
    """Remembers what it was given, and is 7."""

    def forward(self, logits: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        self.seen = logits, labels, step
        return 0 * logits.sum() + 7


@pytest.mark.parametrize("name", [name for name in METHODS if f"{name}+la" in NAMES])
def test_the_loss_on_labelled_images_is_the_one_that_was_added(name: str) -> None:
    method, networks = build(name), [make_network(seed).eval() for seed in (0, 1)]
    method.supervised = loss = Seven()
    batch = make_batch(method, 3)
    assert step(method, networks, batch).losses["labeled"] == 7
    logits, labels, number = loss.seen
    network = networks[0]
    torch.testing.assert_close(logits, network.classify(network(batch.labeled[0])))
    assert logits.requires_grad
    assert torch.equal(labels, batch.labels)
    assert number == 3
