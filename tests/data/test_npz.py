from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from daso.data.formats.npz import read_npz
from daso.errors import DataError

LABELS = np.arange(6) % 3
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.npz"


def test_own_layout(path: Path) -> None:
    np.savez(
        path,
        images=IMAGES,
        labels=LABELS,
        unlabeled_images=IMAGES[:2],
        test_images=IMAGES,
        test_labels=LABELS,
        class_names=["a", "b", "c"],
    )
    source = read_npz(path)
    assert source.name == "small"
    assert source.class_names == ("a", "b", "c")
    assert source.unlabeled is not None
    assert len(source.unlabeled) == 2
    assert source.test is not None
    assert np.array_equal(source.test.images[:, 0], IMAGES)


def test_other_names_of_the_keys(path: Path) -> None:
    for key in ("x", "X", "images", "x_train"):
        np.savez_compressed(path, **{key: IMAGES, "y": LABELS})
        assert len(read_npz(path).train) == 6


def test_medmnist(path: Path) -> None:
    parts = {f"{part}_images": IMAGES for part in ("train", "val", "test")}
    labels = {
        f"{part}_labels": LABELS[:, None].astype(np.uint8) for part in ("train", "val", "test")
    }
    np.savez(path, **parts, **labels)
    source = read_npz(path)
    assert source.validation is not None
    assert source.validation.labels.tolist() == LABELS.tolist()
    np.savez(path, **parts, **{key: np.repeat(value, 14, axis=1) for key, value in labels.items()})
    with pytest.raises(DataError, match=r"small\.npz: labels has 14 columns; .*several labels"):
        read_npz(path)


def test_numbers_may_begin_with_1(path: Path) -> None:
    parts = {f"{part}_images": IMAGES for part in ("train", "val", "test")}
    labels = {f"{part}_labels": LABELS[:, None] + 1 for part in ("train", "val", "test")}
    np.savez(path, **parts, **labels)
    source = read_npz(path)
    names = tuple(str(label) for label in sorted(set((LABELS + 1).tolist())))
    assert source.class_names == names
    assert source.train.labels.tolist() == LABELS.tolist()
    assert source.test is not None
    assert source.test.labels.tolist() == LABELS.tolist()
    labels["test_labels"] = LABELS[:, None]
    np.savez(path, **parts, **labels)
    with pytest.raises(DataError, match="no labeled image of class '0'"):
        read_npz(path)


def test_wrong_keys(path: Path) -> None:
    np.savez(path, pictures=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match=r"no 'images' or .* pictures, labels"):
        read_npz(path)
    np.savez(path, images=IMAGES, X=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match="both 'images' and 'X'"):
        read_npz(path)
    np.savez(path, images=IMAGES, labels=LABELS, test_image=IMAGES)
    with pytest.raises(DataError, match=r"unknown key 'test_image'.* Did you mean 'test_images'\?"):
        read_npz(path)


def test_pickled_objects_are_not_loaded(path: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {witness}",)

    np.savez(path, images=IMAGES, labels=np.array([Payload()] * 6, dtype=object))
    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        read_npz(path)
    assert not witness.exists()


def test_damaged_files(path: Path) -> None:
    np.savez(path, images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[:200], whole[:300] + b"\xff" * 50 + whole[350:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"small\.npz"):
            read_npz(path)
    with pytest.raises(DataError, match="not a readable"):
        read_npz(path.with_name("nowhere.npz"))


def test_a_header_that_promises_more_than_there_is(path: Path) -> None:
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**3, 10**3)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", stream.getvalue())
    with pytest.raises(DataError, match="promises"):
        read_npz(path)
