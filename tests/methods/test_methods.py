"""Methods: their formulas, invariants, composition, one compiled graph each."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from daso.compose import Recipe, compose
from daso.errors import OptionError
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch, Method
from daso.methods.supervised import Supervised
from daso.nets.network import Network, build_encoder
from daso.parts import Facts
from daso.plans.plan import Plan
from daso.refine.daso import DASO

K = 4
COUNTS = torch.tensor([9, 5, 2, 1])
FACTS = Facts(K, 32, COUNTS, COUNTS, 1000, 100)
METHODS = ("supervised", "fixmatch", "fixmatch+daso", "boss", "boss+la+daso")


def make_network(heads: dict[str, int] | None = None) -> Network:
    torch.manual_seed(0)
    return Network(build_encoder("small-8", 1, 8), {"class": K, **(heads or {})}, [0.5], [0.25])


def make_batch(step: int = 0, labeled: int = 12, unlabeled: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(step)

    def images(count: int) -> Tensor:
        return torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)

    return Batch(
        (images(labeled),),
        torch.randint(0, K, (labeled,), generator=generator),
        (images(unlabeled), images(unlabeled)),
        torch.arange(unlabeled),
        torch.tensor(step),
    )


def gradients(method: Method, network: Network, teacher: Network, batch: Batch) -> list[Tensor]:
    network.zero_grad()
    torch.stack(list(method(network, teacher, batch).losses.values())).sum().backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_supervised_is_cross_entropy_and_ignores_the_unlabelled_images() -> None:
    network, batch = make_network(), make_batch()
    losses = Supervised()(network, network, batch._replace(unlabeled=())).losses
    logits = network.classify(network(batch.labeled[0]))
    torch.testing.assert_close(losses["labeled"], F.cross_entropy(logits, batch.labels))


@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.95])
def test_fixmatch_is_its_formula_image_by_image(threshold: float) -> None:
    network, batch = make_network().eval(), make_batch()
    step = FixMatch(threshold=threshold, unlabeled_weight=0.5)(network, network, batch)
    weak, strong = (network.classify(network(view)) for view in batch.unlabeled)
    total, over = 0.0, 0
    for weak_logits, strong_logits in zip(weak, strong, strict=True):
        probs = weak_logits.softmax(0)
        if probs.max() >= threshold:
            over += 1
            total += -strong_logits.log_softmax(0)[probs.argmax()].item()
    torch.testing.assert_close(
        step.losses["unlabeled"].item(), 0.5 * total / 20, rtol=1e-5, atol=1e-7
    )
    assert step.pseudo_labels.mask.sum() == over
    assert torch.equal(step.pseudo_labels.labels["final"], weak.argmax(1))


def test_with_threshold_0_and_equal_views_fixmatch_is_self_training() -> None:
    network, batch = make_network().eval(), make_batch()
    images = batch.unlabeled[0]
    losses = FixMatch(threshold=0.0)(
        network, network, batch._replace(unlabeled=(images, images))
    ).losses
    logits = network.classify(network(images))
    torch.testing.assert_close(losses["unlabeled"], F.cross_entropy(logits, logits.argmax(1)))


def test_no_gradient_reaches_the_teacher_or_flows_through_the_target() -> None:
    network, batch = make_network().eval(), make_batch()
    teacher = copy.deepcopy(network)
    method = compose(
        "fixmatch+daso", FACTS, {"warmup_steps": 0, "threshold": 0.0, "histogram_period": 1}
    )
    method(network, teacher, make_batch(1))
    method(network, teacher, batch._replace(step=torch.tensor(5)))
    step = method(network, teacher, batch._replace(step=torch.tensor(6)))
    (step.losses["unlabeled"] + step.losses["align"]).backward()
    assert all(p.grad is None for p in teacher.parameters())
    images = network.normalize(batch.unlabeled[0]).requires_grad_()
    strong = network.normalize(batch.unlabeled[1]).requires_grad_()
    labeled = network.normalize(batch.labeled[0])
    step = method(network, teacher, batch._replace(labeled=(labeled,), unlabeled=(images, strong)))
    (step.losses["unlabeled"] + step.losses["align"]).backward()
    assert images.grad is None or images.grad.abs().max() == 0
    assert strong.grad.abs().max() > 0


def test_before_its_warm_up_daso_is_fixmatch_bit_for_bit() -> None:
    batch = make_batch()
    options = {"threshold": 0.3}
    network, teacher = make_network(), make_network()
    plain = gradients(compose("fixmatch", FACTS, options), copy.deepcopy(network), teacher, batch)
    daso = gradients(
        compose("fixmatch+daso", FACTS, {**options, "warmup_steps": 9}),
        copy.deepcopy(network),
        teacher,
        batch,
    )
    assert len(plain) == len(daso)
    assert all(torch.equal(a, b) for a, b in zip(plain, daso, strict=True))


@pytest.mark.parametrize("name", ["fixmatch", "fixmatch+daso", "fixmatch+la+abc+daso", "boss"])
def test_weak_views_that_go_apart_change_nothing_but_batch_statistics(name: str) -> None:
    options = {"threshold": 0.3, "threshold_range": 0.1} if name == "boss" else {"threshold": 0.3}
    options |= {"warmup_steps": 0, "histogram_period": 1} if "daso" in name else {}

    def steps(training: bool) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
        found = []
        for weak_pass in ("joint", "apart"):
            method = compose(name, FACTS, {**options, "weak_pass": weak_pass})
            network = make_network(method.heads).train(training)
            for number in range(2):
                batch = make_batch(number)
                batch = batch._replace(
                    draws=method.draw(12, 20, torch.Generator().manual_seed(number))
                )
                network.zero_grad()
                losses = method(network, make_network(method.heads), batch).losses
                torch.stack(list(losses.values())).sum().backward()
            found.append((losses, [p.grad.clone() for p in network.parameters()]))
        return found

    (joint, joint_gradient), (apart, apart_gradient) = steps(training=False)
    assert joint["unlabeled"] > 0
    torch.testing.assert_close(apart, joint)
    torch.testing.assert_close(apart_gradient, joint_gradient)
    (joint, _), (apart, _) = steps(training=True)
    assert (apart["labeled"] - joint["labeled"]).abs() > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_one_graph_with_the_same_numbers(name: str) -> None:
    torch._dynamo.reset()
    plain, compiled = (
        compose(name, FACTS, {"warmup_steps": 2} if "daso" in name else {}) for _ in range(2)
    )
    networks = [make_network() for _ in range(4)]
    run = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for number in range(4):
        batch = make_batch(number)
        expected = plain(networks[0], networks[1], batch)
        actual = run(networks[2], networks[3], batch)
        assert expected.losses.keys() == actual.losses.keys()
        for loss in expected.losses:
            torch.testing.assert_close(actual.losses[loss], expected.losses[loss])
        if expected.pseudo_labels is not None:
            for part, labels in expected.pseudo_labels.labels.items():
                assert torch.equal(actual.pseudo_labels.labels[part], labels)
    for (key, value), other in zip(
        plain.state_dict().items(), compiled.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, msg=key)


@pytest.mark.parametrize("name", METHODS)
def test_state_is_tensors_of_fixed_shape(name: str) -> None:
    method, network = compose(name, FACTS), make_network()
    before = {key: value.shape for key, value in method.state_dict().items()}
    for number in range(3):
        method(network, network, make_batch(number))
    assert {key: value.shape for key, value in method.state_dict().items()} == before


def test_hyperparameters_come_from_constructors_with_their_descriptions() -> None:
    known = Recipe.parse("fixmatch+daso").hyperparameters()
    assert known["threshold"].default == 0.95
    assert known["threshold"].part == "FixMatch"
    assert known["dist_temperature"].default == 1.5
    assert "T_dist" in known["dist_temperature"].help
    assert all(parameter.help for parameter in known.values())
    assert not {"refine", "supervised", "num_classes"} & known.keys()
    assert Recipe.parse("supervised").hyperparameters() == {}


def test_options_reach_their_part_and_defaults_are_resolved() -> None:
    method = compose("fixmatch+daso", FACTS, {"threshold": 0.7, "queue_length": 3})
    assert isinstance(method, FixMatch)
    assert isinstance(method.refine, DASO)
    resolved = Recipe.parse("fixmatch+daso").resolved_options(method, Plan(1000))
    assert resolved.keys() == Recipe.parse("fixmatch+daso").hyperparameters().keys()
    assert (resolved["threshold"], resolved["queue_length"], resolved["warmup_steps"]) == (
        0.7,
        3,
        200,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fixmach", "Did you mean 'fixmatch'"),
        ("fixmatch+dsao", "Did you mean 'daso'"),
        ("supervised+daso", "makes no guesses"),
        ("supervised+crest-plus", "makes no guesses"),
        ("fixmatch+la+ldam", "two losses"),
        ("fixmatch+crest+crt", "in two ways"),
        ("fixmatch+mixmatch", "mixmatch is a method"),
        ("daso", "daso is an addition"),
        ("mixmatch+la", "labels are soft"),
        ("fixmatch+estimate", "align or darp"),
        ("fixmatch+daso+daso", "twice"),
        ("", "unknown method ''"),
        ("fixmatch+", "unknown part ''"),
    ],
)
def test_names_that_make_no_sense_are_refused_with_the_reason(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        compose(name, FACTS)


def test_options_that_no_part_has_are_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'threshold'"):
        compose("fixmatch", FACTS, {"treshold": 0.9})
    with pytest.raises(OptionError, match=r"threshold = 1.5"):
        compose("fixmatch", FACTS, {"threshold": 1.5})
    with pytest.raises(OptionError, match="unlabeled_weight = -1"):
        compose("fixmatch", FACTS, {"unlabeled_weight": -1})
