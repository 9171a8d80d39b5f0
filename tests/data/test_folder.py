"""Image folders: layouts, sizes and order."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from photo_folders import first_values, picture, read_folder, write_photos
from PIL import Image

from daso.data.images import encoded
from daso.data.images.cache import Cache
from daso.data.open import open_source
from daso.errors import DataError, OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photos(tmp_path)


def test_all_parts_in_the_order_of_their_paths(folder: Path) -> None:
    source = read_folder(folder)
    assert source.class_names == ("cat", "dog")
    assert source.name == folder.name
    assert source.train.images.shape == (6, 3, 8, 8)
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert first_values(source, "train") == [0, 1, 2, 10, 11, 12]
    assert source.train.paths[3] == str(folder / "labeled" / "dog" / "0.png")
    assert first_values(source, "unlabeled") == [100, 101, 102]
    assert source.unlabeled is not None
    assert source.unlabeled.labels.tolist() == [-1, -1, -1]
    assert source.validation is not None
    assert source.validation.labels.tolist() == [1]
    assert source.test is not None
    assert source.test.labels.tolist() == [0]
    assert source.skipped == ()


def test_train_may_stand_for_labeled_but_not_beside_it(folder: Path) -> None:
    (folder / "labeled").rename(folder / "train")
    assert len(read_folder(folder).train) == 6
    picture(folder / "labeled" / "cat" / "0.png")
    with pytest.raises(DataError, match="both 'labeled' and 'train'"):
        read_folder(folder)


def test_hidden_and_other_files_are_passed_over(folder: Path) -> None:
    (folder / "labeled" / "cat" / "notes.txt").write_text("x")
    (folder / "labeled" / "cat" / ".hidden.png").write_bytes(b"x")
    (folder / "labeled" / ".cache").mkdir()
    (folder / "labeled" / "list.csv").write_text("x")
    os.mkfifo(folder / "unlabeled" / "pipe.png")
    source = read_folder(folder)
    assert len(source.train) == 6
    notes = " ".join(source.notes)
    assert "1 .txt file" in notes
    assert "notes.txt" in notes
    assert "1 hidden file," in notes
    assert "1 hidden folder," in notes


def test_photos_are_known_by_their_content(folder: Path) -> None:
    place = folder / "labeled" / "cat"
    for name, kind in (
        ("a.jfif", "JPEG"),
        ("b.JPE", "JPEG"),
        ("c.avif", "AVIF"),
        ("d.heic", "PNG"),
    ):
        with (place / name).open("wb") as file:
            Image.new("RGB", (8, 8), (9, ord(name[0]), 0)).save(file, kind)
    (place / "e.dng").write_bytes(b"II*\0")
    source = read_folder(folder)
    assert len(source.train) == 10
    assert any("1 .dng file" in note for note in source.notes)
    (place / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(300))
    with pytest.raises(DataError, match=r"photo\.HEIC"):
        read_folder(folder)


def test_class_names_that_are_not_utf_8_are_escaped(folder: Path) -> None:
    name = os.fsdecode(b"h\xf6nd")
    (folder / "labeled" / "dog").rename(folder / "labeled" / name)
    (folder / "val" / "dog").rename(folder / "val" / name)
    source = read_folder(folder)
    assert source.class_names == ("cat", r"h\xf6nd")
    assert source.validation is not None
    assert source.validation.labels.tolist() == [1]


def test_a_name_in_another_unicode_form_is_the_same_class(folder: Path) -> None:
    (folder / "labeled" / "dog").rename(folder / "labeled" / "caf\u00e9")
    (folder / "val" / "dog").rename(folder / "val" / "cafe\u0301")
    source = read_folder(folder)
    assert source.class_names == ("caf\u00e9", "cat")
    assert source.validation is not None
    assert source.validation.labels.tolist() == [0]


def test_linked_folders_are_followed_and_loops_end(folder: Path) -> None:
    (folder / "unlabeled" / "loop").symlink_to(folder / "unlabeled")
    (folder / "unlabeled" / "more").symlink_to(folder / "labeled" / "dog")
    assert sorted(first_values(read_folder(folder), "unlabeled")) == [10, 11, 12, 100, 101, 102]


def test_gray_only_if_all_are_gray(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    grey = tmp_path_factory.mktemp("grey")
    for value, name in enumerate(("a", "b")):
        picture(grey / "labeled" / name / "0.png", value, mode="L")
    assert read_folder(grey).train.images.shape == (2, 1, 8, 8)
    picture(grey / "unlabeled" / "0.png", 7)
    assert read_folder(grey).train.images.shape == (2, 3, 8, 8)


def test_chosen_size(tmp_path: Path) -> None:
    for sizes, expected in (
        ([(40, 30), (40, 30), (40, 30)], (30, 40)),
        ([(200, 130), (200, 130), (200, 130)], (128, 128)),
        ([(40, 30), (90, 50), (70, 65)], (48, 48)),
        ([(400, 300), (500, 600), (700, 800)], (224, 224)),
        ([(3, 3), (4, 4), (5, 5)], (8, 8)),
    ):
        for index, size in enumerate(sizes):
            picture(tmp_path / "labeled" / "ab"[index % 2] / f"{index}.png", 0, size)
        assert read_folder(tmp_path).train.images.shape[2:] == expected


def test_small_images_of_one_size_are_opened_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    plain = Image.open
    monkeypatch.setattr(
        Image, "open", lambda path, **how: (opened.append(path), plain(path, **how))[1]
    )
    bad = folder / "unlabeled" / "bad.png"
    bad.touch()
    source = read_folder(folder, skip_bad=True)
    assert len(opened) == 13  # the first twice: it tells the size
    assert [name for name, _ in source.skipped] == [str(bad)]
    picture(folder / "unlabeled" / "wide.png", 103, (24, 16))
    mixed = read_folder(folder, skip_bad=True)
    assert mixed.skipped == source.skipped
    assert first_values(mixed, "train") == first_values(source, "train")
    assert first_values(mixed, "unlabeled") == [*first_values(source, "unlabeled"), 103]


def test_given_size_makes_squares(folder: Path) -> None:
    assert read_folder(folder, size=5).train.images.shape == (6, 3, 5, 5)
    with pytest.raises(OptionError, match="at least 1"):
        read_folder(folder, size=0)


@pytest.mark.parametrize("waits", [False, True], ids=["alone", "threads"])
def test_many_small_images_decode_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    for index in range(600):
        picture(tmp_path / "labeled" / "ab"[index % 2] / f"{index:03}.png", index % 251)
    began: list[int] = []
    executor = encoded.ThreadPoolExecutor
    monkeypatch.setattr(encoded, "ThreadPoolExecutor", lambda n: (began.append(n), executor(n))[1])
    monkeypatch.setattr("time.thread_time", lambda: 0.0 if waits else time.perf_counter())
    values = first_values(read_folder(tmp_path), "train")
    assert values == [i % 251 for i in (*range(0, 600, 2), *range(1, 600, 2))]
    assert bool(began) == waits


def test_many_large_images_decode_in_order_with_threads(tmp_path: Path) -> None:
    for index in range(60):
        picture(tmp_path / "labeled" / "ab"[index % 2] / f"{index:02}.jpg", 4 * index, (120, 100))
    values = np.array(first_values(read_folder(tmp_path, size=16), "train"))
    assert np.abs(values - [*range(0, 240, 8), *range(4, 240, 8)]).max() <= 3


def test_parts_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    away = tmp_path_factory.mktemp("away")
    for name in ("unlabeled", "test"):
        (folder / name).rename(away / name)
    plain = folder / "labeled"
    source = open_source(
        str(plain), folders={"unlabeled": str(away / "unlabeled"), "test": str(away / "test")}
    )
    assert source.name == "labeled"
    assert first_values(source, "train") == [0, 1, 2, 10, 11, 12]
    assert first_values(source, "unlabeled") == [100, 101, 102]
    assert first_values(source, "test") == [60]
    assert source.validation is None
    source = open_source(str(folder), folders={"unlabeled": str(away / "unlabeled")})
    assert len(first_values(source, "unlabeled")) == 3
    assert first_values(source, "validation") == [50]
    with pytest.raises(DataError, match="--val "):
        open_source(str(folder), folders={"val": str(away / "test")})
    with pytest.raises(DataError, match=r"unlabeled: not a folder: .*nowhere"):
        open_source(str(folder), folders={"unlabeled": str(away / "nowhere")})
    with pytest.raises(OptionError, match="unknown part 'more'"):
        open_source(str(folder), folders={"more": str(away / "test")})
    with pytest.raises(OptionError, match="not to 'digits'"):
        open_source("digits", folders={"test": str(away / "test")})


def test_class_folders_alone_are_labeled_images(folder: Path) -> None:
    source = open_source(str(folder / "labeled"))
    assert source.class_names == ("cat", "dog")
    assert source.unlabeled is None


def test_parts_may_be_called_by_all_their_names(folder: Path) -> None:
    for part, names in {
        "labeled": ("labelled", "Labeled", "Training", "TRAIN"),
        "val": ("valid", "validation", "dev"),
        "test": ("Test", "testing"),
        "unlabeled": ("unlabelled", "Unlabeled"),
    }.items():
        place = folder / part
        for name in names:
            place = place.rename(folder / name)
            source = read_folder(folder)
            assert {name: len(pool) for name, pool in source.parts().items()} == {
                "train": 6, "unlabeled": 3, "validation": 1, "test": 1,
            }  # fmt: skip
    picture(folder / "valid" / "dog" / "9.png")
    with pytest.raises(DataError, match="'dev' and 'valid', which"):
        read_folder(folder)
    (folder / "TRAIN").rename(folder / "dogs")
    with pytest.raises(DataError, match="looks like a part"):
        open_source(str(folder))


def test_images_in_no_part_are_named(folder: Path) -> None:
    assert read_folder(folder).notes == ()
    (folder / "papers").mkdir()
    picture(folder / "masks" / "cat" / "0.png")
    picture(folder / "stray.png")
    [note] = read_folder(folder).notes
    assert "'masks/', 'stray.png'" in note
    assert "papers" not in note


def test_a_folder_of_missing_labels_is_no_class(folder: Path) -> None:
    for name in ("nan", "-1", "None"):
        picture(folder / "labeled" / name / "0.png")
        with pytest.raises(DataError, match=f"{name}: reads like a missing label"):
            read_folder(folder)
        assert read_folder(folder, skip_bad=True).class_names == ("cat", "dog")
        shutil.rmtree(folder / "labeled" / name)
    picture(folder / "labeled" / "NA" / "0.png")
    source = read_folder(folder)
    assert source.class_names == ("NA", "cat", "dog")
    assert any("'NA' reads like a missing label" in note for note in source.notes)


def test_numbered_classes_are_in_their_order(tmp_path: Path) -> None:
    for name in ("10", "9", "1"):
        picture(tmp_path / "labeled" / name / "0.png", int(name))
    source = read_folder(tmp_path)
    assert source.class_names == ("1", "9", "10")
    assert sorted(
        zip(first_values(source, "train"), source.train.labels.tolist(), strict=True)
    ) == [(1, 0), (9, 1), (10, 2)]


def test_the_largest_side_is_kept_and_noted(tmp_path: Path) -> None:
    for index, size in enumerate([(40, 30), (90, 50), (70, 65)]):
        picture(tmp_path / "labeled" / "ab"[index % 2] / f"{index}.png", 0, size)
    for cache in (None, Cache(tmp_path / "cache")):
        source = open_source(str(tmp_path), largest_side=24, cache=cache)
        assert source.train.images.shape == (3, 3, 24, 24)
        plain = open_source(str(tmp_path), size=24)
        assert np.array_equal(np.asarray(source.train.images[:]), plain.train.images)
        assert any("--size 48" in note for note in source.notes)
        assert not any("--size" in note for note in plain.notes)
        assert not any("Details" in note for note in source.notes)
        (note,) = open_source(str(tmp_path), largest_side=16, cache=cache).notes
        assert "Details of fewer than 6 pixels are lost" in note
        assert "try --size 48" in note
    for options, side in (({"largest_side": 48}, 48), ({"size": 16, "largest_side": 24}, 16)):
        source = open_source(str(tmp_path), **options)
        assert source.train.images.shape[2:] == (side, side)
        assert not any("--size" in note for note in source.notes)
