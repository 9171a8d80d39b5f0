"""The strong views of photographs against Pillow's, one image after another."""

from __future__ import annotations

import random
import statistics
from functools import partial

import numpy as np
import torch
from common import Spread, ratio, show
from PIL import Image
from pillow_augment import Array, Augmentation
from sklearn.datasets import load_sample_image
from timing import Clock, Stopwatch

from daso.views import draw, join_draws, strong_from_draws

VIEW_SIZES: tuple[int, ...] = (32, 96, 224)
VIEW_STEPS: tuple[int, ...] = (1, 4, 8, 16)
VIEW_BATCH = 128


def photographs(count: int, size: int) -> Array:
    """Return squares cut out of two photographs, uint8 (B, size, size, 3)."""
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    generator = random.Random(0)
    crops = []
    for index in range(count):
        left, top = generator.randint(0, 640 - 300), generator.randint(0, 427 - 300)
        crop = pictures[index % 2].crop((left, top, left + 300, top + 300))
        crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(crops)


def strong_views(images: torch.Tensor, steps: int, seed: int, cutout: int) -> torch.Tensor:
    """Return the strong views of several steps, each with its own generator."""
    generators = [torch.Generator().manual_seed(seed + step) for step in range(steps)]
    count, _, height, width = images.shape
    draws = [draw(count // steps, height, width, generator) for generator in generators]
    return strong_from_draws(images, join_draws(draws), cutout=cutout)


def pillow_strong(images: Array, augmentation: Augmentation) -> list[Array]:
    return [augmentation.strong(image) for image in images]


def measure_views(threads: int, clock: Clock, rounds: int, quick: bool) -> dict[str, Spread]:
    """Return how many times as fast as Pillow strong views are made."""
    torch.set_num_threads(threads)
    # As after a training step: from now on glibc keeps freed memory of this size.
    torch.empty(2**24, dtype=torch.uint8).fill_(0)
    watch = Stopwatch(torch.device("cpu"), clock)
    batch, sizes, counts = VIEW_BATCH, VIEW_SIZES, VIEW_STEPS
    if quick:
        batch, sizes, counts = 4, (8,), (1, 2)
    print(f"\n{'strong views':40} {'images/s':>10} {'Pillow':>10}  times Pillow")
    result = {}
    for size in sizes:
        arrays = photographs(batch, size)
        tensor = torch.from_numpy(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2)))
        augmentation = Augmentation(size, 4, size // 2, random.Random(0))
        for steps in counts:
            images = tensor.repeat(steps, 1, 1, 1)
            rates: list[tuple[float, float]] = []
            for number in range(rounds + 1):
                seed = number * steps
                ours = watch.time(partial(strong_views, images, steps, seed, size // 2))
                theirs = watch.time(partial(pillow_strong, arrays, augmentation))
                rates.append((len(images) / ours, len(arrays) / theirs))
            ours_rates, their_rates = zip(*rates[1:], strict=True)  # the first round fills caches
            label = f"{batch} images of {size} px, {steps} step(s) at once"
            result[label] = ratio(ours_rates, their_rates)
            medians = [statistics.median(values) for values in (ours_rates, their_rates)]
            print(f"{label:40} {medians[0]:10,.0f} {medians[1]:10,.0f}  {show(result[label])}")
    return result
