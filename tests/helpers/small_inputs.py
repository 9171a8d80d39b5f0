"""Tables of a few images, and what is read of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_files import write_image

from daso.data.open import open_source

ROWS = ["cat", "dog", "cat", "dog"]


def table(folder: Path, labels: list[str], header: str = "path,label") -> str:
    """Return a CSV of images, which are written too."""
    for number in range(len(labels)):
        write_image(folder / f"{number}.png", number)
    return "\n".join([header, *(f"{n}.png,{label}" for n, label in enumerate(labels))]) + "\n"


def read(source: Path) -> tuple[tuple[str, ...], list[int], str]:
    """Return classes, images of each, and notes."""
    opened = open_source(str(source))
    counts = np.bincount(opened.train.labels, minlength=len(opened.class_names))
    return opened.class_names, counts.tolist(), "\n".join(opened.notes)
