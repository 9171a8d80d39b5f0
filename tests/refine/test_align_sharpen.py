"""Alignment and sharpening: the authors' numbers, the mean they keep, what they leave alone."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from daso.compose import compose
from daso.errors import OptionError
from daso.parts import Facts
from daso.refine.align import Align
from daso.refine.guess import Guess
from daso.refine.sharpen import Sharpen, sharpen
from daso.train.prepare import prepare
from daso.train.run import train_run

REFERENCE = Path(__file__).parents[1] / "reference" / "distribution_alignment.npz"
COUNTS = torch.tensor([9, 5, 2, 1])
K = len(COUNTS)


def make(prior: Tensor | None = None, power: float = 1.0, **options: Any) -> Align:
    return Align(COUNTS, prior, power, **options).double()


def guess_of(probs: Tensor, step: int = 0, **others: Tensor) -> Guess:
    rows = torch.arange(len(probs))
    features = torch.zeros(len(probs), 2)
    return Guess(probs, features, rows, torch.tensor(step), {"linear": probs}, others)


def random_probs(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, K, generator=generator, dtype=torch.float64).mul(2).softmax(1)


def test_alignment_agrees_with_the_authors() -> None:
    stored = {name: value for name, value in np.load(REFERENCE).items() if value.ndim}
    vectors = {name: torch.from_numpy(value).double() for name, value in stored.items()}
    ones = torch.ones(len(vectors["target"]), dtype=torch.int64)
    align = Align(ones, vectors["target"], 1.0).double()
    for step, probs in enumerate(vectors["probs"]):
        align.align_temperature = float(vectors["temperature"][step])
        aligned = align(guess_of(probs, step)).probs
        torch.testing.assert_close(aligned, vectors["aligned"][step], rtol=1e-5, atol=1e-7)
    assert step == 19


def test_the_mean_is_that_of_all_rows_of_the_last_steps() -> None:
    for sizes in ([6] * 9, [6, 2, 9, 1, 7, 3, 8, 2, 5]):
        align, memory = make(power=0.5, align_memory=4), deque(maxlen=4)
        target = COUNTS.double() ** 0.5 / (COUNTS.double() ** 0.5).sum()
        for step, size in enumerate(sizes):
            probs = random_probs(size, step)
            memory.append(probs)
            mean = torch.cat(list(memory)).mean(0)
            aligned = align(guess_of(probs, step)).probs
            torch.testing.assert_close(align.mean(), mean)
            for row, p in zip(aligned, probs, strict=True):
                expected = p * (target + 1e-6) / (mean + 1e-6)
                # The target is rounded to float32.
                torch.testing.assert_close(row, expected / expected.sum(), rtol=1e-6, atol=0)
        assert align.describe()["mean_guess"] == pytest.approx(mean.tolist())


def test_before_the_first_guess_the_mean_is_0() -> None:
    assert make().mean().tolist() == [0.0] * K


def test_aligning_to_the_current_mean_is_the_identity() -> None:
    probs = random_probs(30)
    aligned = make(probs.mean(0))(guess_of(probs)).probs
    torch.testing.assert_close(aligned, probs, rtol=1e-6, atol=0)
    assert (make()(guess_of(probs)).probs - probs).abs().max() > 0.1


def test_the_target_is_the_prior_if_known_else_the_labels_shares_and_flat_at_power_0() -> None:
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(Align(COUNTS, prior, 1.0).target, prior)
    torch.testing.assert_close(Align(COUNTS, None, 1.0).target, COUNTS / 17)
    probs = random_probs(20)
    uniform = Align(torch.ones(K), None, 1.0).double()
    expected = uniform(guess_of(probs)).probs
    torch.testing.assert_close(make(power=0.0)(guess_of(probs)).probs, expected)
    facts = Facts(K, 8, COUNTS * 3, COUNTS, 100, 50, prior, 0.7)
    align = compose("fixmatch+align", facts).refine
    torch.testing.assert_close(align.target, prior)
    assert (align.align_temperature, align.align_memory) == (0.7, 128)


def test_a_target_that_is_no_distribution_is_refused() -> None:
    for target in ([0.5, -0.1, 0.3, 0.3], [0.0] * K, [math.nan, 1, 1, 1]):
        with pytest.raises(OptionError, match="distribution"):
            make(torch.tensor(target))
    for power in (-1.0, math.inf):
        with pytest.raises(OptionError, match="align_temperature"):
            make(power=power)
    assert make(torch.tensor([0.0, 0.0, 1.0, 0.0])).target.tolist() == [0, 0, 1, 0]


def test_alignment_leaves_other_heads_and_parts_alone_and_takes_no_gradient() -> None:
    probs, other = random_probs(20).requires_grad_(), random_probs(20, 1)
    aligned = make()(guess_of(probs, abc=other))
    assert aligned.others["abc"] is other
    assert aligned.parts["linear"] is probs
    assert not aligned.probs.requires_grad
    assert Align.replaces_alignment
    assert not Sharpen.replaces_alignment


def test_sharpening_is_its_formula_row_by_row() -> None:
    probs, other = random_probs(20), random_probs(20, 1)
    for temperature in (0.5, 1.0, 2.0):
        refined = Sharpen(sharpen_temperature=temperature)(guess_of(probs, abc=other))
        for before, after in ((probs, refined.probs), (other, refined.others["abc"])):
            powers = before ** (1 / temperature)
            torch.testing.assert_close(after, powers / powers.sum(1, keepdim=True))


def test_a_very_low_temperature_gives_the_best_class_and_no_zero_over_zero() -> None:
    probs = random_probs(20)
    assert torch.equal(sharpen(probs, 0.001).argmax(1), probs.argmax(1))
    assert sharpen(probs, 0.001).isfinite().all()
    assert (sharpen(probs, 0.001).amax(1) > 0.9).float().mean() > 0.9


def test_a_real_training_reports_the_mean_guess(
    tiny_config: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    config = tiny_config("fixmatch+align", method_options={"threshold": 0.2, "align_memory": 3})
    rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    assert all(math.isfinite(row["loss"]) for row in rows if row["event"] == "train")
    means = [row["pseudo_labels"]["mean_guess"] for row in rows if row["event"] == "evaluate"]
    assert [sum(mean) for mean in means] == pytest.approx([1.0] * 4, abs=1e-4)
