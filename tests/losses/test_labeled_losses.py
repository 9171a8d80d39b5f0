"""Losses on labeled images: the authors' numbers, the formulas image by image, their switches."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from daso.compose import Recipe
from daso.losses.class_balanced import ClassBalanced, effective_number_weights
from daso.losses.labeled import LabeledLoss
from daso.losses.ldam import LDAM
from daso.losses.logit_adjusted import LogitAdjusted
from daso.train.prepare import prepare
from daso.train.run import train_run

REFERENCE = Path(__file__).parents[1] / "reference" / "ldam_class_balanced.npz"
COUNTS = torch.tensor([90, 2, 25, 6])
K, STEPS = len(COUNTS), 100
BEFORE, AFTER = torch.tensor(79), torch.tensor(80)
LABELS = torch.arange(20) % K
LOGITS = torch.randn(20, K, generator=torch.Generator().manual_seed(0)).double().mul(2)

MakeLoss = Callable[[Tensor], LabeledLoss]
ALL: list[MakeLoss] = [LogitAdjusted, lambda n: ClassBalanced(n, STEPS), lambda n: LDAM(n, STEPS)]


def value(
    loss: LabeledLoss, step: Tensor = AFTER, logits: Tensor = LOGITS, labels: Tensor = LABELS
) -> float:
    return loss.double()(logits, labels, step).item()


def near(expected: float) -> Any:
    """Return what a number is compared with; weights and margins are rounded to float32."""
    return pytest.approx(expected, rel=1e-6)


PLAIN = near(F.cross_entropy(LOGITS, LABELS).item())


def weights_by_hand(beta: float = 0.999) -> list[float]:
    plain = [(1 - beta) / (1 - beta**n) for n in COUNTS.tolist()]
    return [weight * K / sum(plain) for weight in plain]


def test_ldam_and_its_weights_agree_with_the_authors() -> None:
    vectors = dict(np.load(REFERENCE))
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
    loss = ldam.double()(expected["logits"].double(), expected["labels"], torch.tensor(900))
    torch.testing.assert_close(loss, expected["loss"].double(), rtol=1e-5, atol=0)


def test_logit_adjustment_is_its_formula_image_by_image() -> None:
    for strength in (0.0, 1.0, 2.5):
        total = 0.0
        for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
            pairs = zip(row, COUNTS.tolist(), strict=True)
            adjusted = [z + strength * math.log(n / 123) for z, n in pairs]
            total += math.log(sum(map(math.exp, adjusted))) - adjusted[label]
        assert value(LogitAdjusted(COUNTS, adjustment_strength=strength)) == near(total / 20)
        assert (value(LogitAdjusted(COUNTS)) == near(total / 20)) == (strength == 1)


def test_logit_adjustment_with_a_uniform_prior_is_cross_entropy() -> None:
    assert value(LogitAdjusted(torch.full((K,), 7))) == PLAIN


def test_weights_of_effective_numbers_sum_to_k() -> None:
    for beta in (0.0, 0.9, 0.999, 1.0):
        weights = effective_number_weights(COUNTS, beta)
        assert weights.sum().item() == pytest.approx(K)
        if 0 < beta < 1:
            assert weights.tolist() == pytest.approx(weights_by_hand(beta))
        else:
            plain = 1 / COUNTS if beta == 1 else torch.ones(K)
            assert weights.tolist() == pytest.approx((plain * K / plain.sum()).tolist())


def test_class_balanced_weights_images_after_the_switch() -> None:
    own = F.cross_entropy(LOGITS, LABELS, reduction="none").tolist()
    for beta in (0.5, 0.9, 0.999, 0.9999):
        loss, weights = (
            ClassBalanced(COUNTS, STEPS, effective_number_beta=beta),
            weights_by_hand(beta),
        )
        weighted = [weights[y] * one for y, one in zip(LABELS.tolist(), own, strict=True)]
        assert value(loss) == near(sum(weighted) / 20)
        assert value(loss, BEFORE) == PLAIN


def ldam_by_hand(weights: list[float], max_margin: float = 0.5, scale: float = 30) -> float:
    total = weight = 0.0
    for row, y in zip(LOGITS.tolist(), LABELS.tolist(), strict=True):
        margin = max_margin * (2 / COUNTS[y].item()) ** 0.25
        scaled = [scale * (z - margin * (k == y)) for k, z in enumerate(row)]
        top = max(scaled)
        total += weights[y] * (top + math.log(sum(math.exp(z - top) for z in scaled)) - scaled[y])
        weight += weights[y]
    return total / weight


def test_ldam_acts_from_the_switch_on_as_the_authors_of_daso_do() -> None:
    assert value(LDAM(COUNTS, STEPS), BEFORE) == PLAIN
    assert value(LDAM(COUNTS, STEPS)) == near(ldam_by_hand(weights_by_hand()))
    assert LDAM(COUNTS, STEPS, reweight_from=0.3).margins_from == 0.3


def test_ldam_can_act_from_the_start_and_defer_only_the_weights() -> None:
    loss = LDAM(COUNTS, STEPS, margins_from=0.0)
    unweighted, weighted = ldam_by_hand([1.0] * K), ldam_by_hand(weights_by_hand())
    assert unweighted != pytest.approx(weighted, rel=1e-3)
    assert value(loss, BEFORE) == near(unweighted)
    assert value(loss) == near(weighted)


def test_the_options_of_ldam_act() -> None:
    for margin, scale, beta in ((0.2, 30, 0.999), (0.5, 3, 0.999), (0.5, 30, 0.9), (1.5, 2, 0.5)):
        options = {"max_margin": margin, "logit_scale": scale, "effective_number_beta": beta}
        expected = ldam_by_hand(weights_by_hand(beta), margin, scale)
        assert value(LDAM(COUNTS, STEPS, **options)) == near(expected)


def test_a_switch_at_the_end_turns_options_of_ldam_off() -> None:
    weights, margins = {"effective_number_beta"}, {"max_margin", "logit_scale"}
    recipe = Recipe.parse("supervised+ldam")
    assert recipe.idle_options({"reweight_from": 1.0}).keys() == weights | margins
    assert recipe.idle_options({"reweight_from": 1.0, "margins_from": 0.5}).keys() == weights
    assert recipe.idle_options({"margins_from": 1.0}).keys() == margins
    assert not recipe.idle_options({})


def test_the_switch_is_at_its_share_of_the_steps() -> None:
    for loss in (ClassBalanced, LDAM):
        never, always = (loss(COUNTS, STEPS, reweight_from=share) for share in (1.0, 0.0))
        assert value(never, torch.tensor(STEPS - 1)) == PLAIN, loss
        assert value(always, torch.tensor(0)) == value(loss(COUNTS, STEPS))
        for percent in range(101):  # 0.29 * 100 is below 29
            made = loss(COUNTS, 100, reweight_from=percent / 100)
            assert made.first_weighted_step == percent
            if isinstance(made, LDAM):
                assert made.first_step_with_margins == percent


def test_permuting_the_classes_leaves_the_loss_as_it_is() -> None:
    order = torch.tensor([2, 0, 3, 1])
    for make in ALL:
        logits, labels, plain = LOGITS[:, order], order.argsort()[LABELS], value(make(COUNTS))
        assert value(make(COUNTS[order]), AFTER, logits, labels) == near(plain)
        assert value(make(COUNTS), AFTER, logits, labels) != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("part", ["ldam", "class-balanced", "la+daso"])
def test_a_real_training_passes_the_switch(
    part: str, tiny_config: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    config = tiny_config(f"fixmatch+{part}", method_options={"threshold": 0.2})
    rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    losses = [row["losses"]["labeled"] for row in rows if row["event"] == "train"]
    assert len(losses) == 4
    assert all(map(math.isfinite, losses))
    # From step 16 of 20 the logits of LDAM are 30 times as large.
    assert (losses[-1] > 3 * losses[-2]) == (part == "ldam")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 20
