"""Images that are decoded once: the same as without a cache, whatever happens to it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daso.data import read_listing
from daso.data.images import cache as cache_module
from daso.data.images.cache import IMAGES, JOURNAL, SEAL, Cache
from daso.data.images.encoded import EncodedImages
from daso.data.images.image_file import ImageFile
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import DataError

PARTS = ("train", "unlabeled", "validation", "test")
IMAGE = 12 * 12 * 3

MakeFolder = Callable[..., Path]
Decoded = list[Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """Return the files that were decoded since, with blocks of five images."""
    files: Decoded = []
    plain = cache_module.work_through

    def work_through(images: EncodedImages, work: Any, skip: Any) -> Iterator[Any]:
        def counted(source: Path) -> Any:
            files.append(source)
            return work(source)

        return plain(images, counted, skip)

    monkeypatch.setattr(cache_module, "work_through", work_through)
    monkeypatch.setattr(cache_module, "BLOCK_BYTES", 5 * IMAGE)
    return files


def assert_same(one: Source, other: Source) -> None:
    for part in PARTS:
        pool, expected = getattr(one, part), getattr(other, part)
        assert isinstance(pool.images, ImageFile)
        assert np.array_equal(np.asarray(pool.images), expected.images), part
        assert np.array_equal(pool.labels, expected.labels)
        assert pool.paths == expected.paths
    assert (one.skipped, one.notes) == (other.skipped, other.notes)


def unlabeled_folder(cache: Path) -> Path:
    """Return the folder of the largest pool."""
    return max(cache.iterdir(), key=lambda folder: (folder / IMAGES).stat().st_size)


def test_what_was_decoded_is_not_decoded_again(
    make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder = make_image_folder()
    plain = open_source(str(folder))
    told: list[tuple[str, int, int]] = []
    cache = Cache(tmp_path / "cache", lambda *progress: told.append(progress))
    assert_same(open_source(str(folder), cache=cache), plain)
    assert len(decoded) == 15 + 24 + 6 + 12
    assert [done for part, done, total in told if part == "unlabeled"] == [5, 10, 15, 20, 24]
    decoded.clear()
    assert_same(open_source(str(folder), cache=cache), plain)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    elsewhere = open_source(str(moved), cache=cache)
    assert np.array_equal(np.asarray(elsewhere.train.images), plain.train.images)
    assert not decoded


def test_other_files_and_other_sizes_are_decoded_anew(
    make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder, cache = make_image_folder(), Cache(tmp_path / "cache")
    open_source(str(folder), cache=cache)
    decoded.clear()
    changed = next((folder / "unlabeled").rglob("*.png"))
    Image.new("RGB", (12, 12), (1, 2, 3)).save(changed)
    source = open_source(str(folder), cache=cache)
    assert len(decoded) == 24
    assert source.unlabeled is not None
    assert source.unlabeled.images[source.unlabeled.paths.index(str(changed))][
        :, 0, 0
    ].tolist() == [1, 2, 3]
    assert_same(open_source(str(folder), size=7, cache=cache), open_source(str(folder), size=7))


def test_other_content_under_the_same_name_size_and_time_is_decoded_anew(tmp_path: Path) -> None:
    cache, times = Cache(tmp_path / "cache"), (1_600_000_000,) * 2
    for root, values in (("one", (10, 200)), ("two", (200, 10))):
        for name, value in zip("ab", values, strict=True):
            file = tmp_path / root / "labeled" / name / "0.bmp"
            file.parent.mkdir(parents=True)
            Image.new("L", (12, 12), value).save(file)
            os.utime(file, times)
    for root, values in (("one", [10, 200]), ("two", [200, 10])):
        source = open_source(str(tmp_path / root), cache=cache)
        assert np.asarray(source.train.images)[:, 0, 0, 0].tolist() == values
    first, second = (tmp_path / "one" / "labeled" / name / "0.bmp" for name in "ab")
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    source = open_source(str(tmp_path / "one"), cache=cache)
    assert np.asarray(source.train.images)[:, 0, 0, 0].tolist() == [200, 10]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no memory")])
def test_a_file_that_could_not_be_read_is_tried_again(
    make_image_folder: MakeFolder,
    tmp_path: Path,
    decoded: Decoded,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    folder, cache = make_image_folder(), Cache(tmp_path)
    bad = sorted((folder / "unlabeled").rglob("*.png"))[7]
    plain = Image.open

    def broken(file: Any, *arguments: Any, **options: Any) -> Any:
        if file == bad:
            raise error
        return plain(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", broken)
        source = open_source(str(folder), cache=cache, skip_bad=True)
        assert [name for name, _ in source.skipped] == [str(bad)]
    decoded.clear()
    assert_same(open_source(str(folder), cache=cache), open_source(str(folder)))
    assert len(decoded) == 5


def test_a_process_that_is_stopped_loses_a_block_at_most(
    make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder = make_image_folder()

    def stop(part: str, done: int, total: int) -> None:
        if (part, done) == ("unlabeled", 15):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_source(str(folder), cache=Cache(tmp_path, stop))
    with (unlabeled_folder(tmp_path) / JOURNAL).open("ab") as journal:
        journal.write(b'{"block": 3, "checks')  # so a power failure leaves it
    decoded.clear()
    assert_same(open_source(str(folder), cache=Cache(tmp_path)), open_source(str(folder)))
    of_unlabeled = [path for path in decoded if "unlabeled" in path.parts]
    assert of_unlabeled == sorted((folder / "unlabeled").rglob("*.png"))[15:]


@pytest.mark.parametrize(
    "damage", ["a byte", "cut short", "digests", "journal gone", "journal garbled"]
)
def test_what_is_damaged_is_decoded_again(
    damage: str, make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder, cache = make_image_folder(), Cache(tmp_path)
    open_source(str(folder), cache=cache)
    decoded.clear()
    place = unlabeled_folder(tmp_path)
    if damage == "a byte":
        with (place / IMAGES).open("r+b") as file:
            file.seek(7 * IMAGE)
            byte = file.read(1)[0]
            file.seek(7 * IMAGE)
            file.write(bytes([byte ^ 1]))
    elif damage == "cut short":
        os.truncate(place / IMAGES, 13 * IMAGE)
    elif damage == "digests":
        (place / "digests.u8").write_bytes(bytes(24 * 16))
    elif damage == "journal gone":
        (place / JOURNAL).unlink()
    else:
        (place / JOURNAL).write_bytes(
            b'\x00\xff\n{"block": 99, "checksum": "", "bad": {}}\n[]\n{"block": "x"}\n'
        )
    assert_same(open_source(str(folder), cache=cache), open_source(str(folder)))
    again = {"a byte": 5, "cut short": 14}.get(damage, 24)
    assert len([path for path in decoded if "unlabeled" in path.parts]) == again
    decoded.clear()
    open_source(str(folder), cache=cache)
    assert not decoded


def test_unreadable_images_are_named_each_time(
    make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder, cache = make_image_folder(), Cache(tmp_path)
    bad = sorted((folder / "unlabeled").rglob("*.png"))[7]
    bad.write_bytes(b"nothing")
    for _ in range(2):
        with pytest.raises(DataError, match=f"{bad.name}: not a readable image"):
            open_source(str(folder), cache=cache)
    assert_same(
        open_source(str(folder), cache=cache, skip_bad=True),
        open_source(str(folder), skip_bad=True),
    )
    assert len(decoded) == 15 + 24 + 6 + 12


def test_without_a_readable_labeled_image_the_images_are_named(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder()
    for path in (folder / "labeled").rglob("*.png"):
        path.write_bytes(b"nothing")
    for cache in (None, Cache(tmp_path)):
        with pytest.raises(DataError, match=r"15 images|no readable labeled"):
            open_source(str(folder), cache=cache, skip_bad=True)


def test_labeled_images_decide_the_size_and_all_parts_the_color(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder()
    Image.new("L", (31, 17), 9).save(folder / "unlabeled" / "large-and-grey.png")
    source = open_source(str(folder), cache=Cache(tmp_path))
    assert source.unlabeled is not None
    assert source.unlabeled.images.shape == (25, 3, 12, 12)
    for number, path in enumerate(sorted((folder / "labeled").rglob("*.png"))):
        Image.new("L", (12, 12), number).save(path)
    assert_same(open_source(str(folder), cache=Cache(tmp_path)), open_source(str(folder), size=12))
    for number, path in enumerate(sorted((folder / "labeled").rglob("*.png"))):
        Image.new("L", (8, 9), number).save(path)
    with pytest.raises(DataError, match=r"is 12 x 12 pixels, expected 8 x 9; --size N"):
        open_source(str(folder), cache=Cache(tmp_path))


def test_a_full_disk_and_a_folder_that_cannot_be_made(
    make_image_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(make_image_folder())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot keep decoded images in .*file/"):
        open_source(folder, cache=Cache(tmp_path / "file"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"15 decoded images of 12 x 12 pixels take .* --cache"):
        open_source(folder, cache=Cache(tmp_path / "cache"))
    monkeypatch.undo()
    open_source(folder, cache=Cache(tmp_path / "cache"))


def test_the_seal_is_not_believed_of_other_files(
    make_image_folder: MakeFolder, tmp_path: Path, decoded: Decoded
) -> None:
    folder, cache = make_image_folder(), Cache(tmp_path)
    open_source(str(folder), cache=cache)
    decoded.clear()
    seal = unlabeled_folder(tmp_path) / SEAL
    seal.write_text("[" * 50)
    open_source(str(folder), cache=cache)
    assert not decoded  # every block has its checksum


def test_a_wait_for_another_process_is_told_with_its_name(
    make_image_folder: MakeFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(cache_module, "WAIT_NOTICE_SECONDS", 0.0)
    folder, cache = str(make_image_folder()), Cache(tmp_path)
    open_source(folder, cache=cache)
    assert not caplog.records
    pool = unlabeled_folder(tmp_path)
    holder = (
        "import fcntl, sys; lock = open(sys.argv[1], 'r+'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "lock.truncate(); lock.write('4711 on elsewhere'); lock.flush(); print(flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(pool / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other, ThreadPoolExecutor(1) as thread:
        assert other.stdout is not None
        other.stdout.readline()
        waiting = thread.submit(open_source, folder, cache=cache)
        while not caplog.records:
            time.sleep(0.01)
        assert not waiting.done()
        other.communicate(b"\n")
        assert_same(waiting.result(), open_source(folder))
    (record,) = caplog.records
    assert "4711 on elsewhere" in record.getMessage()
    assert str(pool) in record.getMessage()
    assert (pool / ".lock").read_text() == f"{os.getpid()} on {platform.node()}\n"


def make_gray_folder(root: Path, colored: str) -> Path:
    """Write a folder of gray images, of which one is in color that no sample of three holds."""
    for shade, name in enumerate(("labeled/a", "labeled/b", "unlabeled")):
        (root / name).mkdir(parents=True)
        for number in range(20):
            value = 10 * number + shade
            Image.new("L", (12, 12), value).save(root / name / f"{number:02}.png")
    Image.new("RGB", (12, 12), (250, 3, 40)).save(root / colored)
    return root


def test_a_color_among_gray_images_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Decoded
) -> None:
    monkeypatch.setattr(read_listing, "DECIDING", 3)
    for place, colored in enumerate(("unlabeled/07.png", "labeled/b/03.png")):
        folder = make_gray_folder(tmp_path / str(place), colored)
        for size in (None, 7):
            cache = Cache(tmp_path / f"cache {place} {size}")
            plain = open_source(str(folder), size=size)
            assert plain.train.images.shape[1] == 3
            (note,) = (note for note in plain.notes if "nearly all images are gray" in note)
            assert colored in note
            for again in (False, True):
                decoded.clear()
                cached = open_source(str(folder), size=size, cache=cache)
                if not again:
                    for part in ("train", "unlabeled"):
                        one, other = (getattr(s, part).images for s in (plain, cached))
                        assert np.array_equal(np.asarray(other), one), part
                assert cached.notes == plain.notes
                assert bool(decoded) != again
            # What was decoded in gray, up to the color, is not kept.
            marks = list(cache.folder.glob("*/in_color.json"))
            assert len(marks) == colored.startswith("unlabeled")
            assert all(not (mark.parent / IMAGES).exists() for mark in marks)
