from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pillow_views
import pytest
import torch
from made_views import batch, cut_out, seeded, strong, weak

from daso.views import (
    OPERATIONS,
    crop,
    draw,
    draw_weak,
    join_draws,
    operations,
    strong_from_draws,
)

SIZES = [(8, 8), (28, 28), (32, 32), (40, 56)]


def test_flip_and_crop_equal_numpy() -> None:
    for size, channels, padding in product(SIZES, (1, 3), (0, 1, 4, 7)):
        images = batch(60, channels, *size)
        draws = draw_weak(60, seeded(padding), padding=padding)
        result = crop(images, draws)
        places = (draws.flipped.tolist(), draws.top.tolist(), draws.left.tolist())
        numbers = zip(images.numpy(), *places, strict=True)
        expected = np.stack([pillow_views.flip_and_crop(*one, padding) for one in numbers])
        assert np.array_equal(result.numpy(), expected), (size, channels, padding)
        assert torch.equal(weak(images, seeded(padding), padding=padding), result)


def test_cutout_equals_pillow() -> None:
    for size, channels in product((0, 1, 7, 16, 100), (1, 3)):
        check_cutout(size, channels)


def check_cutout(size: int, channels: int) -> None:
    images = batch(80, channels, 32, 40)
    centre = torch.rand((80, 2), generator=seeded(), dtype=torch.float64) * torch.tensor(
        (40.0, 32.0)
    )
    centre[:4] = torch.tensor(((0.0, 0.0), (39.999, 31.999), (20.0, 16.0), (8.5, 8.0)))
    result = cut_out(images, centre, size=size)
    if size == 0:
        assert torch.equal(result, images)
        return
    expected = [
        pillow_views.from_pillow(pillow_views.cut_out(pillow_views.to_pillow(image), x, y, size))
        for image, (x, y) in zip(images.numpy(), centre.tolist(), strict=True)
    ]
    assert np.array_equal(result.numpy(), np.stack(expected)), (size, channels)


def test_strong_equals_the_steps_of_pillow() -> None:
    for size, channels, count in product(SIZES, (1, 3), (0, 1, 2, 3)):
        check_strong(size, channels, count)


