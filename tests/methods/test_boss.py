"""BOSS: thresholds and weights against a count image by image."""

from collections import Counter

import torch
from torch import Tensor

from daso.methods.fixmatch import FixMatch
from daso.methods.variants.boss import BOSS
from daso.refine.guess import Guess

K = 5


def guesses() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.6, 0.2, 0.15, 0.05, 0.0])
    labels = torch.multinomial(shares, 40, True, generator=generator)
    return 0.6 + 0.4 * torch.rand(40, generator=generator, dtype=torch.float64), labels


def guess_of(confidence: Tensor, labels: Tensor) -> Guess:
    """Return guesses of these classes, whose other classes share what is left."""
    rest = ((1 - confidence) / (K - 1))[:, None].repeat(1, K)
    probs = rest.scatter(1, labels[:, None], confidence[:, None])
    return Guess(probs, probs, labels, torch.tensor(0), {})


def test_thresholds_and_weights_follow_the_counts_of_the_batch() -> None:
    confidence, labels = guesses()
    counts = Counter(labels.tolist())
    pairs = list(zip(confidence.tolist(), labels.tolist(), strict=True))
    passed = [c >= 0.95 - 0.25 * (1 - counts[k] / max(counts.values())) for c, k in pairs]
    assert 0 < sum(passed) < 40
    confident = Counter(k for (_, k), good in zip(pairs, passed, strict=True) if good)
    for weights_count, divisor in (("all", counts), ("confident", confident)):
        rows = zip(passed, labels.tolist(), strict=True)
        raw = confidence.new_tensor([1 / divisor[k] if good else 0.0 for good, k in rows])
        weights = BOSS(K, weights_count=weights_count).weigh(guess_of(confidence, labels))
        torch.testing.assert_close(weights, raw * sum(passed) / raw.sum())
        torch.testing.assert_close(weights[weights > 0].mean(), confidence.new_tensor(1.0))


def test_with_equal_counts_it_is_fixmatch() -> None:
    labels = torch.arange(40) % K
    confidence, _ = guesses()
    expected = FixMatch().weigh(guess_of(confidence, labels))
    assert 0 < expected.sum() < 40
    torch.testing.assert_close(BOSS(K).weigh(guess_of(confidence, labels)), expected)


def test_where_no_guess_is_confident_every_weight_is_0() -> None:
    _, labels = guesses()
    assert torch.equal(BOSS(K).weigh(guess_of(torch.full((40,), 0.3), labels)), torch.zeros(40))


def test_at_its_threshold_a_guess_counts() -> None:
    method = BOSS(K, threshold=0.75, threshold_range=0.25)
    labels, confidence = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0.75, 0.74, 0.75, 0.5, 0.625])
    assert (method.weigh(guess_of(confidence, labels)) > 0).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
