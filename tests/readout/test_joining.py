"""Joining kinds of features: maps and scales."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from daso.readout.joining import Projected, join
from daso.readout.projection import Projection

CLASSES = 3


def projected(labeled: Tensor, unlabeled: Tensor) -> Projected:
    projection = Projection.fit(torch.cat([labeled, unlabeled]), labeled.shape[1])
    return Projected(projection, projection(labeled), projection(unlabeled))


def clusters(labels: Tensor, distance: float, size: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    centers = torch.eye(CLASSES, size, dtype=torch.float64) * distance
    noise = torch.randn(len(labels), size, generator=random, dtype=torch.float64)
    return centers[labels] + noise


def test_the_maps_of_the_kinds_add_up_to_the_joined_features() -> None:
    labels = torch.arange(60) % CLASSES
    first = projected(*torch.split(clusters(labels, 3, 5, 0), 30))
    second = projected(*torch.split(clusters(labels, 3, 8, 1), 30))
    # Projections are fitted to a sample: the components of all images have another mean than 0.
    second = replace(second, labeled=second.labeled + 0.5, unlabeled=second.unlabeled + 0.5)
    for scale in (1.0, 0.25):
        kinds = (first, replace(second, scale=scale))
        joined = join(kinds, 6)
        for rows, expected in (("labeled", joined.labeled), ("unlabeled", joined.unlabeled)):
            parts = [
                getattr(kind, rows) @ matrix
                for kind, matrix in zip(kinds, joined.matrices, strict=True)
            ]
            torch.testing.assert_close(sum(parts) + joined.bias, expected)
    # With a scale of 0 a kind has no part; with a small one it has a small part.
    shares = [
        join([first, replace(second, scale=scale)], 6).matrices[1].abs().max()
        for scale in (0, 0.3, 1)
    ]
    assert shares[0] == 0 < shares[1] < shares[2]
