"""Photographs of solar cells as folders, from the package ``elpv-dataset``.

Buerhop-Lutz et al.: *A Benchmark for Visual Identification of Defective Solar Cells in
Electroluminescence Imagery*, 2018: 2,624 gray photographs of 300 pixels with the probability of a
defect in thirds. ``pip install --no-deps elpv-dataset``, about 100 MB.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

CLASSES = ("0-sound", "1-perhaps", "2-likely", "3-defective")
LABELS = (200, 40, 12, 40)
"""Labels of each class, of which there are 1,508, 295, 106 and 715 photographs."""
TESTED = 0.3
"""Share of each class that is for the test."""


def load_cells() -> tuple[Array, Array, Array]:
    """Return the photographs, uint8 (N, 300, 300), their classes, and ``"mono"`` or ``"poly"``."""
    from elpv_dataset.utils import load_dataset

    photos, chances, kinds = load_dataset()
    return photos, np.round(chances * 3).astype(np.int64), kinds


def test_and_pool(truth: Array) -> list[tuple[Array, Array]]:
    """Return, for each class, the rows for the test, the same for every seed, and the others."""
    random = np.random.default_rng(0)
    parts = []
    for k in range(len(CLASSES)):
        rows = random.permutation(np.flatnonzero(truth == k))
        test = round(TESTED * len(rows))
        parts.append((rows[:test], rows[test:]))
    return parts


def write_elpv(folder: Path, seed: int) -> Path:
    """Write ``labeled/CLASS``, ``unlabeled`` and ``test/CLASS`` into *folder* unless it exists."""
    if folder.exists():
        return folder
    photos, truth, _ = load_cells()
    drawn = np.random.default_rng(seed)
    places = np.full(len(truth), "unlabeled", dtype=object)
    for name, labels, (test, pool) in zip(CLASSES, LABELS, test_and_pool(truth), strict=True):
        places[test] = f"test/{name}"
        places[drawn.permutation(pool)[:labels]] = f"labeled/{name}"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for number, (photo, place) in enumerate(zip(photos, places, strict=True)):
        path = unfinished / place / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path, compress_level=1)
    unfinished.rename(folder)
    return folder
