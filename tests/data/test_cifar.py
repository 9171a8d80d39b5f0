from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from daso.data.benchmarks.cifar import CIFAR10, CIFAR100, CifarLayout, archive_layout, read_cifar
from daso.errors import DataError

PER_FILE = 20


def batch(layout: CifarLayout, seed: int, count: int = PER_FILE) -> dict[bytes, object]:
    generator = np.random.default_rng(seed)
    labels = [int(label) for label in generator.integers(0, len(layout.class_names), count)]
    data = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {b"data": data, layout.label_key.encode(): labels, b"filenames": [b"x.png"] * count}


def write(parent: Path, layout: CifarLayout, *, meta: bool = True) -> Path:
    folder = parent / layout.folder
    folder.mkdir(parents=True)
    for seed, name in enumerate(layout.batches):
        (folder / name).write_bytes(pickle.dumps(batch(layout, seed), 2))
    if meta:
        names = [f"name{label}".encode() for label in range(len(layout.class_names))]
        (folder / layout.meta).write_bytes(pickle.dumps({layout.names_key.encode(): names}, 2))
    return folder


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, folder.name)
    return archive


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.name)
def test_folder_parent_and_archive_give_the_same(tmp_path: Path, layout: CifarLayout) -> None:
    folder = write(tmp_path, layout)
    archive = pack(folder, tmp_path / "any.tar.gz")
    assert archive_layout(archive) is layout
    for path in (folder, tmp_path, archive):
        source = read_cifar(path, layout)
        assert source.name == layout.name
        assert source.class_names[3] == "name3"
        assert source.train.images.shape == (PER_FILE * len(layout.train), 3, 32, 32)
        assert (source.mean, source.std) == (layout.mean, layout.std)
        assert source.test is not None
        last = batch(layout, len(layout.train))
        assert np.array_equal(source.test.images.reshape(PER_FILE, -1), last[b"data"])
        assert source.test.labels.tolist() == last[layout.label_key.encode()]


def test_class_names_without_the_meta_file(tmp_path: Path) -> None:
    assert read_cifar(write(tmp_path, CIFAR10, meta=False), CIFAR10).class_names[0] == "airplane"


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, CIFAR10)
    (folder / "data_batch_4").unlink()
    with pytest.raises(DataError, match="missing data_batch_4"):
        read_cifar(tmp_path, CIFAR10)
    with pytest.raises(DataError, match="missing cifar-10-batches-py/data_batch_4"):
        read_cifar(pack(folder, tmp_path / "cut.tar.gz"), CIFAR10)
    with pytest.raises(DataError, match="no such"):
        read_cifar(tmp_path / "nowhere", CIFAR10)


def test_malicious_batches_are_refused_in_folder_and_archive(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {witness}",)

    folder = write(tmp_path, CIFAR10)
    (folder / "data_batch_2").write_bytes(pickle.dumps({b"data": Payload()}, 2))
    for path in (folder, pack(folder, tmp_path / "bad.tar.gz")):
        with pytest.raises(DataError, match=r"data_batch_2: refused.*system"):
            read_cifar(path, CIFAR10)
    assert not witness.exists()


def test_wrong_batches(tmp_path: Path) -> None:
    folder = write(tmp_path, CIFAR10)
    changes: list[tuple[dict[bytes, object], str]] = [
        ({b"data": np.zeros((20, 3071), dtype=np.uint8)}, r"found uint8 \(20, 3071\)"),
        ({b"data": np.zeros((20, 3072))}, "found float64"),
        ({b"data": [1]}, "found list"),
        ({b"labels": [0] * 19}, "20 images, but 19 labels"),
        ({b"labels": [0] * 19 + [10]}, "label 10 at index 19"),
        ({b"labels": [0] * 19 + ["cat"]}, "list of integers"),
        ({b"labels": bytes(20)}, "list of integers"),
        ({b"labels": [True] * 20}, "list of integers"),
        ({b"data": np.array([None] * 20)}, r"test_batch: arrays of type 'O8' are refused"),
        ({b"labels": [0] * 19 + [2**70]}, "integer beyond 64 bits"),
    ]
    for change, message in changes:
        (folder / "test_batch").write_bytes(pickle.dumps({**batch(CIFAR10, 0), **change}, 2))
        with pytest.raises(DataError, match=message):
            read_cifar(folder, CIFAR10)


def test_coarse_labels_are_not_taken_for_fine_ones(tmp_path: Path) -> None:
    folder = write(tmp_path, CIFAR100)
    values = batch(CIFAR100, 0)
    values[b"coarse_labels"] = values.pop(b"fine_labels")
    (folder / "train").write_bytes(pickle.dumps(values, 2))
    with pytest.raises(DataError, match="no 'fine_labels' in it"):
        read_cifar(folder, CIFAR100)


def test_damaged_and_hostile_archives(tmp_path: Path) -> None:
    whole = pack(write(tmp_path, CIFAR10), tmp_path / "whole.tar.gz").read_bytes()
    path = tmp_path / "cut.tar.gz"
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cut\.tar\.gz"):
            read_cifar(path, CIFAR10)
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo(f"{CIFAR10.folder}/test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="not a regular file"):
        read_cifar(path, CIFAR10)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other/file"), io.BytesIO())
    with pytest.raises(DataError, match="begins with 'other'"):
        archive_layout(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(write(tmp_path, CIFAR10), tmp_path / "whole.tar.gz")
    monkeypatch.setattr("daso.data.benchmarks.cifar.LARGEST", 100_000)
    with pytest.raises(DataError, match="unpacks to over 100,000 bytes"):
        read_cifar(path, CIFAR10)
    monkeypatch.setattr("daso.data.benchmarks.cifar.LARGEST", 10)
    with pytest.raises(DataError, match="larger than"):
        read_cifar(tmp_path, CIFAR10)
