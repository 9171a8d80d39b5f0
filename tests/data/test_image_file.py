"""Images in a file are indexed as an array of them is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from daso.data.images import image_file
from daso.data.images.image_file import ImageFile
from daso.errors import DataError

COUNT = 23


@pytest.fixture
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, 4, 5), dtype=np.uint8)


@pytest.fixture
def file(images: npt.NDArray[np.uint8], tmp_path: Path) -> ImageFile:
    path = tmp_path / "images.u8"
    path.write_bytes(images.tobytes())
    digests = np.random.default_rng(1).integers(0, 256, (COUNT, 16), dtype=np.uint8)
    return ImageFile(path, (COUNT, 3, 4, 5), digests)


def test_indexing_is_numpys(
    images: npt.NDArray[np.uint8], file: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for read_bytes in (1, 200, 2**24):
        monkeypatch.setattr(image_file, "READ_BYTES", read_bytes)
        for index in (
            slice(None),
            slice(3, 9),
            slice(20, 2, -3),
            slice(9, 3),
            [4, 5, 6, 2, 2, 22, 0, -1],
            np.array([], dtype=np.int64),
            np.arange(COUNT) % 3 == 0,
            7,
            np.int64(-2),
        ):
            assert file[index].dtype == np.uint8
            assert np.array_equal(file[index], images[index]), (read_bytes, index)  # type: ignore[index]


def test_a_selection_reads_nothing_and_can_be_selected_from(
    images: npt.NDArray[np.uint8], file: ImageFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, mask = np.array([20, 3, 3, 8, 11]), np.array([True, False, True, True, False])
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "_read", None)
        chosen = file.select(first).select(mask)
    assert chosen.shape == (3, 3, 4, 5)
    assert chosen.nbytes == 3 * 60
    assert np.array_equal(chosen[:], images[first][mask])
    assert np.array_equal(np.asarray(chosen), images[first][mask])
    assert np.array_equal(list(chosen), images[first][mask])
    assert np.array_equal(chosen.digests, file.digests[first][mask])


def test_an_index_out_of_range_is_refused(file: ImageFile) -> None:
    for index in (COUNT, -COUNT - 1, [0, COUNT], np.ones(COUNT - 1, dtype=bool)):
        with pytest.raises(IndexError):
            file[index]


def test_a_file_of_another_size_is_refused(file: ImageFile) -> None:
    with pytest.raises(DataError, match=r"1,380 bytes.*1,440"):
        ImageFile(file.path, (24, 3, 4, 5), file.digests)
    with pytest.raises(DataError, match="No such file"):
        ImageFile(file.path.with_name("nothing"), (24, 3, 4, 5), file.digests)


def test_a_file_that_is_cut_short_meanwhile_is_an_error(file: ImageFile) -> None:
    assert len(file[20:]) == 3
    with file.path.open("r+b") as opened:
        opened.truncate(1300)
    assert len(file[:20]) == 20
    with pytest.raises(DataError, match="truncated"):
        file[20:]
