"""DASO's parts: the queue against a plain one, the blend against a loop, its switches, its state."""

from collections import deque
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from daso.errors import OptionError
from daso.refine.daso import DASO
from daso.refine.guess import Guess, Refiner, chain
from daso.refine.queue import PrototypeQueue

K, D = 4, 6


def make(**options: Any) -> DASO:
    options = {"warmup_steps": 0, "histogram_period": 2, "queue_length": 8, **options}
    return DASO(K, D, torch.tensor([9, 5, 2, 1]), 1000, **options)


def guess_of(probs: Tensor, step: int = 5, seed: int = 0) -> Guess:
    features = torch.randn(len(probs), D, generator=torch.Generator().manual_seed(seed))
    return Guess(probs, features, torch.arange(len(probs)), torch.tensor(step), {"linear": probs})


def random_probs(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, K, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(1)


def fill(daso: DASO, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    daso.queue.push(torch.randn(40, D, generator=generator), torch.arange(40) % K)


@pytest.mark.parametrize("lengths", [[5, 5, 5, 5], [7, 1, 3, 2]])
@pytest.mark.parametrize("batch", [1, 3, 23])
def test_the_queue_holds_the_last_features_of_each_class(lengths: list[int], batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    queue = PrototypeQueue(torch.tensor(lengths), D)
    plain = [deque(maxlen=length) for length in lengths]
    for _ in range(25):
        features = torch.randn(batch, D, generator=generator)
        labels = torch.multinomial(
            torch.tensor([0.7, 0.2, 0.1, 0.0]), batch, True, generator=generator
        )
        queue.push(features, labels)
        for feature, label in zip(features, labels.tolist(), strict=True):
            plain[label].append(feature)
        expected = torch.stack(
            [torch.stack(list(q)).mean(0) if q else torch.zeros(D) for q in plain]
        )
        torch.testing.assert_close(queue.prototypes, expected)
    assert queue.prototypes[3].abs().max() == 0
    cosine = F.cosine_similarity(features[:, None], queue.prototypes[None], dim=2)
    torch.testing.assert_close(queue.similarity(features), cosine)


def test_with_more_classes_than_rows_only_the_rows_classes_change() -> None:
    queue = PrototypeQueue(torch.full((50,), 3), D)
    features = torch.randn(4, D)
    queue.push(features, torch.tensor([7, 7, 49, 0]))
    expected = torch.zeros(50, D)
    expected[7], expected[49], expected[0] = features[:2].mean(0), features[2], features[3]
    torch.testing.assert_close(queue.prototypes, expected)


@pytest.mark.parametrize("blend", ["distribution", "linear", "semantic", "fixed"])
def test_the_blend_is_the_papers_formula_image_by_image(blend: str) -> None:
    daso = make(blend=blend, fixed_blend=0.3, dist_temperature=0.5)
    fill(daso)
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    daso.distribution.copy_(shares)
    guess = guess_of(random_probs(30))
    refined = daso(guess)
    for index in range(30):
        p, z = guess.probs[index], guess.features[index]
        cosines = torch.stack([z @ c / (z.norm() * c.norm()) for c in daso.queue.prototypes])
        q = (cosines / 0.05).softmax(0)
        scaled = shares.double() ** 2
        v = {
            "distribution": float(scaled[p.argmax()] / scaled.max()),
            "linear": 0,
            "semantic": 1,
            "fixed": 0.3,
        }[blend]
        torch.testing.assert_close(refined.probs[index], (1 - v) * p + v * q, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(refined.parts["semantic"][index], q, rtol=1e-4, atol=1e-6)
    assert refined.parts["linear"] is guess.probs


def test_the_histogram_counts_final_labels_and_is_renewed_every_period() -> None:
    daso = make(histogram_period=3, blend="semantic")
    fill(daso)
    counts = torch.zeros(K)
    for step in range(9):
        before = daso.distribution.clone()
        refined = daso(guess_of(random_probs(20, seed=step), step=step, seed=step))
        counts += torch.bincount(refined.probs.argmax(1), minlength=K)
        if step % 3 == 2:
            torch.testing.assert_close(daso.distribution, counts / 60)
            counts.zero_()
        else:
            assert torch.equal(daso.distribution, before)


def test_before_the_warm_up_the_guess_is_untouched_and_nothing_is_aligned() -> None:
    daso = make(warmup_steps=10)
    fill(daso)
    daso.distribution.copy_(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    guess = guess_of(random_probs(20), step=9)
    strong = torch.randn(20, D, requires_grad=True)
    refined = daso(guess)
    loss = daso.losses(refined, strong)["align"]
    loss.backward()
    assert torch.equal(refined.probs, guess.probs)
    assert loss == 0
    assert strong.grad.abs().max() == 0
    later = daso(guess._replace(step=torch.tensor(10)))
    assert not torch.equal(later.probs, guess.probs)
    assert daso.losses(later, strong)["align"] > 0


def test_before_the_first_renewal_an_unwarmed_blend_is_linear() -> None:
    daso = make(histogram_period=100)
    fill(daso)
    guess = guess_of(random_probs(20), step=3)
    assert torch.equal(daso(guess).probs, guess.probs)


def test_alignment_is_the_cross_entropy_towards_the_weak_view_and_can_be_off() -> None:
    daso = make(align_weight=0.7)
    fill(daso)
    refined = daso(guess_of(random_probs(20)))
    strong = torch.randn(20, D, requires_grad=True)
    q_strong = (
        F.cosine_similarity(strong[:, None], daso.queue.prototypes[None], dim=2) / 0.05
    ).softmax(1)
    expected = -0.7 * (refined.parts["semantic"] * q_strong.log()).sum(1).mean()
    loss = daso.losses(refined, strong)["align"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert strong.grad.abs().max() > 0
    assert not refined.parts["semantic"].requires_grad
    assert make(align_weight=0).losses(refined, strong) == {}


def test_permuting_the_classes_permutes_the_result() -> None:
    order = torch.tensor([2, 0, 3, 1])
    features, labels = torch.randn(40, D), torch.randint(0, K, (40,))
    position = order.argsort()
    plain, permuted = make(), make()
    for step in range(6):
        plain.queue.push(features, labels)
        permuted.queue.push(features, position[labels])
        guess = guess_of(random_probs(20, seed=step), step=step)
        expected, actual = plain(guess), permuted(guess._replace(probs=guess.probs[:, order]))
        torch.testing.assert_close(actual.probs, expected.probs[:, order])
    torch.testing.assert_close(permuted.weights(), plain.weights()[order])


def test_the_queue_takes_the_teachers_or_the_networks_features() -> None:
    images, own, labels = torch.randn(K, D), torch.randn(K, D), torch.arange(K)
    teacher = {"ema": 2 * images, "online": own}
    for encoder, expected in teacher.items():
        daso = make(queue_encoder=encoder)
        daso.observe(images, own, labels, lambda x: 2 * x)
        torch.testing.assert_close(daso.queue.prototypes, expected)


def test_an_unbalanced_queue_is_five_times_the_class_count() -> None:
    assert make(balanced_queue=False).queue.lengths.tolist() == [45, 25, 10, 5]
    assert make().queue.lengths.tolist() == [8] * K


def test_the_default_warm_up_is_the_papers_or_a_fifth() -> None:
    counts = torch.ones(K, dtype=torch.int64)
    assert DASO(K, D, counts, 250_000).warmup_steps == 5000
    assert DASO(K, D, counts, 4000).warmup_steps == 800


def test_state_goes_through_a_state_dict() -> None:
    first, second = make(), make()
    fill(first)
    for step in range(3):
        first(guess_of(random_probs(20, seed=step), step=step))
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        guess = guess_of(random_probs(20, seed=step), step=step)
        assert torch.equal(first(guess).probs, second(guess).probs)
    assert torch.equal(first.distribution, second.distribution)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("queue_length", 0),
        ("prototype_temperature", 0.0),
        ("dist_temperature", -1.0),
        ("align_weight", -0.1),
        ("warmup_steps", -1),
        ("histogram_period", 0),
        ("blend", "median"),
        ("fixed_blend", 1.5),
        ("queue_encoder", "both"),
    ],
)
def test_values_out_of_range_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=option):
        make(**{option: value})


def test_a_chain_refines_in_order_and_sums_up_its_parts() -> None:
    class Shift(Refiner):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, guess: Guess) -> Guess:
            return guess._replace(probs=guess.probs * self.factor + 1)

        def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
            return {f"shift {self.factor}": strong.sum() * self.factor}

    guess = guess_of(torch.ones(2, K))
    both = chain(Shift(2.0), Shift(3.0))
    assert torch.equal(both(guess).probs, torch.full((2, K), 10.0))
    assert list(both.losses(guess, torch.ones(2, D))) == ["shift 2.0", "shift 3.0"]
    single = Shift(2.0)
    assert chain(single) is single
    assert Refiner()(guess) is guess


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.5])
def test_the_most_frequent_guess_is_fully_semantic_at_any_temperature(temperature: float) -> None:
    counts = torch.ones(100, dtype=torch.int64)
    daso = DASO(100, D, counts, 1000, dist_temperature=temperature)
    shares = torch.linspace(1, 2, 100)
    daso.distribution.copy_(shares / shares.sum())
    assert daso.weights().max() == 1
    assert daso.weights().argmax() == 99
