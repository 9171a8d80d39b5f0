"""Compare the speed of the strong view with that of a pipeline of Pillow, one image after another.

Both turn the same uint8 photographs into one uint8 batch of views by the same protocol. The rounds of the two
take turns, so that both meet the same state of the machine; the table gives medians and their ratio. With
more than one thread on a machine that has other work, set OMP_WAIT_POLICY=passive: threads that wait by
spinning otherwise take the processor from each other.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from daso.views import strong

Array = npt.NDArray[np.uint8]
PillowOperation = Callable[[Image.Image, float, int], Image.Image]

PADDING = 4


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


POOL: tuple[PillowOperation, ...] = (
    lambda image, share, sign: ImageOps.autocontrast(image),
    lambda image, share, sign: ImageEnhance.Brightness(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageEnhance.Color(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageEnhance.Contrast(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: ImageOps.equalize(image),
    lambda image, share, sign: image,
    lambda image, share, sign: ImageOps.posterize(image, int(share * 4) + 4),
    lambda image, share, sign: image.rotate(sign * int(share * 30)),
    lambda image, share, sign: ImageEnhance.Sharpness(image).enhance(share * 0.9 + 0.05),
    lambda image, share, sign: affine(image, 1, sign * share * 0.3, 0, 0, 1, 0),
    lambda image, share, sign: affine(image, 1, 0, 0, sign * share * 0.3, 1, 0),
    lambda image, share, sign: ImageOps.solarize(image, 256 - int(share * 256)),
    lambda image, share, sign: affine(image, 1, 0, int(sign * share * 0.3 * image.width), 0, 1, 0),
    lambda image, share, sign: affine(image, 1, 0, 0, 0, 1, int(sign * share * 0.3 * image.height)),
)


def pillow_strong(images: Array, generator: random.Random, cutout: int) -> Array:
    """Turn (B, H, W, 3) into the strong views (B, 3, H, W)."""
    count, height, width, channels = images.shape
    result = np.empty((count, channels, height, width), np.uint8)
    # numpy.pad is slow on small images; looking rows and columns up makes the comparison a fair one.
    rows = np.pad(np.arange(height), PADDING, "reflect")
    columns = np.pad(np.arange(width), PADDING, "reflect")
    for index in range(count):
        top, left = generator.randint(0, 2 * PADDING), generator.randint(0, 2 * PADDING)
        chosen = columns[left : left + width]
        if generator.random() < 0.5:
            chosen = width - 1 - chosen
        image = Image.fromarray(images[index].take(rows[top : top + height], 0).take(chosen, 1))
        for operation in generator.choices(POOL, k=2):
            if generator.random() < 0.5:
                image = operation(image, generator.randint(1, 9) / 10, generator.choice((-1, 1)))
        x = int(max(0, generator.uniform(0, width) - cutout / 2))
        y = int(max(0, generator.uniform(0, height) - cutout / 2))
        corners = (x, y, min(width, x + cutout), min(height, y + cutout))
        ImageDraw.Draw(image).rectangle(corners, (127, 127, 127))
        result[index] = np.asarray(image).transpose(2, 0, 1)
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


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=512, help="images in a batch of 32 pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; Pillow always has one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s); medians of {options.rounds} rounds")
    print(f"{'pixels':>6} {'batch':>6} {'daso images/s':>14} {'Pillow images/s':>16} {'ratio':>6}   low-high")
    for size in (32, 96, 224):
        # Smaller batches of larger images, as in training.
        count = max(16, options.batch * 32 // size)
        arrays = photographs(count, size)
        tensor = torch.from_numpy(np.ascontiguousarray(arrays.transpose(0, 3, 1, 2)))
        generator, other = torch.Generator().manual_seed(0), random.Random(0)
        ours, theirs = [], []
        for step in range(options.rounds + 1):
            own = seconds(partial(strong, tensor, generator, cutout=size // 2))
            pillow = seconds(partial(pillow_strong, arrays, other, size // 2))
            if step:  # the first round fills caches
                ours.append(count / own)
                theirs.append(count / pillow)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{size:>6} {count:>6} {statistics.median(ours):>14,.0f} {statistics.median(theirs):>16,.0f} "
            f"{statistics.median(ratios):>6.2f}   {min(ratios):.2f}-{max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
