"""DASO's parts: the queue against a plain one, the blend against a loop, its switches."""

from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from daso.refine.daso import DASO
from daso.refine.guess import Guess, Refiner, chain
from daso.refine.queue import PrototypeQueue

K, D = 4, 6


def make(**options: Any) -> DASO:
    options = {"warmup_steps": 0, "histogram_period": 2, "queue_length": 8, **options}
    return DASO(K, D, torch.tensor([9, 5, 2, 1]), 1000, **options).double()


def random(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def guess_of(probs: Tensor, step: int = 5, seed: int = 0) -> Guess:
    rows = torch.arange(len(probs))
    return Guess(probs, random(len(probs), D, seed), rows, torch.tensor(step), {"linear": probs})


def random_probs(rows: int, seed: int = 0) -> Tensor:
    return random(rows, K, seed).mul(2).softmax(1)


def fill(daso: DASO) -> None:
    daso.queue.push(random(40, D, seed=3), torch.arange(40) % K)


def test_the_queue_holds_the_last_features_of_each_class() -> None:
    shares = torch.tensor([0.7, 0.2, 0.1, 0.0])
    for lengths in ([5, 5, 5, 5], [7, 1, 3, 2]):
        for batch in (1, 3, 23):
            generator = torch.Generator().manual_seed(batch)
            queue = PrototypeQueue(torch.tensor(lengths), D).double()
            plain = [deque(maxlen=length) for length in lengths]
            for step in range(25):
                features = random(batch, D, seed=step)
                labels = torch.multinomial(shares, batch, True, generator=generator)
                queue.push(features, labels)
                for feature, label in zip(features, labels.tolist(), strict=True):
                    plain[label].append(feature)
                means = [sum(queued, torch.zeros(D)) / max(1, len(queued)) for queued in plain]
                torch.testing.assert_close(queue.prototypes, torch.stack(means).double())
            assert queue.prototypes[3].abs().max() == 0
            cosine = F.cosine_similarity(features[:, None], queue.prototypes[None], dim=2)
            torch.testing.assert_close(queue.similarity(features), cosine)


def test_with_more_classes_than_rows_only_the_rows_classes_change() -> None:
    queue = PrototypeQueue(torch.full((50,), 3), D).double()
    features = random(4, D)
    queue.push(features, torch.tensor([7, 7, 49, 0]))
    expected = torch.zeros(50, D, dtype=torch.float64)
    expected[7], expected[49], expected[0] = features[:2].mean(0), features[2], features[3]
    torch.testing.assert_close(queue.prototypes, expected)
    assert queue.features.shape == (50 * 3 + 1, D)


def test_cosines_ignore_the_scale_of_features_and_of_prototypes() -> None:
    queue = PrototypeQueue(torch.full((K,), 3), D).double()
    queue.push(1e-6 * random(12, D), torch.arange(12) % K)
    features = random(5, D, seed=1)
    expected = F.cosine_similarity(features[:, None], queue.prototypes[None] * 1e6, dim=2)
    torch.testing.assert_close(queue.similarity(features * 1e-6), expected)


def test_the_blend_is_the_papers_formula_image_by_image() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    by_class = ((shares / shares.max()) ** 2).tolist()
    weights = {
        "distribution": by_class,
        "linear": [0.0] * K,
        "semantic": [1.0] * K,
        "fixed": [0.3] * K,
    }
    for blend, v in weights.items():
        daso = make(blend=blend, fixed_blend=0.3, dist_temperature=0.5)
        fill(daso)
        daso.distribution.copy_(shares)
        other = random_probs(30, seed=1)
        guess = guess_of(random_probs(30))._replace(others={"abc": other})
        refined = daso(guess)
        for index in range(30):
            p, z = guess.probs[index], guess.features[index]
            cosines = torch.stack([z @ c / (z.norm() * c.norm()) for c in daso.queue.prototypes])
            q = (cosines / 0.05).softmax(0)
            torch.testing.assert_close(refined.parts["semantic"][index], q)
            for before, after in ((p, refined.probs), (other[index], refined.others["abc"])):
                share = v[int(before.argmax())]
                torch.testing.assert_close(after[index], (1 - share) * before + share * q)
        assert refined.parts["linear"] is guess.probs


def test_the_histogram_counts_final_labels_and_is_renewed_every_period() -> None:
    daso = make(histogram_period=3, blend="semantic")
    fill(daso)
    counts = torch.zeros(K, dtype=torch.float64)
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
    strong = random(20, D, seed=1).requires_grad_()
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
    strong = random(20, D, seed=1).requires_grad_()
    cosines = F.cosine_similarity(strong[:, None], daso.queue.prototypes[None], dim=2)
    expected = -0.7 * (refined.parts["semantic"] * (cosines / 0.05).softmax(1).log()).sum(1).mean()
    loss = daso.losses(refined, strong)["align"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert strong.grad.abs().max() > 0
    assert not refined.parts["semantic"].requires_grad
    assert make(align_weight=0).losses(refined, strong) == {}


def test_the_queue_takes_the_teachers_or_the_networks_features() -> None:
    images, own, labels = random(K, D), random(K, D, seed=1), torch.arange(K)
    for encoder, expected in {"ema": 2 * images, "online": own}.items():
        daso = make(queue_encoder=encoder)
        assert daso.observes_network == (encoder == "online")
        daso.observe(images, own, labels, lambda x: 2 * x)
        torch.testing.assert_close(daso.queue.prototypes, expected)


def test_the_teacher_normalizes_as_asked() -> None:
    assert make().teacher_uses_batch_statistics
    assert not make(queue_batch_statistics=False).teacher_uses_batch_statistics


def test_an_unbalanced_queue_is_five_times_the_class_count() -> None:
    assert make(balanced_queue=False).queue.lengths.tolist() == [45, 25, 10, 5]
    assert make().queue.lengths.tolist() == [8] * K


def test_the_defaults_are_the_papers_and_the_warm_up_at_most_a_fifth() -> None:
    counts = torch.ones(K, dtype=torch.int64)
    daso = DASO(K, D, counts, 250_000)
    assert daso.warmup_steps == 5000
    assert DASO(K, D, counts, 4000).warmup_steps == 800
    assert (daso.queue_length, daso.histogram_period) == (256, 100)
    assert (daso.prototype_temperature, daso.dist_temperature, daso.align_weight) == (0.05, 1.5, 1)


def test_the_most_frequent_guess_is_fully_semantic_at_any_temperature() -> None:
    shares = torch.linspace(1, 2, 100)
    for temperature in (0.02, 0.1, 1.5):
        daso = DASO(100, D, shares.long(), 1000, dist_temperature=temperature)
        daso.distribution.copy_(shares / shares.sum())
        assert daso.weights().max() == 1
        assert daso.weights().argmax() == 99


def test_a_chain_refines_in_order_and_sums_up_its_parts() -> None:
    class Shift(Refiner):
        def __init__(self, factor: float, **flags: bool) -> None:
            super().__init__()
            self.factor, self.seen = factor, 0
            for name, value in flags.items():
                setattr(self, name, value)

        def observe(self, images: Tensor, features: Any, labels: Tensor, teacher: Any) -> None:
            self.seen += len(images)

        def forward(self, guess: Guess) -> Guess:
            return guess._replace(probs=guess.probs * self.factor + 1)

        def losses(self, guess: Guess, strong: Tensor) -> dict[str, Tensor]:
            return {f"shift {self.factor}": strong.sum() * self.factor}

    guess = guess_of(torch.ones(2, K))
    parts = Shift(2.0), Shift(3.0)
    both = chain(*parts)
    assert torch.equal(both(guess).probs, torch.full((2, K), 10.0))
    assert list(both.losses(guess, torch.ones(2, D))) == ["shift 2.0", "shift 3.0"]
    both.observe(torch.ones(5, D), None, torch.arange(5), lambda images: images)
    assert [part.seen for part in parts] == [5, 5]
    single = Shift(2.0)
    assert chain(single) is single
    assert Refiner()(guess) is guess
    assert chain()(guess) is guess
    for flag in ("observes", "observes_network", "replaces_alignment"):
        assert getattr(chain(Shift(1.0), Shift(1.0, **{flag: True})), flag)
        assert not getattr(both, flag)
