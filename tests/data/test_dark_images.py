"""Files that are no images, and images that show next to nothing, are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_files import pixels
from PIL import Image

from daso.data.check.report import check_data
from daso.data.images.decode import decode
from daso.data.open import open_source
from daso.errors import DataError

LABELS = ["cat", "dog", "cat", "dog"]


def test_what_lies_in_the_place_of_an_image_is_named() -> None:
    for content, told in (
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"\n<!DOCTYPE html><title>404</title>", "web page"),
        (b"neither", "not a readable image"),
    ):
        with pytest.raises(DataError, match=told):
            decode(content)


def deep(folder: Path, bits: int) -> None:
    for number, label in enumerate(LABELS):
        image = pixels(number)[:, :, 0].astype(np.int64) * (2**bits - 1) // 255
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint16)).save(folder / label / f"{number}.png")


def masks(folder: Path, values: int) -> None:
    for number, label in enumerate(LABELS):
        (folder / label).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels(number)[:, :, 0] % values).astype(np.uint8))
        image.save(folder / label / f"{number}.png")


def test_images_that_fill_a_part_of_their_range_are_told(tmp_path: Path) -> None:
    for write, value, is_dark in (
        *((deep, 12, True), (deep, 14, True), (deep, 16, False)),
        *((masks, 4, True), (masks, 200, False)),
    ):
        folder = tmp_path / f"{write.__name__}-{value}"
        write(folder, value)
        notes = open_source(str(folder)).notes
        codes = [finding.code for finding in check_data(str(folder)).findings]
        assert any("labeled images are nearly black" in note for note in notes) == is_dark
        assert ("dark" in codes) == is_dark
