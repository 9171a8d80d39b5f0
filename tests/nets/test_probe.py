"""The linear classifier on embeddings: what its features are, how it begins, what it learns."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from daso.nets.network import Network, build_vector_encoder


def embeddings(dim: int = 64) -> tuple[torch.Tensor, np.ndarray]:
    """Digits through a random map: dimensions that vary by different amounts."""
    digits = load_digits()
    weights = np.random.default_rng(0).normal(size=(64, dim)) * np.geomspace(0.01, 10, dim)
    return torch.from_numpy(np.tanh(digits.data / 40 @ weights)).float(), digits.target


def test_features_are_centred_of_the_same_length_and_keep_their_proportions() -> None:
    for dim, unit in product((32, 500), (0.01, 1.0, 300.0)):
        x = unit * embeddings(dim)[0]
        x[:, 3] = 5.0  # says nothing: its standard deviation is put down as 1
        std = x.std(0, correction=0)
        std[3] = 1.0
        features = build_vector_encoder("probe", x.mean(0).tolist(), std.tolist())(x)
        assert features.mean(0).abs().max() < 1e-3, (dim, unit)
        assert abs(features.square().sum(1).mean().item() / 25 - 1) < 1e-3, (dim, unit)
        between = torch.cdist(x[:20], x[:20]) / torch.cdist(features[:20], features[:20])
        off = ~torch.eye(20, dtype=torch.bool)
        assert between[off].std() < 1e-3 * between[off].mean(), (dim, unit)


def test_heads_start_from_zero_and_others_do_not() -> None:
    for name, zero in (("probe", True), ("linear", False)):
        network = Network(build_vector_encoder(name, [0.0] * 5, [1.0] * 5), {"class": 3}, (), ())
        assert (not network.heads["class"].weight.any()) is zero


def test_a_probe_classifies_as_regularised_logistic_regression_does() -> None:
    """Few rows, gradient descent for 300 steps: what is left out is left out by both."""
    x, y = embeddings(300)
    torch.manual_seed(0)
    mean, std = x.mean(0), x.std(0, correction=0)
    network = Network(
        build_vector_encoder("probe", mean.tolist(), std.tolist()), {"class": 10}, (), ()
    )
    few, others = np.arange(100), np.arange(100, len(y))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(
            network.classify(network(x[few])), torch.from_numpy(y[few]).long()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = network.classify(network(x[others])).argmax(1).numpy()
        features = network(x).numpy()
    best = max(
        LogisticRegression(C=c, max_iter=500)
        .fit(features[few], y[few])
        .score(features[others], y[others])
        for c in (0.01, 0.1, 1.0)
    )
    assert (found == y[others]).mean() > best - 0.02
