"""Alignment and sharpening: the authors' numbers, the mean they keep, what they leave alone."""

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from daso.compose import Recipe, compose
from daso.errors import OptionError
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.nets.network import Network
from daso.parts import Facts
from daso.refine.align import Align
from daso.refine.guess import Chain, Guess
from daso.refine.sharpen import Sharpen, sharpen
from daso.train.prepare import prepare
from daso.train.run import train_run

REFERENCE = Path(__file__).parent.parent / "reference"
COUNTS = torch.tensor([9, 5, 2, 1])
K = len(COUNTS)


def guess_of(probs: Tensor, step: int = 0, **others: Tensor) -> Guess:
    rows = torch.arange(len(probs))
    return Guess(
        probs, torch.zeros(len(probs), 2), rows, torch.tensor(step), {"linear": probs}, others
    )


def random_probs(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, K, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(1)


def test_alignment_agrees_with_the_authors() -> None:
    vectors = {
        name: torch.from_numpy(v)
        for name, v in np.load(REFERENCE / "distribution_alignment.npz").items()
        if v.ndim
    }
    classes = len(vectors["target"])
    align = Align(torch.ones(classes, dtype=torch.int64), vectors["target"], 1.0)
    for step, probs in enumerate(vectors["probs"]):
        align.align_temperature = float(vectors["temperature"][step])
        aligned = align(guess_of(probs, step)).probs
        torch.testing.assert_close(aligned, vectors["aligned"][step], rtol=1e-5, atol=1e-7)
    assert step == 19


@pytest.mark.parametrize("sizes", [[6] * 9, [6, 2, 9, 1, 7, 3, 8, 2, 5]])
def test_the_mean_is_that_of_all_rows_of_the_last_steps(sizes: list[int]) -> None:
    align, memory = Align(COUNTS, None, 0.5, align_memory=4), deque(maxlen=4)
    target = COUNTS**0.5 / (COUNTS**0.5).sum()
    for step, size in enumerate(sizes):
        probs = random_probs(size, step)
        memory.append(probs)
        mean = torch.cat(list(memory)).mean(0)
        torch.testing.assert_close(align(guess_of(probs, step)).probs.sum(1), torch.ones(size))
        torch.testing.assert_close(align.mean(), mean)
        again = align(guess_of(probs, step)).probs
        for row, p in zip(again, probs, strict=True):
            expected = p * target / mean
            torch.testing.assert_close(row, expected / expected.sum(), rtol=1e-4, atol=1e-6)
    assert align.describe()["mean_guess"] == pytest.approx(mean.tolist())


def test_aligning_to_the_current_mean_is_the_identity() -> None:
    probs = random_probs(30)
    aligned = Align(COUNTS, probs.mean(0), 1.0)(guess_of(probs)).probs
    torch.testing.assert_close(aligned, probs)
    assert (Align(COUNTS, None, 1.0)(guess_of(probs)).probs - probs).abs().max() > 0.1


def test_the_target_is_the_prior_if_known_else_the_labels_shares_and_flat_at_power_0() -> None:
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(Align(COUNTS, prior, 1.0).target, prior)
    torch.testing.assert_close(Align(COUNTS, None, 1.0).target, COUNTS / 17)
    probs = random_probs(20)
    flat = Align(COUNTS, None, 0.0)(guess_of(probs)).probs
    torch.testing.assert_close(flat, Align(torch.ones(K), None, 1.0)(guess_of(probs)).probs)
    facts = Facts(K, 8, COUNTS * 3, COUNTS, 100, 50, prior, 0.7)
    align = compose("fixmatch+align", facts).refine
    torch.testing.assert_close(align.target, prior)
    assert align.align_temperature == 0.7


def test_alignment_leaves_other_heads_and_parts_alone_and_takes_no_gradient() -> None:
    probs, other = random_probs(20).requires_grad_(), random_probs(20, 1)
    aligned = Align(COUNTS, None, 1.0)(guess_of(probs, abc=other))
    assert aligned.others["abc"] is other
    assert aligned.parts["linear"] is probs
    assert not aligned.probs.requires_grad
    assert Align.replaces_alignment
    assert not Sharpen.replaces_alignment


def test_permuting_the_classes_permutes_the_alignment() -> None:
    order = torch.tensor([2, 0, 3, 1])
    plain, permuted = Align(COUNTS, None, 1.0), Align(COUNTS[order], None, 1.0)
    for step in range(4):
        probs = random_probs(20, step)
        expected, actual = plain(guess_of(probs, step)), permuted(guess_of(probs[:, order], step))
        torch.testing.assert_close(actual.probs, expected.probs[:, order])


def test_the_memory_goes_through_a_state_dict() -> None:
    first, second = (Align(COUNTS, None, 1.0, align_memory=3) for _ in range(2))
    for step in range(4):
        first(guess_of(random_probs(20, step), step))
    second.load_state_dict(first.state_dict())
    guess = guess_of(random_probs(20, 9), 4)
    assert torch.equal(first(guess).probs, second(guess).probs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sharpening_is_its_formula_row_by_row(temperature: float) -> None:
    probs, other = random_probs(20), random_probs(20, 1)
    refined = Sharpen(sharpen_temperature=temperature)(guess_of(probs, abc=other))
    for before, after in ((probs, refined.probs), (other, refined.others["abc"])):
        for p, q in zip(before.tolist(), after.tolist(), strict=True):
            powers = [x ** (1 / temperature) for x in p]
            assert q == pytest.approx([x / sum(powers) for x in powers], rel=1e-4)


def test_a_very_low_temperature_gives_the_best_class_and_no_zero_over_zero() -> None:
    probs = random_probs(20)
    assert torch.equal(sharpen(probs, 0.001).argmax(1), probs.argmax(1))
    assert sharpen(probs, 0.001).isfinite().all()
    assert (sharpen(probs, 0.001).amax(1) > 0.9).float().mean() > 0.9


def test_parts_refine_in_the_order_in_which_they_are_named() -> None:
    method = compose("fixmatch+align+sharpen", Facts(K, 8, COUNTS, COUNTS, 100, 50))
    assert isinstance(method, FixMatch)
    assert isinstance(method.refine, Chain)
    assert [type(refiner) for refiner in method.refine.refiners] == [Align, Sharpen]
    assert Recipe.parse("fixmatch+align").hyperparameters().keys() >= {"align_memory"}
    assert "align_temperature" not in Recipe.parse("fixmatch+align").hyperparameters()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Align(COUNTS, None, 1.0, align_memory=0), "align_memory = 0"),
        (lambda: Align(COUNTS, None, -1.0), "align_temperature = -1"),
        (
            lambda: Align(COUNTS, torch.tensor([0.5, -0.1, 0.3, 0.3]), 1.0),
            "not a class distribution",
        ),
        (lambda: Align(COUNTS, torch.zeros(K), 1.0), "not a class distribution"),
        (lambda: Sharpen(sharpen_temperature=0.0), "sharpen_temperature = 0"),
    ],
)
def test_values_out_of_range_are_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


