"""Image folders: what cannot be read, and layouts that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from photo_folders import first_values, picture, read_folder, write_photos
from PIL import Image
from rights import as_nobody

from daso.data.images.cache import Cache
from daso.data.open import open_source
from daso.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_photos(tmp_path)


def test_all_unreadable_files_are_named_at_once(folder: Path) -> None:
    cut = folder / "labeled" / "cat" / "cut.jpg"
    Image.effect_noise((64, 64), 80).save(cut, "JPEG")
    cut.write_bytes(cut.read_bytes()[:1500])
    empty = folder / "unlabeled" / "empty.png"
    empty.touch()
    with pytest.raises(DataError) as caught:
        read_folder(folder, size=8)
    assert "2 images could not be read" in str(caught.value)
    assert str(cut) in str(caught.value)
    assert str(empty) in str(caught.value)
    source = read_folder(folder, size=8, skip_bad=True)
    assert [name for name, _ in source.skipped] == [str(cut), str(empty)]
    assert all(reason for _, reason in source.skipped)
    assert first_values(source, "train") == [0, 1, 2, 10, 11, 12]
    assert str(cut) not in source.train.paths
    assert first_values(source, "unlabeled") == [100, 101, 102]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_class_folders_can_be_left_out(folder: Path, part: str) -> None:
    shutil.rmtree(folder / part)
    (folder / part).mkdir()
    for stray in (None, "notes.txt", "beside.png"):
        if stray:
            (folder / part / stray).write_bytes(b"no image")
        with pytest.raises(DataError, match="class folder"):
            read_folder(folder)
        source = read_folder(folder, skip_bad=True)
        assert source.skipped[0][0] == str(folder / part)
        assert first_values(source, "train") == [0, 1, 2, 10, 11, 12]


def test_a_long_list_of_unreadable_files_is_cut(folder: Path) -> None:
    for index in range(25):
        (folder / "unlabeled" / f"bad{index:02}.png").touch()
    with pytest.raises(DataError, match="and 5 more") as caught:
        read_folder(folder)
    assert "bad19.png" in str(caught.value)
    assert "bad20.png" not in str(caught.value)


def test_nothing_readable_raises_even_when_skipping(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "labeled" / name).mkdir(parents=True)
        (tmp_path / "labeled" / name / "0.png").touch()
    with pytest.raises(DataError, match="2 images could not be read"):
        read_folder(tmp_path, skip_bad=True)


def test_a_class_that_loses_all_its_images_is_named(folder: Path) -> None:
    for index in range(3):
        (folder / "labeled" / "dog" / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no readable labeled image of class 'dog'"):
        read_folder(folder, skip_bad=True)


def test_empty_classes_are_named(folder: Path) -> None:
    (folder / "labeled" / "emu").mkdir()
    (folder / "labeled" / "emu" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no labeled image of class 'emu' \(not read: 1 .txt"):
        read_folder(folder)


def test_unknown_classes_get_the_nearest_name(folder: Path) -> None:
    (folder / "test" / "cat").rename(folder / "test" / "cats")
    with pytest.raises(DataError, match="Did you mean 'cat'"):
        read_folder(folder)


def test_images_outside_class_folders_are_not_lost_silently(folder: Path) -> None:
    picture(folder / "labeled" / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png: lies outside a class folder"):
        read_folder(folder)


def test_what_cannot_be_listed_is_named_at_once_or_skipped(folder: Path) -> None:
    picture(folder / "labeled" / "stray.png")
    picture(folder / "test" / "emu" / "0.png")
    (folder / "labeled" / "fox").mkdir()
    (folder / "val" / "fox").mkdir()
    (folder / "unlabeled" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    with pytest.raises(DataError, match="3 of its files or folders cannot be used") as caught:
        read_folder(folder)
    bad = [folder / "labeled" / "stray.png", folder / "labeled" / "fox", folder / "test" / "emu"]
    assert all(f"{path}: " in str(caught.value) for path in bad)
    source = read_folder(folder, skip_bad=True)
    assert [name for name, _ in source.skipped] == [
        *map(str, bad),
        str(folder / "unlabeled" / "gone.jpg"),
    ]
    assert source.class_names == ("cat", "dog")
    assert first_values(source, "test") == [60]
    assert first_values(source, "validation") == [50]


def test_a_part_without_images_is_skipped_like_an_image(folder: Path) -> None:
    for path in (folder / "unlabeled").rglob("*.[pP]*"):
        path.unlink()
    with pytest.raises(DataError, match="unlabeled: no images in it"):
        read_folder(folder)
    assert read_folder(folder, skip_bad=True).unlabeled is None


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no class folders.*in labeled/, beside unlabeled/"):
        read_folder(tmp_path)
    (tmp_path / "labeled").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        read_folder(tmp_path)
    picture(tmp_path / "labeled" / "only" / "0.png")
    with pytest.raises(DataError, match="at least two classes"):
        read_folder(tmp_path)
    picture(tmp_path / "labeled" / "other" / "0.png")
    (tmp_path / "unlabeled").mkdir()
    with pytest.raises(DataError, match="no images in it"):
        read_folder(tmp_path)


def test_a_link_to_nowhere_is_an_image_that_cannot_be_read(folder: Path) -> None:
    (folder / "unlabeled" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    for cache in (None, Cache(folder.parent / "cache")):
        source = open_source(str(folder), skip_bad=True, cache=cache)
        assert source.skipped == (
            (str(folder / "unlabeled" / "gone.jpg"), "No such file or directory"),
        )
        with pytest.raises(DataError, match=r"gone\.jpg: No such file"):
            open_source(str(folder), cache=cache)


@pytest.mark.parametrize("mode", [0o000, 0o644], ids=["closed", "not to be entered"])
def test_folders_without_permission_are_named_and_not_passed_over(folder: Path, mode: int) -> None:
    closed = folder / "unlabeled" / "closed"
    picture(closed / "image.png")
    picture(folder / "unlabeled" / "open.png")
    before = closed.stat().st_mode
    closed.chmod(mode)
    try:
        with as_nobody(folder):
            with pytest.raises(
                DataError, match=r"unlabeled/closed.*: .*Permission denied"
            ) as caught:
                read_folder(folder)
            skipped = read_folder(folder, skip_bad=True).skipped
        if mode == 0:
            assert "chmod -R u+rX" in str(caught.value)
        assert [name for name, _ in skipped] == [str(closed if mode == 0 else closed / "image.png")]
    finally:
        closed.chmod(before)


def test_a_part_without_permission_is_an_error(folder: Path) -> None:
    picture(folder / "unlabeled" / "open.png")
    picture(folder / "test" / "cat" / "0.png")
    for place in (folder, folder / "labeled", folder / "test", folder / "unlabeled"):
        before = place.stat().st_mode
        place.chmod(0o000)
        try:
            with as_nobody(folder), pytest.raises(DataError, match="Permission denied"):
                open_source(str(folder))
        finally:
            place.chmod(before)
