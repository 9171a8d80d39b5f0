"""Names and paths lead to the right reader, and to an error that helps where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import test_cifar
import test_idx
import test_parquet
from PIL import Image

from daso.data import open as opening
from daso.data.benchmarks.cifar import CIFAR10, CIFAR100
from daso.data.open import open_source
from daso.data.places import NAMES
from daso.errors import DataError, OptionError


@pytest.fixture(autouse=True)
def _empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for files below a fresh folder only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(opening.USUAL_PLACES, "fashion-mnist", (tmp_path / "debian",))


def test_digits() -> None:
    assert open_source("digits").name == "digits"
    with pytest.raises(OptionError, match="come with scikit-learn"):
        open_source("digits", data=Path())


def test_a_name_is_looked_for_in_all_places(tmp_path: Path) -> None:
    for place in ("data/fashion-mnist", "debian", "cache/daso/fashion-mnist"):
        test_idx.write(tmp_path / place)
        for data in (None, tmp_path / place):
            source = open_source("fashion-mnist", data=data)
            assert (source.name, source.place) == ("fashion-mnist", str(tmp_path / place))
        shutil.rmtree(tmp_path / place)
    with pytest.raises(DataError, match="no such folder"):
        open_source("fashion-mnist", data=tmp_path / "elsewhere")
    for place in ("data", "data/cifar10", "cache/daso/cifar10"):
        test_cifar.write(tmp_path / place, CIFAR10)
        assert open_source("cifar10").name == "cifar10"
        shutil.rmtree(tmp_path / place)


def test_cifar_by_name_from_parquet_has_the_published_normalization(tmp_path: Path) -> None:
    names = list(CIFAR10.class_names)
    test_parquet.write(
        tmp_path / "train.parquet", test_parquet.values(10), list(range(10)), names=names
    )
    source = open_source("cifar10", data=tmp_path)
    assert (source.name, source.mean) == ("cifar10", CIFAR10.mean)
    assert open_source(str(tmp_path)).mean is None
    with pytest.raises(DataError, match="10 classes, cifar100 has 100"):
        open_source("cifar100", data=tmp_path)


def test_missing_files_say_which_where_and_how(tmp_path: Path) -> None:
    for name in NAMES[1:]:
        (tmp_path / "data" / name).mkdir(parents=True)
        with pytest.raises(DataError) as caught:
            open_source(name)
        cache = str(tmp_path / "cache" / "daso" / name)
        for words in (f"data/{name}: missing ", cache, "https://", "--download"):
            assert words in str(caught.value)


def test_download_goes_where_data_says_and_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pretend(name: str, folder: Path | None, progress: object) -> Path:
        assert name == "cifar100"
        return test_cifar.write(folder or tmp_path / "cache", CIFAR100)

    monkeypatch.setattr(opening, "download", pretend)
    assert len(open_source("cifar100", download=True, data=tmp_path / "here").class_names) == 100
    assert (tmp_path / "here" / "cifar-100-python" / "train").is_file()
    open_source("cifar100", download=True)


def test_paths_are_recognised_by_what_they_hold(tmp_path: Path) -> None:
    test_cifar.write(tmp_path / "ten", CIFAR10)
    folder = test_cifar.write(tmp_path / "hundred", CIFAR100)
    archive = test_cifar.pack(folder, tmp_path / "archive.tar.gz")
    test_idx.write(tmp_path / "kana")
    test_idx.write(tmp_path / "my-fashion")
    test_idx.write(tmp_path / "FashionMNIST")
    test_parquet.write(
        tmp_path / "hub" / "data" / "train.parquet", test_parquet.values(3), [0, 1, 2]
    )
    np.savez(
        tmp_path / "some.npz", images=np.arange(128, dtype=np.uint8).reshape(2, 8, 8), labels=[0, 1]
    )
    for value, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / "labeled" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(
            tmp_path / "pictures" / "labeled" / name / "0.png"
        )
    found = {
        "ten": "cifar10",
        "hundred": "cifar100",
        str(folder): "cifar100",
        str(archive): "cifar100",
        "kana": "kana",
        "my-fashion": "my-fashion",
        "FashionMNIST": "fashion-mnist",
        "hub": "hub",
        "some.npz": "some",
        "pictures": "pictures",
    }
    assert {path: open_source(path).name for path in found} == found
    assert open_source("pictures", size=4).train.images.shape[2:] == (4, 4)
    assert open_source("some.npz", size=8).name == "some"
    with pytest.raises(OptionError, match="images are 8 x 8"):
        open_source("some.npz", size=4)
    with pytest.raises(OptionError, match=r"data \(--data\) applies to"):
        open_source("pictures", data=tmp_path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'cifar10'"):
        open_source("cifar-10")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no known layout.*holds nothing"):
        open_source("empty")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"use \.npz"):
        open_source("notes.txt")