def check_strong(size: tuple[int, int], channels: int, operations: int) -> None:
    images = batch(150, channels, *size)
    draws = draw(150, *size, seeded(operations), operations=operations)
    result = strong_from_draws(images, draws, cutout=size[0] // 2).numpy().astype(int)
    weak_views = crop(images, draws.weak)
    exact = 0
    for index, view in enumerate(weak_views.numpy()):
        image = pillow_views.to_pillow(view)
        for step in range(operations):
            if draws.applied[index, step]:
                name = OPERATIONS[int(draws.operation[index, step])]
                level, sign = int(draws.level[index, step]), int(draws.sign[index, step])
                image = pillow_views.operate(name, image, level, sign)
        image = pillow_views.cut_out(image, *draws.centre[index].tolist(), size[0] // 2)
        exact += np.array_equal(result[index], pillow_views.from_pillow(image))
    # Where a blend rounds the other way, a second operation may enlarge the difference; seldom, if at all.
    assert exact >= 0.97 * len(images), (size, channels)
    assert torch.equal(
        strong(images, seeded(operations), operations=operations, cutout=size[0] // 2).int(),
        torch.tensor(result).int(),
    )


def test_the_steps_of_a_window_get_the_views_they_get_alone() -> None:
    for channels, size in product((1, 3), (28, 32, 96)):
        steps = list(enumerate((64, 64, 1, 17)))
        images = [batch(count, channels, size, size).roll(step, dims=0) for step, count in steps]
        weak_draws = [draw_weak(count, seeded(step), padding=3) for step, count in steps]
        draws = [draw(count, size, size, seeded(step)) for step, count in steps]
        weak_views = crop(torch.cat(images), join_draws(weak_draws)).split(
            [count for _, count in steps]
        )
        strong_views = strong_from_draws(torch.cat(images), join_draws(draws)).split(
            [n for _, n in steps]
        )
        for step, _ in steps:
            assert torch.equal(weak_views[step], weak(images[step], seeded(step), padding=3))
            assert torch.equal(strong_views[step], strong(images[step], seeded(step)))
        last = strong_from_draws(torch.cat(images[2:]), join_draws(draws[2:]))
        assert torch.equal(last, torch.cat(strong_views[2:])), (channels, size)


def test_pieces_of_any_size_give_the_same_views(monkeypatch: pytest.MonkeyPatch) -> None:
    for channels in (1, 3):
        images = batch(300, channels, 28, 28)
        centre = torch.rand((300, 2), generator=seeded(), dtype=torch.float64) * 28
        whole = strong(images, seeded(4)), weak(images, seeded(4)), cut_out(images, centre)
        for images_at_once in (1, 7, 50):
            with monkeypatch.context() as patch:
                patch.setattr(operations, "_GROUP_ON_CPU", images_at_once * images[0].numel())
                assert torch.equal(strong(images, seeded(4)), whole[0])
                patch.setattr(operations, "_BATCH_ON_CPU", 2 * images_at_once * images[0].numel())
                views = strong(images, seeded(4)), weak(images, seeded(4)), cut_out(images, centre)
            assert all(map(torch.equal, views, whole)), (channels, images_at_once)


def test_views_are_ordinary_tensors() -> None:
    for view in (weak, partial(strong, cutout=4)):
        result = view(batch(8, 3, 28, 28), seeded())
        assert not result.is_inference(), view
        weights = torch.ones(8, 3, 28, 28, requires_grad=True)
        (result.float().mul_(weights)).sum().backward()
        assert torch.equal(weights.grad, result.float()), view


def uniform(values: torch.Tensor, choices: list[int]) -> bool:
    """Whether a chi-square statistic stays below its mean plus six standard deviations."""
    counts = torch.stack([(values == choice).sum() for choice in choices]).double()
    assert counts.sum() == values.numel()
    expected = values.numel() / len(choices)
    freedom = len(choices) - 1
    return bool(((counts - expected) ** 2 / expected).sum() < freedom + 6 * (2 * freedom) ** 0.5)


def test_draws_are_distributed_as_published() -> None:
    count = 60_000
    draws = draw(count, 32, 64, seeded())
    for step in range(2):
        assert uniform(draws.operation[:, step], list(range(14)))
        assert uniform(draws.level[:, step], list(range(1, 10)))
        assert uniform(draws.sign[:, step], [-1, 1])
        assert uniform(draws.applied[:, step].int(), [0, 1])
    assert uniform(draws.operation[:, 0] * 14 + draws.operation[:, 1], list(range(196)))
    assert uniform(
        draws.level[:, 0] * 10 + draws.level[:, 1],
        [10 * i + j for i in range(1, 10) for j in range(1, 10)],
    )
    assert uniform(draws.applied.int() @ torch.tensor([2, 1], dtype=torch.int32), [0, 1, 2, 3])
    assert uniform(draws.weak.flipped.int(), [0, 1])
    assert uniform(draws.weak.top * 9 + draws.weak.left, list(range(81)))
    assert uniform(
        draws.centre[:, 0].long() // 8 * 4 + draws.centre[:, 1].long() // 8, list(range(32))
    )


def test_options_of_the_draws() -> None:
    draws = draw(
        500, 8, 8, seeded(), flip=False, padding=0, operations=3, magnitude=2, probability=1.0
    )
    assert draws.operation.shape == (500, 3)
    assert draws.applied.all()
    assert (draws.level == 1).all()
    assert not draws.weak.flipped.any()
    assert not draws.weak.top.any()
    assert not draw(500, 8, 8, seeded(), probability=0.0).applied.any()


def test_one_batch_gets_different_operations_and_levels() -> None:
    draws = draw(256, 32, 32, seeded())
    assert len(draws.operation[:, 0].unique()) == 14
    assert len(draws.level[:, 1].unique()) == 9
    same = torch.tensor(pillow_views.real_images(32, 32, 3)[:1]).repeat(256, 1, 1, 1)
    assert (
        len(strong(same, seeded(), padding=0, flip=False, cutout=0).flatten(1).unique(dim=0)) > 50
    )


# The default cutout would hide the whole of an image of 8 x 8.
def test_seeds_shapes_and_inputs() -> None:
    for view, size, channels in product((weak, partial(strong, cutout=4)), SIZES, (1, 3)):
        check_seeds_shapes_and_inputs(view, size, channels)


def check_seeds_shapes_and_inputs(view, size: tuple[int, int], channels: int) -> None:
    images = batch(33, channels, *size)
    before = images.clone()
    state = torch.get_rng_state()
    first = view(images, seeded(5))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
    assert first.is_contiguous()
    assert torch.equal(first, view(images, seeded(5)))
    assert not torch.equal(first, view(images, seeded(6)))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(view(channels_last, seeded(5)), first)
    assert torch.equal(view(images.repeat_interleave(2, dim=0)[::2], seeded(5)), first)
    assert view(images[:1], seeded(5)).shape == images[:1].shape
    assert view(images[:0], seeded(5)).shape == images[:0].shape


def test_identical_settings_leave_the_image_as_it_is() -> None:
    images = batch(20, 3, 28, 28)
    assert torch.equal(weak(images, seeded(), flip=False, padding=0), images)
    assert torch.equal(
        strong(images, seeded(), flip=False, padding=0, probability=0.0, cutout=0), images
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels", [1, 3])
def test_cuda_gives_the_same_views_without_waiting(channels: int) -> None:
    images = batch(200, channels, 32, 32)
    remote = images.cuda()
    strong(remote, seeded(1))
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            weak_view, strong_view = weak(remote, seeded(2)), strong(remote, seeded(2))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(weak_view.cpu(), weak(images, seeded(2)))
    difference = strong_view.cpu().int() - strong(images, seeded(2)).int()
    assert (difference != 0).flatten(1).any(dim=1).float().mean() <= 0.03
