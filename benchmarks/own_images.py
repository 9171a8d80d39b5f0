"""Fashion-MNIST in image folders: the bare command against supervised training.

    python benchmarks/own_images.py --seeds 0 1 2 --out runs/own-images

Writes, for each seed, a folder with ``labeled/<class>/`` (250 images of the most frequent class
down to 5 of the rarest), ``unlabeled/`` (all other training images) and ``test/<class>/``. Then
``daso train FOLDER`` runs, and supervised, as long and twice as long. A row of each run goes into
the results file, with the minutes of the whole command; a run that has its row is not run again.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from common import daso_command
from PIL import Image

from daso.data.images.decoded import Decoded
from daso.data.longtail import longtail_counts
from daso.data.open import open_source
from daso.data.source import Source
from daso.report.results import append_row, has_row, result_row
from daso.report.runs import read_run

HEAD, GAMMA = 250, 50.0


@dataclass(frozen=True)
class OwnImages:
    """Run what is missing and print all."""

    seeds: tuple[int, ...] = (0, 1, 2)
    commands: tuple[str, ...] = ("", "--method supervised", "--method supervised --steps 4000")
    """Options added to the bare command, each with a leading blank: " --steps 100"."""
    data: Path | None = None
    """Folder of Fashion-MNIST's files."""
    out: Path = Path("runs/own-images")
    """Folder of image folders and runs."""
    results: Path = Path("results/own-images.csv")


def write_folders(source: Source, folder: Path, seed: int) -> None:
    """Write a data set as image folders, unless they exist."""
    if (folder / "done").exists():
        return
    counts = longtail_counts(HEAD, GAMMA, len(source.class_names))
    random = np.random.default_rng(seed)
    for k, name in enumerate(source.class_names):
        members = random.permutation(np.flatnonzero(source.train.labels == k))
        _write(
            source.train.images, members[: counts[k]], folder / "labeled" / name.replace("/", "-")
        )
        _write(source.train.images, members[counts[k] :], folder / "unlabeled")
        assert source.test is not None
        tested = np.flatnonzero(source.test.labels == k)
        _write(source.test.images, tested, folder / "test" / name.replace("/", "-"))
    (folder / "done").touch()


def _write(images: Decoded, indices: npt.NDArray[np.int64], where: Path) -> None:
    where.mkdir(parents=True, exist_ok=True)
    for index in indices:
        pixels = images[index].transpose(1, 2, 0).squeeze()  # gray images lose their channel
        Image.fromarray(pixels).save(where / f"{index:05d}.png", compress_level=1)


def main(options: OwnImages) -> None:
    source = open_source("fashion-mnist", data=options.data)
    for seed in options.seeds:
        folder = options.out / f"fashion-{seed}"
        write_folders(source, folder, seed)
        for added in map(str.strip, options.commands):
            key = {"setting": "fashion-folders", "added": added, "seed": str(seed)}
            if has_row(options.results, key):
                continue
            run = options.out / "-".join([f"run-{seed}", *added.replace("--", "").split()])
            start = time.monotonic()
            words = ["train", str(folder), "--out", str(run), "--seed", str(seed), *added.split()]
            if run.exists():
                words = ["resume", str(run)]
            subprocess.run(daso_command(*words), check=True)
            row = {**key, "wall_minutes": f"{(time.monotonic() - start) / 60:.1f}"}
            append_row(options.results, {**row, **result_row(read_run(run))})


if __name__ == "__main__":
    main(tyro.cli(OwnImages))
