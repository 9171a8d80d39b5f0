"""Data sets of the hub through the package datasets: here from a folder in the hub's layout, and without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import test_parquet
from PIL import Image

from daso.data.images.cache import Cache
from daso.data.open import open_source
from daso.errors import DataError, MissingDependencyError, OptionError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_a_data_set_of_parquet_files(tmp_path: Path) -> None:
    data = tmp_path / "birds" / "data"
    test_parquet.write(
        data / "train-00000-of-00001.parquet", test_parquet.values(7), [0, 1, 2, -1, 0, 1, None]
    )
    test_parquet.write(data / "test-00000-of-00001.parquet", test_parquet.values(3, 20), [2, 1, 0])
    source = open_source(f"hf:{tmp_path / 'birds'}")
    assert (source.name, source.class_names) == ("birds", ("cat", "dog", "emu"))
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 5]
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1]
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [3, 6]
    assert source.test is not None
    assert source.test.labels.tolist() == [2, 1, 0]
    with pytest.raises(OptionError, match="is complete"):
        open_source(f"hf:{tmp_path / 'birds'}", data=tmp_path)


def test_a_class_without_an_image_is_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "birds" / "data" / "train-00000-of-00001.parquet"
    test_parquet.write(file, test_parquet.values(3), [2, 0, 2])
    source = open_source(f"hf:{tmp_path / 'birds'}")
    assert source.class_names == ("cat", "emu")
    assert source.train.labels.tolist() == [1, 0, 1]
    assert any("1 class without an image, left out: 'dog'" in note for note in source.notes)


def test_a_data_set_of_image_files(tmp_path: Path) -> None:
    for value, name in enumerate(("train/cat", "train/dog", "test/cat")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(tmp_path / "birds" / name / "0.png")
    source = open_source(f"hf:{tmp_path / 'birds'}")
    assert source.class_names == ("cat", "dog")
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1]
    assert source.test is not None
    assert source.test.images[:, 0, 0, 0].tolist() == [2]


def test_a_cache_knows_the_images_of_one_data_set_from_those_of_another(tmp_path: Path) -> None:
    def read(name: str) -> list[int]:
        source = open_source(f"hf:{tmp_path / name}", cache=Cache(tmp_path / "decoded"))
        return np.asarray(source.train.images)[:, 0, 0, 0].tolist()

    for name, first in (("one", 10), ("two", 20)):
        table = tmp_path / "bytes" / name / "train.parquet"
        test_parquet.write(table, test_parquet.values(3, first), [0, 1, 2])
        assert read(f"bytes/{name}") == [first, first + 1, first + 2]
        folder = tmp_path / "files" / name
        for value, label in ((first, "cat"), (first + 5, "dog")):
            (folder / "train" / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), (value, 0, 0)).save(folder / "train" / label / "0.png")
        assert read(f"files/{name}") == [first, first + 5]
    Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / "train" / "cat" / "0.png")
    assert read("files/two") == [99, 25]
    done = sorted((tmp_path / "decoded").iterdir())
    assert read("files/two") == [99, 25]
    assert sorted((tmp_path / "decoded").iterdir()) == done


def test_without_download_no_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", connect)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(DataError, match=r"hf:nobody/nothing cannot be loaded: .*--download"):
        open_source("hf:nobody/nothing")
    assert before == datasets.config.HF_HUB_OFFLINE


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'daso\[hf\]'"):
        open_source("hf:nobody/nothing")
