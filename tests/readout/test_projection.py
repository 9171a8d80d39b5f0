"""Projections: principal components as numpy computes them, in every shape; equal features stay finite."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from daso.readout import projection
from daso.readout.projection import Projection, principal_components, sample_rows


def features(rows: int, columns: int) -> Tensor:
    """Return features whose directions have distinct variances."""
    random = torch.Generator().manual_seed(rows + columns)
    x = torch.randn(rows, columns, generator=random, dtype=torch.float64)
    return x * torch.linspace(3, 0.5, columns, dtype=torch.float64) + 1


def numpy_components(rows: np.ndarray, size: int) -> np.ndarray:
    """Return the coordinates of the rows along the leading components, of mean square 1."""
    centered = rows - rows.mean(0)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    assert (np.diff(values[: size + 1]) < -1e-6).all()  # else the components are not unique
    z = centered @ directions[:size].T
    return z / np.sqrt((z**2).mean())


def assert_same_up_to_signs(found: Tensor, expected: np.ndarray, most: float = 1e-8) -> None:
    signs = np.sign((found.numpy() * expected).sum(0))
    np.testing.assert_allclose(found.numpy() * signs, expected, atol=most)


def test_a_projection_is_the_principal_components_of_directions() -> None:
    shapes = (
        (50, 8, 3, 3),
        (50, 4, 10, 4),  # fewer features than dimensions
        (9, 30, 5, 5),  # fewer rows than features
    )
    for rooted, (rows, columns, size, kept) in product((True, False), shapes):
        x = features(rows, columns)
        x = x.abs() if rooted else x
        fit = Projection.fit(x, size)
        assert fit.rooted == rooted
        plain = np.sqrt(x.numpy()) if rooted else x.numpy()
        centered = plain - plain.mean(0)
        unit = centered / np.linalg.norm(centered, axis=1, keepdims=True)
        z = fit(x)
        assert z.shape == (rows, kept)
        assert_same_up_to_signs(z, numpy_components(unit, kept))
        torch.testing.assert_close(z.square().mean(), torch.ones((), dtype=torch.float64))
        # New features: the same map, with what is negative taken for 0 if roots are taken.
        new = features(4, columns)
        plain = np.sqrt(new.clamp(min=0).numpy()) if rooted else new.numpy()
        moved = plain - fit.center.numpy()
        unit = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(fit(new), unit @ fit.matrix.numpy() + fit.bias.numpy())


def test_fewer_rows_than_dimensions_leave_no_more_directions_than_rows() -> None:
    z = Projection.fit(features(5, 30), 20)(features(5, 30))
    assert z.shape == (5, 5)
    assert z.isfinite().all()


def test_many_features_are_decomposed_by_random_directions_to_the_same_result() -> None:
    """The variance decays, as that of real features: the random method is nearly exact."""
    x = features(200, 100) * torch.logspace(0, -6, 100, dtype=torch.float64)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    matrix, bias = principal_components(x, 6)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(principal_components(x, 6)[0], matrix)
    assert_same_up_to_signs(x @ matrix + bias, numpy_components(x.numpy(), 6), 1e-3)


def test_equal_features_stay_finite() -> None:
    for same in (torch.zeros(20, 7), torch.full((20, 7), 0.3), torch.ones(1, 7)):
        fit = Projection.fit(same, 3)
        for x in (same, same + 1e-6, torch.rand(5, 7)):
            assert fit(x).isfinite().all()
            assert fit(x).abs().max() < 1e7


def test_a_fit_takes_a_sample_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = features(40, 3)
    chosen = sample_rows(x, 10)
    assert len(chosen) == 10
    assert len(chosen.unique(dim=0)) == 10
    assert torch.equal(chosen, sample_rows(x, 10))
    assert sample_rows(x, 40) is x
    monkeypatch.setattr(projection, "MOST_ROWS", 10)
    torch.testing.assert_close(Projection.fit(x, 2).center, chosen.mean(0))
