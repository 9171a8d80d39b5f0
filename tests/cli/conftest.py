"""Images to predict."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from prediction import COUNT

from daso.data.source import Source


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, digits: Source) -> Path:
    """Return a folder with digits as PNG files, some of them a folder deeper."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "more").mkdir()
    for number, pixels in enumerate(digits.train.images[:COUNT, 0]):
        Image.fromarray(pixels).save(
            folder / ("more" if number % 4 == 0 else ".") / f"{number:03d}.png"
        )
    return folder
