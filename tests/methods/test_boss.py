"""BOSS: thresholds and weights against a count image by image."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from daso.compose import compose
from daso.errors import OptionError
from daso.methods.boss import BOSS
from daso.methods.fixmatch import FixMatch
from daso.parts import Facts

K = 5
COUNTS = torch.tensor([9, 5, 2, 1, 1])
FACTS = Facts(K, 32, COUNTS, COUNTS, 1000, 100)


def guesses(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(
        torch.tensor([0.6, 0.2, 0.15, 0.05, 0.0]), 40, True, generator=generator
    )
    return 0.6 + 0.4 * torch.rand(40, generator=generator), labels


@pytest.mark.parametrize("weights_count", ["all", "confident"])
def test_thresholds_and_weights_follow_the_counts_of_the_batch(weights_count: str) -> None:
    confidence, labels = guesses()
    weights = BOSS(K, weights_count=weights_count).weigh(confidence, labels)
    counts = Counter(labels.tolist())
    most = max(counts.values())
    passed = [
        c >= 0.95 - 0.25 * (1 - counts[k] / most) - 1e-6
        for c, k in zip(confidence.tolist(), labels.tolist(), strict=True)
    ]
    weighed = counts if weights_count == "all" else Counter(labels[torch.tensor(passed)].tolist())
    raw = torch.tensor(
        [1 / weighed[k] if good else 0.0 for good, k in zip(passed, labels.tolist(), strict=True)]
    )
    assert 0 < sum(passed) < 40
    torch.testing.assert_close(weights, raw * sum(passed) / raw.sum())
    torch.testing.assert_close(weights[weights > 0].mean(), torch.tensor(1.0))


def test_with_equal_counts_it_is_fixmatch() -> None:
    labels = torch.arange(40) % K
    confidence, _ = guesses()
    expected = FixMatch().weigh(confidence, labels)
    assert 0 < expected.sum() < 40
    torch.testing.assert_close(BOSS(K).weigh(confidence, labels), expected)


def test_where_nothing_is_confident_nothing_teaches() -> None:
    _, labels = guesses()
    assert torch.equal(BOSS(K).weigh(torch.full((40,), 0.3), labels), torch.zeros(40))


def test_permuting_the_classes_changes_no_weight() -> None:
    confidence, labels = guesses()
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(
        BOSS(K).weigh(confidence, order[labels]), BOSS(K).weigh(confidence, labels)
    )


def test_it_takes_what_fixmatch_takes_and_refuses_values_out_of_range() -> None:
    method = compose("boss+la+daso", FACTS, {"threshold_range": 0.1, "threshold": 0.8})
    assert isinstance(method, BOSS)
    assert (method.threshold_range, method.threshold) == (0.1, 0.8)
    with pytest.raises(OptionError, match=r"threshold_range = 0.9"):
        compose("boss", FACTS, {"threshold_range": 0.9, "threshold": 0.8})
    with pytest.raises(OptionError, match="weights_count = 'none'"):
        BOSS(K, weights_count="none")
