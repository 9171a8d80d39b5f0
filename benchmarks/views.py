"""Compare the speed of the strong view with that of a pipeline of Pillow, one image after another.

Both turn the same uint8 photographs into one uint8 batch of views by the same protocol; the views of several
training steps may be made at once. The rounds of the two take turns, so that both meet the same state of the
machine; the table gives medians and their ratio. With more than one thread on a machine that has other work,
set OMP_WAIT_POLICY=passive: threads that wait by spinning otherwise take the processor from each other; or
compare one thread by ``--clock processor``, which does not count the time that others have the processor.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pillow_augment import Array, Augmentation
from sklearn.datasets import load_sample_image
from speed_rows import row, spread_of
from torch import Tensor

from daso.report.results import append_row
from daso.views import draw, join_draws, strong, strong_from_draws

PADDING = 4


def pillow_strong(images: Array, augmentation: Augmentation) -> Array:
    """Turn (B, H, W, 3) into the strong views (B, 3, H, W)."""
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), np.uint8)
    for index in range(count):
        result[index] = augmentation.strong(images[index]).transpose(2, 0, 1)
    return result


def photographs(count: int, size: int) -> Array:
    """Cut *count* squares out of two photographs, scaled down to (B, size, size, 3)."""
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    generator = random.Random(0)
    crops = []
    for index in range(count):
        left, top = generator.randint(0, 640 - 300), generator.randint(0, 427 - 300)
        crop = pictures[index % 2].crop((left, top, left + 300, top + 300))
        crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(crops)


def strong_views(images: Tensor, steps: int, seed: int, cutout: int) -> Tensor:
    """Return the strong views of the images of *steps* steps, each with a generator of its own, as in training."""
    generators = [torch.Generator().manual_seed(seed + step) for step in range(steps)]
    if steps == 1:
        return strong(images, generators[0], cutout=cutout)
    count, _, height, width = images.shape
    draws = [draw(count // steps, height, width, generator) for generator in generators]
    return strong_from_draws(images, join_draws(draws), cutout=cutout)


def seconds(clock: Callable[[], float], function: Callable[[], object]) -> float:
    start = clock()
    function()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128, help="images in a step")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[1, 4, 8, 16], help="steps made at once"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 96, 224], help="pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch; Pillow always has one"
    )
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    parser.add_argument("--csv", type=Path, help="append a row for every ratio here")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    torch.set_num_threads(options.threads)
    # As after a training step: glibc keeps freed memory of this size from now on, instead of paging it in anew.
    torch.empty(2**24, dtype=torch.uint8).fill_(0)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {options.batch} images a step; "
        f"medians of {options.rounds} rounds, {options.clock} time"
    )
    print(
        f"{'pixels':>6} {'steps':>5} {'daso images/s':>14} {'Pillow images/s':>16} {'ratio':>6}   low-high"
    )
    for size in options.sizes:
        arrays = photographs(options.batch, size)
        tensor = torch.from_numpy(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2)))
        augmentation = Augmentation(size, PADDING, size // 2, random.Random(0))
        for steps in options.steps:
            images = tensor.repeat(steps, 1, 1, 1)
            ours, theirs = [], []
            for number in range(options.rounds + 1):
                own = seconds(
                    clock, partial(strong_views, images, steps, number * steps, size // 2)
                )
                pillow = seconds(clock, partial(pillow_strong, arrays, augmentation))
                if number:  # the first round fills caches
                    ours.append(len(images) / own)
                    theirs.append(len(arrays) / pillow)
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            print(
                f"{size:>6} {steps:>5} {statistics.median(ours):>14,.0f} {statistics.median(theirs):>16,.0f} "
                f"{statistics.median(ratios):>6.2f}   {min(ratios):.2f}-{max(ratios):.2f}",
                flush=True,
            )
            if options.csv is not None:
                measured = row(
                    "strong view, times Pillow",
                    spread_of(ratios),
                    rounds=options.rounds,
                    clock=options.clock,
                    threads=options.threads,
                    setting=f"{options.batch} images of {size} px, {steps} step(s) at once",
                )
                append_row(options.csv, measured)


if __name__ == "__main__":
    main()
