"""Random resized crops against Pillow, image by image, and against a loop over the same random numbers."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import product

import numpy as np
import pillow_views
import pytest
import torch
from made_views import batch, resized_crop, seeded
from PIL import Image

from daso.views.resized_crop import ATTEMPTS, ResizedDraws, draw_resized, resize_parts


def by_pillow(
    image: np.ndarray, draws: ResizedDraws, index: int, height: int, width: int, *, at_once: bool
) -> np.ndarray:
    left, top, wide, tall = (
        int(v[index]) for v in (draws.left, draws.top, draws.width, draws.height)
    )
    part = pillow_views.to_pillow(image).crop((left, top, left + wide, top + tall))
    for size in ((width, height),) if at_once else ((width, tall), (width, height)):
        part = part.resize(size, Image.Resampling.BILINEAR)
    if draws.flipped[index]:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return pillow_views.from_pillow(part)


def test_equals_pillow() -> None:
    sizes = (
        ((32, 32), (32, 32)),
        ((40, 56), (24, 24)),
        ((40, 56), (9, 70)),
        ((224, 224), (224, 224)),
        ((8, 8), (1, 1)),
    )
    for channels, (before, after) in product((1, 3), sizes):
        images = batch(30, channels, *before)
        draws = draw_resized(30, *before, seeded())
        assert draws.flipped.any(), (channels, before)
        assert not draws.flipped.all(), (channels, before)
        result = resize_parts(images, draws, height=after[0], width=after[1]).numpy()
        assert result.shape == (30, channels, *after)
        for at_once in (False, True):
            expected = np.stack(
                [
                    by_pillow(image, draws, i, *after, at_once=at_once)
                    for i, image in enumerate(images.numpy())
                ]
            )
            # At once, Pillow may take columns before rows, and rounds in between.
            difference = np.abs(result.astype(int) - expected)
            assert difference.max() <= (1 if at_once else 0)
            assert (difference > 0).mean() < 0.15


def test_a_whole_image_of_its_own_size_is_itself() -> None:
    images = batch(6, 3, 24, 31)
    whole = ResizedDraws(*(torch.tensor([value] * 6) for value in (False, 0, 0, 24, 31)))
    assert torch.equal(resize_parts(images, whole, height=24, width=31), images)
    mirrored = ResizedDraws(~whole.flipped, whole.top, whole.left, whole.height, whole.width)
    assert torch.equal(resize_parts(images, mirrored, height=24, width=31), images.flip(-1))


def test_a_flat_image_stays_flat() -> None:
    for value in (0, 1, 254, 255):
        images = torch.full((40, 1, 50, 50), value, dtype=torch.uint8)
        for size in (7, 50, 90):
            assert (resized_crop(images, seeded(), size=size) == value).all()


def test_the_draws_are_those_of_a_loop_of_ten_attempts() -> None:
    height, width, area, ratio = 30, 44, (0.3, 1.0), (0.5, 2.5)
    draws = draw_resized(300, height, width, seeded(3), area=area, ratio=ratio)
    generator = seeded(3)
    flipped = torch.rand(300, generator=generator) < 0.5
    share, shape = torch.rand((2, ATTEMPTS, 300), generator=generator, dtype=torch.float64).tolist()
    down, across = torch.rand((2, 300), generator=generator, dtype=torch.float64).tolist()
    late = 0
    for i in range(300):
        for attempt in range(ATTEMPTS):
            pixels = height * width * (area[0] + (area[1] - area[0]) * share[attempt][i])
            aspect = math.exp(
                math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * shape[attempt][i]
            )
            tall, wide = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
            if 0 < tall <= height and 0 < wide <= width:
                break
        else:
            pytest.fail("no attempt fits; choose wider ranges")
        late += attempt > 0
        expected = (
            bool(flipped[i]),
            int(down[i] * (height - tall + 1)),
            int(across[i] * (width - wide + 1)),
        )
        found = tuple(getattr(draws, field.name)[i].item() for field in fields(draws))
        assert found == (*expected, tall, wide)
    assert 30 < late < 270


def test_shares_ratios_and_places_are_spread_as_they_should_be() -> None:
    draws = draw_resized(20_000, 224, 224, seeded(1), area=(0.1, 0.5))
    share = (draws.height * draws.width).double() / 224**2
    ratio = (draws.width.double() / draws.height).log()
    assert 0.095 < share.min() < 0.11
    assert 0.49 < share.max() < 0.51
    assert share.mean().item() == pytest.approx(0.3, abs=0.003)
    assert ratio.abs().max().item() == pytest.approx(math.log(4 / 3), abs=0.02)
    assert ratio.mean().item() == pytest.approx(0, abs=0.005)
    assert ratio.std().item() == pytest.approx(2 * math.log(4 / 3) / math.sqrt(12), abs=0.005)
    for start, length in ((draws.top, draws.height), (draws.left, draws.width)):
        assert start.min() == 0
        assert (224 - start - length).min() == 0
        assert (start / (224 - length)).mean().item() == pytest.approx(0.5, abs=0.01)
    assert draws.flipped.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert not draw_resized(100, 8, 8, seeded(), flip=False).flipped.any()


def test_where_nothing_fits_the_central_part_is_taken() -> None:
    for height, width, area, part in (
        (8, 400, (0.9, 1.0), (0, 194, 8, 11)),
        (400, 8, (0.9, 1.0), (194, 0, 11, 8)),
        (1, 1, (0.08, 0.08), (0, 0, 1, 1)),
        (1, 300, (0.5, 1.0), (0, 149, 1, 1)),
    ):
        draws = draw_resized(50, height, width, seeded(), area=area)
        columns = torch.stack((draws.top, draws.left, draws.height, draws.width), dim=1)
        assert columns.unique(dim=0).tolist() == [list(part)]


def test_an_image_does_not_depend_on_its_batch_or_on_the_layout_in_memory() -> None:
    images = batch(200, 3, 64, 64)  # more than one piece
    draws = draw_resized(200, 64, 64, seeded())
    together = resize_parts(images, draws, height=20, width=30)
    for index in (0, 1, 63, 170, 171, 199):
        one = slice(index, index + 1)
        alone = ResizedDraws(*(getattr(draws, field.name)[one] for field in fields(draws)))
        assert torch.equal(resize_parts(images[one], alone, height=20, width=30), together[one])
    by_channel = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(resize_parts(by_channel, draws, height=20, width=30), together)


def test_the_view_is_a_function_of_the_generator_and_leaves_its_images() -> None:
    images = batch(20, 3, 32, 40)
    kept = images.clone()
    result = resized_crop(images, seeded(5))
    assert torch.equal(images, kept)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    assert torch.equal(resized_crop(images, seeded(5)), result)
    assert not torch.equal(resized_crop(images, seeded(6)), result)
    assert resized_crop(images, seeded(), size=16).shape == (20, 3, 16, 16)
    assert resized_crop(images[:0], seeded()).shape == (0, 3, 32, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_view_without_waiting() -> None:
    images = batch(40, 3, 100, 100)
    remote = images.cuda()
    resized_crop(remote, seeded(), size=77)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = resized_crop(remote, seeded(), size=77)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result.cpu(), resized_crop(images, seeded(), size=77))
