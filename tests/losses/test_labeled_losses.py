"""Losses on labelled images: the authors' numbers, the formulas image by image, their switches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from daso.compose import compose
from daso.errors import OptionError
from daso.losses.class_balanced import ClassBalanced, effective_number_weights
from daso.losses.labeled import LabeledLoss
from daso.losses.ldam import LDAM
from daso.losses.logit_adjusted import LogitAdjusted
from daso.methods.method import Batch
from daso.nets.network import Network
from daso.parts import Facts
from daso.train.prepare import prepare
from daso.train.run import train_run

REFERENCE = Path(__file__).parent.parent / "reference"
COUNTS = torch.tensor([90, 2, 25, 6])
K, STEPS = len(COUNTS), 100
BEFORE, AFTER = torch.tensor(79), torch.tensor(80)

MakeLoss = Callable[[Tensor], LabeledLoss]
ALL: list[MakeLoss] = [LogitAdjusted, lambda n: ClassBalanced(n, STEPS), lambda n: LDAM(n, STEPS)]


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(20, K, generator=torch.Generator().manual_seed(0)).mul(2).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(20) % K


def weights_by_hand(beta: float = 0.999) -> list[float]:
    plain = [(1 - beta) / (1 - beta**n) for n in COUNTS.tolist()]
    return [weight * K / sum(plain) for weight in plain]


def test_ldam_and_its_weights_agree_with_the_authors() -> None:
    vectors = dict(np.load(REFERENCE / "ldam_class_balanced.npz"))
    config = json.loads(str(vectors.pop("config")))
    expected = {name: torch.from_numpy(value) for name, value in vectors.items()}
    ldam = LDAM(
        expected["class_counts"].long(),
        1000,
        max_margin=config["max_margin"],
        logit_scale=config["scale"],
        effective_number_beta=config["beta"],
    )
    torch.testing.assert_close(ldam.margins, expected["margins"])
    # Their 1 - beta^n is rounded to float32 before the division.
    torch.testing.assert_close(ldam.class_weights, expected["class_weights"], rtol=3e-5, atol=0)
    loss = ldam(expected["logits"], expected["labels"], torch.tensor(900))
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_logit_adjustment_is_its_formula_image_by_image(
    strength: float, logits: Tensor, labels: Tensor
) -> None:
    loss = LogitAdjusted(COUNTS, adjustment_strength=strength)(logits, labels, BEFORE)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        adjusted = [
            z + strength * math.log(n / 123) for z, n in zip(row, COUNTS.tolist(), strict=True)
        ]
        total += math.log(sum(map(math.exp, adjusted))) - adjusted[label]
    assert loss.item() == pytest.approx(total / 20, rel=1e-5)
    assert (LogitAdjusted(COUNTS)(logits, labels, BEFORE) == loss) == (strength == 1)


def test_logit_adjustment_with_a_uniform_prior_is_cross_entropy(
    logits: Tensor, labels: Tensor
) -> None:
    adjusted = LogitAdjusted(torch.full((K,), 7))(logits, labels, BEFORE)
    plain = F.cross_entropy(logits, labels)
    torch.testing.assert_close(adjusted, plain, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(adjusted, logits)
    torch.testing.assert_close(
        gradient, torch.autograd.grad(plain, logits)[0], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1.0])
def test_weights_of_effective_numbers_sum_to_k(beta: float) -> None:
    weights = effective_number_weights(COUNTS, beta)
    assert weights.sum().item() == pytest.approx(K)
    if 0 < beta < 1:
        assert weights.tolist() == pytest.approx(weights_by_hand(beta))
    else:
        plain = 1 / COUNTS if beta == 1 else torch.ones(K)
        assert weights.tolist() == pytest.approx((plain * K / plain.sum()).tolist())


def test_class_balanced_weights_images_after_the_switch(logits: Tensor, labels: Tensor) -> None:
    loss = ClassBalanced(COUNTS, STEPS)
    log_probs = logits.log_softmax(1)
    weights = weights_by_hand()
    expected = (
        sum(-weights[y] * row[y].item() for row, y in zip(log_probs, labels.tolist(), strict=True))
        / 20
    )
    assert loss(logits, labels, AFTER).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(loss(logits, labels, BEFORE), F.cross_entropy(logits, labels))
    only_rare = logits[labels == 1], labels[labels == 1]
    ratio = loss(*only_rare, AFTER) / loss(*only_rare, BEFORE)
    assert ratio.item() == pytest.approx(weights[1], rel=1e-5)


def ldam_by_hand(
    logits: Tensor, labels: Tensor, weights: list[float], max_margin: float = 0.5, scale: float = 30
) -> float:
    total = weight = 0.0
    for row, y in zip(logits.tolist(), labels.tolist(), strict=True):
        margin = max_margin * (2 / COUNTS[y].item()) ** 0.25
        scaled = [scale * (z - margin * (k == y)) for k, z in enumerate(row)]
        top = max(scaled)
        total += weights[y] * (top + math.log(sum(math.exp(z - top) for z in scaled)) - scaled[y])
        weight += weights[y]
    return total / weight


def test_ldam_acts_from_the_switch_on_as_the_authors_of_daso_do(
    logits: Tensor, labels: Tensor
) -> None:
    loss = LDAM(COUNTS, STEPS)
    torch.testing.assert_close(loss(logits, labels, BEFORE), F.cross_entropy(logits, labels))
    expected = ldam_by_hand(logits, labels, weights_by_hand())
    assert loss(logits, labels, AFTER).item() == pytest.approx(expected, rel=1e-5)
    assert LDAM(COUNTS, STEPS, reweight_from=0.3).margins_from == 0.3


def test_ldam_can_act_from_the_start_and_defer_only_the_weights(
    logits: Tensor, labels: Tensor
) -> None:
    loss = LDAM(COUNTS, STEPS, margins_from=0.0)
    unweighted = ldam_by_hand(logits, labels, [1.0] * K)
    weighted = ldam_by_hand(logits, labels, weights_by_hand())
    assert unweighted != pytest.approx(weighted, rel=1e-3)
    assert loss(logits, labels, BEFORE).item() == pytest.approx(unweighted, rel=1e-5)
    assert loss(logits, labels, AFTER).item() == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize(
    ("max_margin", "scale", "beta"),
    [(0.2, 30.0, 0.999), (0.5, 3.0, 0.999), (0.5, 30.0, 0.9), (1.5, 2.0, 0.5)],
)
def test_the_options_of_ldam_act(
    max_margin: float, scale: float, beta: float, logits: Tensor, labels: Tensor
) -> None:
    loss = LDAM(COUNTS, STEPS, max_margin=max_margin, logit_scale=scale, effective_number_beta=beta)
    expected = ldam_by_hand(logits, labels, weights_by_hand(beta), max_margin, scale)
    assert loss(logits, labels, AFTER).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.9999])
def test_class_balanced_weights_by_the_beta_that_is_given(
    beta: float, logits: Tensor, labels: Tensor
) -> None:
    loss = ClassBalanced(COUNTS, STEPS, effective_number_beta=beta)
    own = F.cross_entropy(logits, labels, reduction="none").tolist()
    expected = (
        sum(weights_by_hand(beta)[y] * value for y, value in zip(labels.tolist(), own, strict=True))
        / 20
    )
    assert loss(logits, labels, AFTER).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [ClassBalanced, LDAM])
def test_the_switch_can_be_never_or_from_the_start(
    loss: type[ClassBalanced | LDAM], logits: Tensor, labels: Tensor
) -> None:
    first, last = torch.tensor(0), torch.tensor(STEPS - 1)
    never, always = (loss(COUNTS, STEPS, reweight_from=share) for share in (1.0, 0.0))
    torch.testing.assert_close(never(logits, labels, last), F.cross_entropy(logits, labels))
    assert always(logits, labels, first) == loss(COUNTS, STEPS)(logits, labels, AFTER)


@pytest.mark.parametrize("loss", [ClassBalanced, LDAM])
def test_the_switch_is_at_its_share_of_the_steps_to_the_step(
    loss: type[ClassBalanced | LDAM],
) -> None:
    for percent in range(101):  # 0.29 * 100 is below 29
        made = loss(COUNTS, 100, reweight_from=percent / 100)
        assert made.first_weighted_step == percent
        if isinstance(made, LDAM):
            assert made.first_step_with_margins == percent


@pytest.mark.parametrize("make", ALL)
def test_permuting_the_classes_leaves_the_loss_as_it_is(
    make: MakeLoss, logits: Tensor, labels: Tensor
) -> None:
    order = torch.tensor([2, 0, 3, 1])
    plain = make(COUNTS)(logits, labels, AFTER)
    permuted = make(COUNTS[order])(logits[:, order], order.argsort()[labels], AFTER)
    torch.testing.assert_close(permuted, plain)
    wrong = make(COUNTS)(logits[:, order], order.argsort()[labels], AFTER)
    assert wrong.item() != pytest.approx(plain.item(), rel=1e-3)


@pytest.mark.parametrize("make", ALL)
def test_a_class_without_labels_is_refused(make: MakeLoss) -> None:
    with pytest.raises(OptionError, match=r"\[3, 0, 1\]"):
        make(torch.tensor([3, 0, 1]))


@pytest.mark.parametrize(
    ("loss", "option", "value"),
    [
        ("la", "adjustment_strength", -0.5),
        ("class-balanced", "effective_number_beta", 1.1),
        ("class-balanced", "reweight_from", -0.1),
        ("ldam", "max_margin", -1.0),
        ("ldam", "logit_scale", 0.0),
        ("ldam", "effective_number_beta", -0.1),
        ("ldam", "reweight_from", 2.0),
        ("ldam", "margins_from", 1.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(loss: str, option: str, value: float) -> None:
    facts = Facts(K, 8, COUNTS, COUNTS, STEPS, 100)
    with pytest.raises(OptionError, match=option):
        compose(f"supervised+{loss}", facts, {option: value})


class Pixels(nn.Module):
    """An encoder whose features are the pixels, which compiles fast."""

    dim = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize(
    "name", ["fixmatch+la", "fixmatch+ldam", "fixmatch+class-balanced", "fixmatch+la+daso"]
)
def test_a_method_with_the_loss_is_one_graph_that_holds_the_switch(name: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = Network(Pixels(), {"class": K}, [0.5], [0.25])
    plain, compiled = (
        compose(name, Facts(K, network.dim, COUNTS, COUNTS, 5, 100)) for _ in range(2)
    )
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(compiled, backend=counter, fullgraph=True)
    for step in range(3, 6):
        images = [torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8) for _ in range(3)]
        labels = torch.randint(0, K, (8,))
        batch = Batch(
            (images[0],), labels, (images[1], images[2]), torch.arange(8), torch.tensor(step)
        )
        expected, actual = (method(network, network, batch).losses for method in (plain, run))
        assert expected.keys() == actual.keys()
        for loss, value in expected.items():
            torch.testing.assert_close(actual[loss], value)
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    "name", ["fixmatch+la", "fixmatch+ldam", "fixmatch+class-balanced", "fixmatch+la+daso"]
)
def test_a_real_training_passes_the_switch(
    name: str, tiny_config: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    config = tiny_config(name, method_options={"threshold": 0.2})
    rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    losses = [row["losses"]["labeled"] for row in rows if row["event"] == "train"]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    # From step 16 of 20 the logits of LDAM are 30 times as large.
    assert (losses[-1] > 3 * losses[-2]) == (name == "fixmatch+ldam")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 20
