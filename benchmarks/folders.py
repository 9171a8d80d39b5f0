"""How fast image folders are read, against a DataLoader with Pillow.

    python benchmarks/folders.py                      # JPEGs of 32 to 1600 pixels, made here
    python benchmarks/folders.py --rounds 9 --workers 8 --csv results/folders.csv

Both sides decode every image of a folder once, resize it to the same side and put it into one uint8
array. The conventional side is what most training scripts have: a ``torch.utils.data.DataLoader``
over a data set that opens a file with Pillow, converts it to RGB, resizes its central square and
returns an array, with as many worker processes as the store takes threads. Rounds alternate between
the sides, after one that is not counted; the table shows medians, and of each round's two times the
ratio: its median and range. Images: parts of two photographs that come with scikit-learn, scaled,
with noise.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from common import provenance, ratio
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

from daso.data.images import encoded
from daso.data.open import open_source
from daso.report.results import append_row

CLASSES = 4
BATCH = 64


@dataclass(frozen=True)
class Case:
    """A folder of images: their size, how many, and the side that they are read at."""

    width: int
    height: int
    count: int
    side: int

    @property
    def name(self) -> str:
        return f"{self.width} x {self.height} at {self.side}"


CASES = (
    Case(32, 32, 8_000, 32),
    Case(224, 224, 1_500, 224),
    Case(224, 224, 1_500, 32),
    Case(1600, 1200, 160, 224),
    Case(1600, 1200, 160, 32),
)


@dataclass(frozen=True)
class Options:
    """Measure the reading of image folders."""

    rounds: int = 5
    """Counted rounds; one more comes before them."""
    workers: int = min(8, os.cpu_count() or 1)
    """Threads of the store, processes of the DataLoader."""
    csv: Path | None = None
    """File to append a row for each case to."""


class Files(Dataset[npt.NDArray[np.uint8]]):
    """The conventional data set: a file, Pillow, a resized central square."""

    def __init__(self, folder: Path, side: int) -> None:
        self.paths, self.side = sorted(folder.rglob("*.jpg")), side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        with Image.open(self.paths[index]) as opened:
            image = opened.convert("RGB")
        shorter = min(image.size)
        left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
        square = image.crop((left, top, left + shorter, top + shorter))
        resized = square.resize((self.side, self.side), Image.Resampling.BILINEAR)
        return np.asarray(resized).transpose(2, 0, 1).copy()


def conventional(folder: Path, side: int, workers: int) -> int:
    """Read a folder by a DataLoader into one array; return how many images there were."""
    files = Files(folder, side)
    loader = DataLoader(files, batch_size=BATCH, num_workers=workers)
    images, done = np.empty((len(files), 3, side, side), dtype=np.uint8), 0
    for batch in loader:
        images[done : done + len(batch)] = batch.numpy()
        done += len(batch)
    return done


def store(folder: Path, side: int, workers: int) -> int:
    """Read a folder as ``daso train`` does; return how many images there were."""
    encoded.WORKERS = workers
    return len(open_source(str(folder), size=side).train)


def write_images(case: Case, folder: Path) -> None:
    """Write a case: scaled parts of photographs, with noise, as JPEGs of quality 88."""
    random = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for number in range(case.count):
        photograph = photographs[number % 2]
        height = int(random.integers(100, 400))
        width = min(height * case.width // case.height, photograph.width)
        left = int(random.integers(0, photograph.width - width + 1))
        top = int(random.integers(0, photograph.height - height + 1))
        box = (left, top, left + width, top + height)
        part = photograph.resize((case.width, case.height), Image.Resampling.BILINEAR, box=box)
        noise = random.integers(-6, 7, (case.height, case.width, 3))
        place = folder / "labeled" / f"class-{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = (np.asarray(part, dtype=np.int64) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:06}.jpg", quality=88)


def seconds(read: Callable[[Path, int, int], int], folder: Path, case: Case, workers: int) -> float:
    started = time.perf_counter()
    count = read(folder, case.side, workers)
    if count != case.count:
        raise RuntimeError(f"{read.__name__} read {count} of {case.count} images")
    return time.perf_counter() - started


def measure(case: Case, folder: Path, options: Options) -> dict[str, Any]:
    times: dict[str, list[float]] = {"store": [], "conventional": []}
    for number in range(options.rounds + 1):
        for name, read in (("store", store), ("conventional", conventional)):
            taken = seconds(read, folder, case, options.workers)
            if number:
                times[name].append(taken)
    ratios = ratio(times["conventional"], times["store"])
    return {
        "images": case.name,
        "count": case.count,
        "workers": options.workers,
        "store_seconds": round(statistics.median(times["store"]), 3),
        "conventional_seconds": round(statistics.median(times["conventional"]), 3),
        "store_images_per_second": round(case.count / statistics.median(times["store"])),
        "conventional_images_per_second": round(
            case.count / statistics.median(times["conventional"])
        ),
        "ratio": round(ratios["median"], 2),
        "lowest_ratio": round(ratios["low"], 2),
        "highest_ratio": round(ratios["high"], 2),
        "rounds": options.rounds,
    }


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    print(f"{'images':<22}{'store, images/s':>16}{'DataLoader':>12}{'ratio':>8}  range")
    with tempfile.TemporaryDirectory() as place:
        for case in CASES:
            folder = Path(place) / f"{case.width}x{case.height}"
            if not folder.is_dir():
                write_images(case, folder)
            row = measure(case, folder, options)
            if options.csv is not None:
                append_row(options.csv, {**row, **provenance()})
            print(
                f"{row['images']:<22}{row['store_images_per_second']:>16,}{row['conventional_images_per_second']:>12,}"
                f"{row['ratio']:>8.2f}  {row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
