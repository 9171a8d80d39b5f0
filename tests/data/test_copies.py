"""Copies of images within and across the parts of a data set: found, refused, left out, or told."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daso.data.class_names import alike_names, in_order, name_faults, unseen_names
from daso.data.duplicates import find_copies
from daso.data.images.cache import Cache
from daso.data.images.decoded import digest
from daso.data.open import open_source
from daso.errors import DataError


def test_copies_as_a_comparison_of_all_pairs_finds_them() -> None:
    random = np.random.default_rng(0)
    sizes = {"train": 30, "unlabeled": 40, "validation": 5, "test": 20}
    content = {part: random.integers(0, 25, size).tolist() for part, size in sizes.items()}
    labels = {part: random.integers(0, 2, size) for part, size in sizes.items()}
    digests = {
        part: {index: bytes([value]) for index, value in enumerate(values)}
        for part, values in content.items()
    }
    copies = find_copies(digests, labels["train"])
    for part, other in itertools.product(sizes, sizes):
        expected = []
        for i, value in enumerate(content[part]):
            same = [j for j, candidate in enumerate(content[other]) if candidate == value]
            if same and (part, i) != (other, same[0]):
                expected.append((i, same[0]))
        assert copies.of(part, other) == expected
    conflicting = sorted(index for index, _ in copies.conflicts)
    train = list(zip(content["train"], labels["train"].tolist(), strict=True))
    assert conflicting == [
        i
        for i, (value, label) in enumerate(train)
        if any(v == value and k != label for v, k in train)
    ]


def test_digest_tells_pixels_apart_but_not_their_layout_in_memory() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    turned = np.asfortranarray(pixels)
    assert digest(pixels) == digest(turned)
    changed = pixels.copy()
    changed[2, 3, 3] ^= 1
    assert digest(changed) != digest(pixels)


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 90, 0)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("cat", "dog")):
        for index in range(3):
            picture(tmp_path / "labeled" / name / f"{index}.png", 10 * number + index)
            picture(tmp_path / "test" / name / f"{index}.png", 100 + 10 * number + index)
    for index in range(5):
        picture(tmp_path / "unlabeled" / f"{index}.png", 200 + index)
    return tmp_path


def test_clean_data_has_no_notes(folder: Path) -> None:
    source = open_source(str(folder))
    assert (source.notes, source.skipped) == ((), ())


def test_a_labeled_image_in_the_test_set_is_refused_and_the_test_copy_left_out(
    folder: Path,
) -> None:
    picture(folder / "test" / "dog" / "leak.bmp", 11)
    with pytest.raises(DataError) as caught:
        open_source(str(folder))
    assert "1 test image is also among the labeled images" in str(caught.value)
    assert (
        f"{folder}/test/dog/leak.bmp is a test image, and the same image as the labeled {folder}/labeled/dog/1.png"
        in str(caught.value)
    )
    assert "--skip-bad" in str(caught.value)
    source = open_source(str(folder), skip_bad=True)
    assert source.test is not None
    assert len(source.train) == 6
    assert len(source.test) == 6
    assert not any("leak" in path for path in source.test.paths)
    assert [name for name, _ in source.skipped] == [f"{folder}/test/dog/leak.bmp"]


def test_one_image_with_two_labels_is_refused_and_every_copy_left_out(folder: Path) -> None:
    picture(folder / "labeled" / "dog" / "same.png", 1)
    picture(folder / "test" / "cat" / "same.png", 1)
    with pytest.raises(DataError) as caught:
        open_source(str(folder))
    assert "2 labeled images have several labels" in str(caught.value)
    assert "labeled/cat/1.png is 'cat', and the same image as" in str(caught.value)
    source = open_source(str(folder), skip_bad=True)
    assert sorted(Path(path).name for path in source.train.paths) == [
        "0.png",
        "0.png",
        "1.png",
        "2.png",
        "2.png",
    ]
    assert source.test is not None
    assert len(source.test) == 7  # its labeled copies are gone, so it is no leak
    assert len(source.skipped) == 2


def test_a_class_whose_images_are_all_left_out_is_named(folder: Path) -> None:
    for index in range(3):
        picture(folder / "labeled" / "dog" / f"{index}.png", index)
    with pytest.raises(DataError, match="no usable labeled image of class 'cat', 'dog'"):
        open_source(str(folder), skip_bad=True)


def test_what_is_doubtful_is_told(folder: Path) -> None:
    picture(folder / "labeled" / "dog" / "again.png", 11)
    picture(folder / "unlabeled" / "seen.png", 100)
    picture(folder / "val" / "cat" / "0.png", 0)
    picture(folder / "val" / "cat" / "1.png", 101)
    for index, name in enumerate(("Dog ", " \u200b")):
        (folder / "labeled" / name).mkdir()
        picture(folder / "labeled" / name / "0.png", 30 + index)
    notes = "\n".join(open_source(str(folder)).notes)
    for words in (
        "'Dog ' and 'dog' differ",
        "the class name ' \\u200b'",
        "1 labeled image with a copy;",
        "1 validation image among the labeled ones;",
        "1 validation image among the test images;",
        "1 unlabeled image among the test images;",
        "unlabeled/seen.png",
    ):
        assert words in notes


def test_further_pages_are_told(folder: Path, tmp_path: Path) -> None:
    assert "pages" not in "".join(open_source(str(folder)).notes)
    pytest.importorskip("pillow_heif").register_heif_opener()
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    cache = Cache(tmp_path / "cache")
    for name in ("x.tif", "x.gif", "x.png", "x.webp", "x.avif", "x.heic"):
        file = folder / "unlabeled" / name
        pages[0].save(file, save_all=True, append_images=pages[1:])
        for options in ({}, {"size": 6}, {"cache": cache}, {"cache": cache}):
            notes = open_source(str(folder), **options).notes  # type: ignore[arg-type]
            (note,) = (note for note in notes if "pages" in note)
            assert "1 file holds" in note
            assert name in note
        pages[0].save(file)
        for options in ({}, {"size": 6}, {"cache": cache}):
            notes = open_source(str(folder), **options).notes  # type: ignore[arg-type]
            assert "pages" not in "".join(notes), name
        file.unlink()


def test_further_pages_in_shards_are_told(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    with tarfile.open(tmp_path / "train-0.tar", "w") as shard:
        for number, page in enumerate(pages):
            content = io.BytesIO()
            page.save(content, "png", save_all=number == 1, append_images=pages[1:])
            for ending, data in (("png", content.getvalue()), ("cls", b"%d" % (number % 2))):
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(data)
                shard.addfile(entry, io.BytesIO(data))
    (note,) = (note for note in open_source(str(tmp_path)).notes if "pages" in note)
    assert "1 file holds" in note
    assert "train-0.tar, 1" in note


def test_arrays_are_looked_through_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    file = tmp_path / "some.npz"
    np.savez(file, images=images, labels=labels, test_images=images[2:4], test_labels=labels[2:4])
    with pytest.raises(
        DataError,
        match="test image 0 is a test image, and the same image as the labeled train image 2",
    ):
        open_source(str(file))
    assert open_source(str(file), skip_bad=True).test is None
    images[1] = images[0]
    np.savez(file, images=images, labels=labels)
    with pytest.raises(DataError, match="several labels"):
        open_source(str(file))


def test_names_that_differ_in_little() -> None:
    cases: list[tuple[list[str], list[list[str]]]] = [
        (["cat", "dog"], []),
        (["cat", "Cat", "dog"], [["cat", "Cat"]]),
        (["red fox", "red_fox", "redfox "], [["red fox", "red_fox", "redfox "]]),
        (["caf\u00e9", "cafe\u0301", "cafe"], [["caf\u00e9", "cafe\u0301"]]),
        (["a\u200bb", "ab"], [["a\u200bb", "ab"]]),
        (["7", "07", "-7"], [["7", "07"]]),
        (["stra\u00dfe", "STRASSE"], [["stra\u00dfe", "STRASSE"]]),
    ]
    for names, groups in cases:
        assert alike_names(names) == groups


def test_names_of_which_nothing_is_seen() -> None:
    hidden = ["", " ", "\t", "\x07", "\u200b", "\u3164", "\u2800 "]
    assert unseen_names([*hidden, "_", "0", "\u72d7", "\u2800x"]) == hidden


def test_invisible_characters_in_a_name_are_noted() -> None:
    doubtful = ["cat\u200b", "\ufeffdog", "ca\u00adt", "\u202eeel", "a\nb"]
    for name in doubtful:
        assert [code for code, *_ in name_faults([name])] == ["unseen-name"], name
    family, persian, hebrew = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e", "\u05d0"
    assert not list(name_faults([family, persian, hebrew, "\u2764\ufe0f", "a b", "\u00e9"]))


def test_order_of_class_names() -> None:
    assert in_order(["10", "9", "9", "-2"]) == ["-2", "9", "10"]
    assert in_order(["10", "9", "b", "a"]) == ["10", "9", "a", "b"]
    assert in_order([]) == []


def test_unreadable_images_and_copies_are_named_at_once(folder: Path) -> None:
    (folder / "unlabeled" / "broken.png").write_bytes(b"no image")
    picture(folder / "test" / "dog" / "leak.png", 1)
    picture(folder / "labeled" / "dog" / "twice.png", 2)
    with pytest.raises(DataError) as caught:
        open_source(str(folder))
    said = str(caught.value)
    assert "1 image could not be read" in said
    assert "2 labeled images have several labels; 1 test image is also among the labeled" in said
    for name in ("broken.png", "leak.png", "twice.png"):
        assert name in said
    left = {name for name, _ in open_source(str(folder), skip_bad=True).skipped}
    assert all(name in said for name in left)
