from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from daso.data.benchmarks.stl10 import CLASSES, IMAGE_BYTES, read_stl10
from daso.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of 10, 10 and 7 images, whose pixel at row r, column c, channel k is r + 100 k, plus c // 2."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    rows, columns = np.mgrid[:96, :96]
    image = np.stack([rows + 50 * channel + columns // 2 for channel in range(3)]).astype(np.uint8)
    by_columns = image.transpose(0, 2, 1).tobytes()
    for part, count in (("train", 10), ("test", 10), ("unlabeled", 7)):
        (folder / f"{part}_X.bin").write_bytes(by_columns * count)
        (folder / f"{part}_y.bin").write_bytes(bytes(range(1, 11)))
    (folder / "unlabeled_y.bin").unlink()
    return folder


def test_images_stand_upright_and_labels_begin_at_0(folder: Path) -> None:
    for path in (folder, folder.parent):
        source = read_stl10(path)
        assert source.train.images.shape == (10, 3, 96, 96)
        assert source.train.images[4, 2, 30, 10] == 30 + 100 + 5
        assert source.train.labels.tolist() == list(range(10))
        assert source.unlabeled is not None
        assert len(source.unlabeled) == 7
        assert set(source.unlabeled.labels.tolist()) == {-1}
        assert source.class_names == CLASSES
    assert not source.unlabeled.images.flags.writeable


def test_class_names_file(folder: Path) -> None:
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    assert read_stl10(folder).class_names == tuple("abcdefghij")
    (folder / "class_names.txt").write_text("a b c")
    with pytest.raises(DataError, match="10 different classes"):
        read_stl10(folder)


def test_wrong_files(folder: Path) -> None:
    labels = folder / "train_y.bin"
    labels.write_bytes(bytes(range(1, 10)))
    with pytest.raises(DataError, match=r"9 labels, but train_X\.bin .*10 images"):
        read_stl10(folder)
    labels.write_bytes(bytes(range(10)))
    with pytest.raises(DataError, match="label 0 at index 0"):
        read_stl10(folder)
    labels.unlink()
    with pytest.raises(DataError, match=r"missing train_y\.bin"):
        read_stl10(folder)


def test_a_length_that_is_no_whole_number_of_images(folder: Path) -> None:
    for size in (0, IMAGE_BYTES - 1):
        (folder / "unlabeled_X.bin").write_bytes(bytes(size))
        with pytest.raises(DataError, match="not a whole number of images"):
            read_stl10(folder)