class Pixels(nn.Module):
    """An encoder whose features are the pixels, which compiles fast."""

    dim = 64

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize("name", ["fixmatch+align", "fixmatch+align+sharpen+daso"])
def test_a_method_with_alignment_is_one_graph(name: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = Network(Pixels(), {"class": K}, [0.5], [0.25])
    facts = Facts(K, network.dim, COUNTS, COUNTS, 100, 50)
    plain, compiled = (
        compose(name, facts, {"threshold": 0.3, "align_memory": 2}) for _ in range(2)
    )
    counter = CompileCounterWithBackend("aot_eager")
    run = torch.compile(compiled, backend=counter, fullgraph=True)
    for step in range(4):
        images = [torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8) for _ in range(3)]
        labels = torch.randint(0, K, (8,))
        batch = Batch(
            (images[0],), labels, (images[1], images[2]), torch.arange(8), torch.tensor(step)
        )
        expected, actual = (method(network, network, batch) for method in (plain, run))
        for loss, value in expected.losses.items():
            torch.testing.assert_close(actual.losses[loss], value)
        torch.testing.assert_close(
            actual.pseudo_labels.confidence, expected.pseudo_labels.confidence
        )
    for (key, value), other in zip(
        plain.state_dict().items(), compiled.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(other, value, msg=key)
    assert counter.frame_count == 1


def test_a_real_training_reports_the_mean_guess(
    tiny_config: Callable[..., Any], digits: Any, tmp_path: Path
) -> None:
    config = tiny_config("fixmatch+align", method_options={"threshold": 0.2, "align_memory": 3})
    rows = list(train_run(prepare(config, digits), tmp_path / "run"))
    assert all(math.isfinite(row["loss"]) for row in rows if row["event"] == "train")
    means = [row["pseudo_labels"]["mean_guess"] for row in rows if row["event"] == "evaluate"]
    assert [sum(mean) for mean in means] == pytest.approx([1.0] * 4, abs=1e-4)
