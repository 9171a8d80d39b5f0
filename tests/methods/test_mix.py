"""Mixup and the pass over a mixed batch, as MixMatch and ReMixMatch share them."""

import math

import pytest
import torch
from small_learners import build, make_batch, make_network
from torch.nn import functional as F

from daso.methods.mix import draw_mixup, encode_interleaved, interleaved_order, mixup


def test_with_factor_1_nothing_is_mixed() -> None:
    for name in ("mixmatch", "remixmatch"):
        method, network = build(name, temperature=1.0, unlabeled_ramp=0.0), make_network().eval()
        batch = make_batch(method)
        batch.draws["mixup_factor"] = torch.tensor(1.0)
        same_views = batch.unlabeled[:1] * len(batch.unlabeled)
        losses = method(network, network, batch._replace(unlabeled=same_views)).losses
        expected = F.cross_entropy(network.classify(network(batch.labeled[0])), batch.labels)
        torch.testing.assert_close(losses["labeled"], expected)
        if name == "mixmatch":  # its own, unsharpened guess is what it gives equal views
            assert losses["unlabeled"] < 1e-12
        else:  # the same cross-entropy, on the view unmixed and on three copies of it
            torch.testing.assert_close(losses["unlabeled"] / 1.5, losses["premix"] / 0.5)


def test_mixing_keeps_at_least_half_of_a_row_and_its_factor_is_beta_distributed() -> None:
    generator = torch.Generator().manual_seed(0)
    # The mean of max(l, 1 - l) for l from Beta(alpha, alpha); a mean of 2000 deviates by 0.0035.
    for alpha, mean in ((0.5, 0.5 + 1 / math.pi), (2.0, 0.6875)):
        factors = torch.stack(
            [draw_mixup(alpha, 1, generator)["mixup_factor"] for _ in range(2000)]
        )
        assert factors.min() >= 0.5
        assert factors.max() <= 1
        assert factors.mean().item() == pytest.approx(mean, abs=0.02)


def test_a_row_is_mixed_with_its_partner() -> None:
    draws = draw_mixup(0.5, 5, torch.Generator().manual_seed(0))
    values = torch.randn(5, 3, dtype=torch.float64)
    factor, order = draws["mixup_factor"], draws["mixup_order"]
    assert sorted(order.tolist()) == list(range(5))
    for row, partner in enumerate(order.tolist()):
        expected = factor * values[row] + (1 - factor) * values[partner]
        torch.testing.assert_close(mixup(values, draws)[row], expected)


def test_interleaving_spreads_the_labeled_rows_evenly_and_undoes_itself() -> None:
    for parts, size in ((3, 8), (4, 6), (5, 3), (1, 4)):
        order = interleaved_order(parts, size, torch.device("cpu"))
        assert torch.equal(order[order], torch.arange(parts * size))
        labeled = (order.view(parts, size) < size).sum(1)
        assert labeled.sum() == size
        assert labeled.max() - labeled.min() <= 1
    order = interleaved_order(3, 4, torch.device("cpu")).view(3, 4)
    assert order.tolist() == [[8, 5, 2, 11], [4, 1, 6, 7], [0, 9, 10, 3]]


def test_parts_draw_for_the_images_of_a_step() -> None:
    for name in ("mixmatch", "remixmatch"):
        method = build(name)
        method.refine.draw = lambda *counts: {"rows": torch.tensor(counts[:2])}
        assert method.draw(2, 3, torch.Generator())["rows"].tolist() == [2, 3], name


def test_batch_statistics_are_of_the_interleaved_parts_or_of_the_whole() -> None:
    images = torch.randn(18, 1, 8, 8, dtype=torch.float64)
    for labeled, parts in ((6, 3), (5, 1)):
        network = make_network()
        features = encode_interleaved(network, images, labeled)
        order = interleaved_order(parts, 18 // parts, torch.device("cpu")).view(parts, -1)
        expected = torch.empty_like(features)
        for rows in order:
            expected[rows] = network(images[rows])
        torch.testing.assert_close(features, expected)
        assert (features - network(images)).abs().max() > 1e-3 or parts == 1
