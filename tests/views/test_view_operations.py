from __future__ import annotations

import numpy as np
import pillow_views
import torch
from made_views import apply

from daso.views import OPERATIONS

BLENDED = {"Brightness", "Color", "Contrast", "Sharpness"}
"""Arithmetic in float32, where a compiler may round once or twice; all others must agree exactly."""


SIZES = [(32, 32), (96, 96), (40, 56), (56, 40), (8, 8), (28, 28), (3, 70), (2, 2)]


def test_agrees_with_pillow_at_every_level_and_sign() -> None:
    for name in OPERATIONS:
        off = {
            (size, channels): difference
            for size in SIZES
            for channels in (1, 3)
            if (difference := difference_from_pillow(name, size, channels)) > (name in BLENDED)
        }
        assert off == {}, name


def difference_from_pillow(name: str, size: tuple[int, int], channels: int) -> int:
    images = pillow_views.real_images(*size, channels)
    variants = [(level, sign) for level in range(1, 10) for sign in (-1, 1)]
    batch = torch.from_numpy(np.repeat(images, len(variants), axis=0))
    level, sign = torch.tensor(variants * len(images)).unbind(1)
    result = apply(name, batch, level, sign)
    assert result.dtype == torch.uint8
    expected = np.stack(
        [
            pillow_views.from_pillow(
                pillow_views.operate(name, pillow_views.to_pillow(image), *variant)
            )
            for image in images
            for variant in variants
        ]
    )
    return int(np.abs(result.numpy().astype(int) - expected.astype(int)).max())


def test_equals_one_image_at_a_time_and_leaves_the_input_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (70, 96, 96, 3), generator=generator, dtype=torch.uint8).permute(
        0, 3, 1, 2
    )
    before = images.clone()
    level = torch.randint(0, 10, (70,), generator=generator)
    sign = torch.randint(0, 2, (70,), generator=generator) * 2 - 1
    for name in OPERATIONS:
        together = apply(name, images, level, sign)
        assert torch.equal(images, before), name
        alone = [
            apply(name, images[i : i + 1], level[i : i + 1], sign[i : i + 1])
            for i in range(0, 70, 7)
        ]
        assert torch.equal(together[::7], torch.cat(alone)), name


def test_a_mean_gray_is_exact_for_images_of_many_pixels() -> None:
    images = torch.full((1, 1, 1000, 1000), 254, dtype=torch.uint8)
    images[..., :500] = 255  # a mean of 254.5 is rounded up, and float32 does not hold the sum
    one = torch.ones(1, dtype=torch.int64)
    expected = pillow_views.operate("Contrast", pillow_views.to_pillow(images[0].numpy()), 1, 1)
    assert np.array_equal(apply("Contrast", images, one, one)[0, 0].numpy(), np.asarray(expected))


def test_level_nought_of_a_geometric_operation_changes_nothing() -> None:
    images = torch.randint(
        0, 256, (2, 3, 9, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for name in OPERATIONS:
        result = apply(name, images, torch.zeros(2, dtype=torch.int64), torch.tensor([1, -1]))
        assert result.shape == images.shape
        if name[:5] in ("Rotat", "Shear", "Trans"):
            assert torch.equal(result, images), name
