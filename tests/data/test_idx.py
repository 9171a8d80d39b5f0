from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from daso.data.benchmarks.idx import FILES, read_fashion_mnist, read_idx, read_idx_file
from daso.errors import DataError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, *, packed: bool = True, count: int = 20) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.arange(count * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(count, 28, 28)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in zip(FILES, (images, labels, images[:10], labels[:10]), strict=True):
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(
            gzip.compress(content) if packed else content
        )
    return folder


def test_reads_both_parts(tmp_path: Path) -> None:
    for packed in (True, False):
        source = read_fashion_mnist(write(tmp_path / str(packed) / "raw", packed=packed).parent)
        assert source.name == "fashion-mnist"
        assert source.class_names[9] == "Ankle boot"
        assert source.flip
        assert source.train.images.shape == (20, 1, 28, 28)
        assert source.train.images[1, 0, 0, 0] == 784 % 256
        assert source.test is not None
        assert source.test.labels.tolist() == list(range(10))


def test_any_other_data_set_counts_its_classes_and_is_not_flipped(tmp_path: Path) -> None:
    source = read_idx(write(tmp_path / "kana"))
    assert (source.name, len(source.class_names), source.flip) == ("kana", 10, False)


def test_numbers_may_begin_with_1(tmp_path: Path) -> None:
    folder = write(tmp_path / "letters", packed=False)
    for name, count in ((FILES[1], 20), (FILES[3], 10)):
        (folder / name).write_bytes(idx((np.arange(count) % 10 + 1).astype(np.uint8)))
    source = read_idx(folder)
    assert source.class_names == tuple(map(str, range(1, 11)))
    assert source.train.labels.tolist() == [*range(10), *range(10)]
    assert source.test is not None
    assert source.test.labels.tolist() == list(range(10))


def test_a_class_of_test_images_alone_is_refused(tmp_path: Path) -> None:
    labels = np.arange(20, dtype=np.uint8) % 10
    (write(tmp_path, packed=False) / FILES[1]).write_bytes(idx(labels % 9))
    with pytest.raises(DataError, match="no labeled image of class '9'"):
        read_idx(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"missing t10k-labels-idx1-ubyte$"):
        read_fashion_mnist(tmp_path)


def headed(*numbers: int, content: bytes = b"") -> bytes:
    return struct.pack(f">BBBB{len(numbers)}I", 0, 0, 8, len(numbers), *numbers) + content


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content, message in (
        (b"", "begins with nothing"),
        (b"GIF89a and so on", "begins with 47494638"),
        (headed(5, content=b"01234"), "begins with 00000801"),
        (headed(2, 2, 2)[:9], "within its header"),
        (headed(2, 2, 2, content=b"1234567"), "promises 8 bytes .* has 7"),
        (headed(2, 2, 2, content=b"123456789"), "has more"),
        (headed(2**32 - 1, 2**32 - 1, 2**32 - 1), "the limit is"),
        (headed(2**10, 2**10, 2**10), "has 0"),
    ):
        for written in (content, gzip.compress(content)):
            path.write_bytes(written)
            with pytest.raises(DataError, match=message):
                read_idx_file(path, 3)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 255, (9, 9, 9), dtype=np.uint8)))
    for content in (
        whole[:100],
        whole[:60] + b"\xff\xff\xff\xff" + whole[64:],
        whole[:-8] + bytes(8),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_idx_file(path, 3)


def test_labels_must_fit_the_images_and_the_classes(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(19, dtype=np.uint8))))
    with pytest.raises(DataError, match=r"20 images .*, .* 19 labels"):
        read_fashion_mnist(tmp_path)
    path.write_bytes(gzip.compress(idx(np.full(20, 10, dtype=np.uint8))))
    with pytest.raises(DataError, match="train label 10 at index 0"):
        read_fashion_mnist(tmp_path)
