"""Patch features: every patch by itself, as the text says, for images of any shape; resizing; learning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daso.nets.encoders.patches import (
    CONTRAST,
    GRID,
    THRESHOLD,
    PatchEncoder,
    PatchFilters,
    geometries,
    resizing_matrix,
)


def images(shape: tuple[int, int, int], count: int = 12) -> Tensor:
    """Return random images with edges, uint8 (count, C, H, W)."""
    random = torch.Generator().manual_seed(sum(shape))
    low = torch.rand(count, shape[0], 1 + shape[1] // 3, 1 + shape[2] // 3, generator=random)
    sized = F.interpolate(low, shape[1:], mode="nearest") * 200
    return (sized + 55 * torch.rand(sized.shape, generator=random)).to(torch.uint8)


def learned(shape: tuple[int, int, int], filters: int = 5) -> PatchEncoder:
    encoder = PatchEncoder(shape[0], geometries(*shape[1:]), filters).double()
    encoder.learn([images(shape)], torch.Generator().manual_seed(0))
    return encoder


def explicit(encoder: PatchFilters, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return averages and peaks of an image (C, H, W) of the right size, patch by patch."""
    size, stride = encoder.geometry.size, encoder.geometry.stride
    filters = encoder.kernel.numpy().reshape(len(encoder.kernel), -1)
    rows = range(0, image.shape[1] - size + 1, stride)
    columns = range(0, image.shape[2] - size + 1, stride)
    response = np.zeros((2 * len(filters), len(rows), len(columns)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch = image[:, top : top + size, left : left + size].ravel()
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + CONTRAST)
            z = filters @ patch - encoder.offset.numpy()
            response[:, i, j] = np.maximum(np.concatenate([z, -z]) - THRESHOLD, 0)

    def pooled(values: np.ndarray, grid: int) -> np.ndarray:
        def cells(length: int) -> list[slice]:
            ends = [(length * k // grid, -(-length * (k + 1) // grid)) for k in range(grid)]
            return [slice(*pair) for pair in ends]

        places = [(a, b) for a in cells(len(rows)) for b in cells(len(columns))]
        return np.stack([values[:, a, b].mean((1, 2)) for a, b in places])

    powers = pooled(response**4, 2)
    powers = np.concatenate([powers, powers.mean(0, keepdims=True)])
    return pooled(response, GRID), powers**0.25


def test_features_are_those_of_each_patch() -> None:
    for shape in (
        (1, 28, 28),
        (3, 32, 32),
        (3, 24, 40),
        (1, 8, 8),
        (2, 5, 5),
        (1, 9, 1),
        (3, 1, 1),
    ):
        encoder, x = learned(shape), images(shape, 3)
        features = encoder(x)
        expected = []
        for image in x.double().numpy():
            parts = []
            for filters in encoder.sizes:
                # The order in a vector: sizes, averages and peaks, signs, cells, filters of a sign.
                for cells in explicit(filters, image):  # (cells, both signs of the filters)
                    parts += [cells[:, :5].ravel(), cells[:, 5:].ravel()]
            expected.append(np.concatenate(parts))
        assert features.shape == (3, encoder.dim), shape
        np.testing.assert_allclose(features.numpy(), expected, atol=1e-9)
        if shape not in ((1, 9, 1), (3, 1, 1)):
            assert (features > 0).double().mean() > 0.05
        assert features.isfinite().all(), shape
        np.testing.assert_allclose(encoder.float()(x), features, atol=2e-3)


def test_the_filters_whiten_patches() -> None:
    """Filters on patches are unit vectors on whitened patches: as small where patches vary much."""
    encoder = learned((1, 28, 28), filters=40).sizes[0]
    x = images((1, 28, 28), 200)
    patches = F.unfold(x.double(), 6, stride=2).transpose(1, 2).reshape(-1, 36)
    patches = patches - patches.mean(1, keepdim=True)
    patches = patches / (patches.var(1, keepdim=True, correction=0) + CONTRAST).sqrt()
    responses = patches @ encoder.kernel.view(40, -1).T - encoder.offset
    assert responses.mean(0).abs().max() < 0.25
    variances = responses.var(0)
    assert variances.min() > 0.2
    assert variances.max() < 2
    assert variances.max() / variances.min() < 5
    assert encoder.kernel.view(40, -1).mean(1).abs().max() < 1e-12


def test_larger_images_are_shrunk_as_by_torch() -> None:
    for shape, size in (
        ((3, 96, 96), (32, 32)),
        ((1, 100, 70), (32, 22)),
        ((1, 300, 4), (32, 6)),
        ((1, 64, 64), (64, 64)),
    ):
        assert geometries(*shape[1:])[0][:2] == size
        encoder, x = learned(shape), images(shape, 2)
        shrunk = F.interpolate(x.double(), size, mode="bilinear", antialias=True)
        torch.testing.assert_close(encoder._resize(x), shrunk)
        torch.testing.assert_close(encoder(x), encoder(shrunk))
        assert (encoder(x) > 0).any()
    for before, after in ((50, 7), (4, 6), (9, 9)):
        column = torch.rand(1, 1, before, 3, dtype=torch.float64)
        expected = F.interpolate(column, (after, 3), mode="bilinear", antialias=True)
        torch.testing.assert_close(resizing_matrix(before, after) @ column, expected)


def test_geometry_of_usual_and_of_tiny_images() -> None:
    for shape, expected in (
        ((32, 32), [(32, 32, 6, 2), (32, 32, 10, 2)]),
        ((28, 28), [(28, 28, 6, 2), (28, 28, 10, 2)]),
        ((8, 8), [(8, 8, 4, 1)]),
        ((5, 5), [(5, 5, 2, 1)]),
        ((15, 40), [(15, 40, 6, 1), (15, 40, 10, 1)]),
        ((64, 64), [(64, 64, 6, 4), (64, 64, 10, 4)]),
        ((224, 224), [(32, 32, 6, 2), (32, 32, 10, 2)]),
        ((1, 7), [(1, 7, 1, 1)]),
    ):
        assert list(geometries(*shape)) == expected


def test_learning_depends_on_the_seed_alone() -> None:
    one, again = learned((1, 8, 8)), learned((1, 8, 8))
    torch.manual_seed(3)
    for first, second in zip(one.sizes, again.sizes, strict=True):
        assert torch.equal(first.kernel, second.kernel)
        assert torch.equal(first.offset, second.offset)
    other = PatchEncoder(1, geometries(8, 8), 5).double()
    other.learn([images((1, 8, 8))], torch.Generator().manual_seed(1))
    assert not torch.equal(one.sizes[0].kernel, other.sizes[0].kernel)


def test_one_black_image_is_enough() -> None:
    encoder = PatchEncoder(1, geometries(8, 8), 5)
    black = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    encoder.learn([black], torch.Generator().manual_seed(0))
    assert encoder(black).isfinite().all()
    assert encoder(images((1, 8, 8))).isfinite().all()


def test_a_layout_that_does_not_fit_is_refused() -> None:
    """It may come from a file that was made by hand, and its numbers become sizes of matrices."""
    state = PatchEncoder(1, geometries(8, 8), 5).state_dict()
    copy = PatchEncoder.like(state)
    assert [filters.geometry for filters in copy.sizes] == list(geometries(8, 8))
    for layout in (
        [10**9, 8, 4, 1],
        [8, 8, 4, 0],
        [8, 8, 5, 1],
        [3, 8, 4, 1],
        [8, -8, 4, 1],
        [8, 8, 4],
    ):
        with pytest.raises(ValueError, match="layout"):
            PatchEncoder.like(state | {"sizes.0.layout": torch.tensor(layout)})
    two = PatchEncoder(1, geometries(32, 32), 5).state_dict()
    del two["sizes.1.kernel"]
    with pytest.raises(ValueError, match=r"zip|argument"):
        PatchEncoder.like(two)
    del two["sizes.0.kernel"]
    with pytest.raises(ValueError, match="no filters"):
        PatchEncoder.like(two)
