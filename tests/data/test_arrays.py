from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_files import png, write_tar
from PIL import Image

from daso.data.formats.arrays import from_arrays
from daso.data.open import open_source
from daso.errors import DataError

LABELS = np.array([0, 1, 0, 1])
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


def test_shapes() -> None:
    for images, shape in (
        (IMAGES, (4, 3, 5, 6)),
        (IMAGES.transpose(0, 3, 1, 2), (4, 3, 5, 6)),
        (IMAGES[..., 0], (4, 1, 5, 6)),
        (IMAGES[..., :1], (4, 1, 5, 6)),
    ):
        source = from_arrays(images, LABELS)
        assert source.train.images.shape == shape
        assert np.array_equal(source.train.images[:, 0], IMAGES[..., 0])
        assert source.class_names == ("0", "1")


def test_pillow_images_show_what_they_show_in_files() -> None:
    gray = [Image.fromarray(image[..., 0]) for image in IMAGES]
    for images in (gray, [image.convert("P", colors=256) for image in gray]):
        source = from_arrays(images, LABELS)
        assert np.array_equal(source.train.images[:, 0], IMAGES[..., 0])


def test_floats_from_0_to_1_become_the_bytes_they_came_from() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        source = from_arrays((IMAGES / 255).astype(dtype), LABELS)
        assert np.array_equal(source.train.images, IMAGES.transpose(0, 3, 1, 2)), dtype


def test_the_first_bad_value_is_named() -> None:
    for value in (np.nan, np.inf, -np.inf, 1.5, -0.1):
        images = np.zeros((2000, 4, 4))
        images[1500, 2, 2] = value
        with pytest.raises(DataError, match=f"image 1500 .* {value}"):
            from_arrays(images, np.arange(2000) % 2)


def test_unknown_labels_and_unlabeled_images_make_one_pool() -> None:
    source = from_arrays(IMAGES, [0, 1, -1, -1], unlabeled=IMAGES[:3])
    assert source.train.labels.tolist() == [0, 1]
    assert source.unlabeled is not None
    assert len(source.unlabeled) == 5
    assert np.array_equal(source.unlabeled.images[2], source.train.images[0])
    assert set(source.unlabeled.labels.tolist()) == {-1}


def test_hold_outs_and_names() -> None:
    source = from_arrays(
        IMAGES,
        LABELS[:, None],
        validation_images=IMAGES[:1],
        validation_labels=[1],
        test_images=IMAGES,
        test_labels=LABELS.astype(np.uint8),
        class_names=["no", "yes"],
        flip=False,
    )
    assert source.class_names == ("no", "yes")
    assert source.validation is not None
    assert source.validation.labels.tolist() == [1]
    assert source.test is not None
    assert source.test.labels.dtype == np.int64
    assert not source.flip


def test_a_name_without_an_image_is_left_out_and_told() -> None:
    names = ["ape", "bat", "cat", "dog"]
    held_out = {"test_images": IMAGES[:2], "test_labels": [3, 0]}
    source = from_arrays(IMAGES, [3, 0, -1, 3], class_names=names, **held_out)  # type: ignore[arg-type]
    assert source.class_names == ("ape", "dog")
    assert source.train.labels.tolist() == [1, 0, 1]
    assert source.test is not None
    assert source.test.labels.tolist() == [1, 0]
    (note,) = source.notes
    assert "left out: 'bat', 'cat'" in note
    with pytest.raises(DataError, match="no labeled image of class 'dog'"):
        from_arrays(IMAGES[:2], [0, 1], class_names=names[1:], test_images=IMAGES[:1], test_labels=[2])  # fmt: skip


def test_wrong_arrays() -> None:
    measured = {"test_images": IMAGES, "test_labels": LABELS}
    two, held_out = ["a", "b"], {"test_images": IMAGES, "test_labels": [0, 1, -1, 0]}
    cases: list[tuple[object, object, dict[str, object], str]] = [
        (IMAGES, [0, 1, 2, -2], {}, "-2 at index 3"),
        (IMAGES, [0, 1, 2, 3], {"class_names": two}, r"2 at index 2 .*\(2 such\)"),
        (IMAGES, [0, 2, 2, 0], {**measured, "class_names": "abc"}, "image of class 'b'"),
        (IMAGES, [0, 2, 2, 0], measured, "no labeled image of class '1'"),
        (IMAGES, [0, 1, 1, 10**9], {}, "number the classes 0, 1, 2"),
        (IMAGES, [-1] * 4, {"class_names": two}, "no labeled image of class 'a', 'b'"),
        (IMAGES, [0, 0, 0, 0], {}, "two classes"),
        (IMAGES, [0.0, 1.0, 0.0, np.nan], {}, "integers"),
        (IMAGES, np.eye(4, dtype=int), {}, "several labels"),
        (IMAGES, [0, 1], {}, "4 images, but 2 labels"),
        (IMAGES[:0], [], {}, "integers"),
        (IMAGES[:0], np.zeros(0, dtype=int), {}, "0 images"),
        (IMAGES[0], LABELS, {}, "but 4 labels"),
        (IMAGES[0, 0], LABELS, {}, "got"),
        (np.zeros((4, 5, 6, 4), np.uint8), LABELS, {}, "channels, first or last"),
        (np.zeros((4, 3, 5, 3), np.uint8), LABELS, {}, "first or last"),
        (IMAGES.astype(np.int32), LABELS, {}, "uint8, or floats"),
        (IMAGES, LABELS, {"unlabeled": IMAGES[:, 1:]}, "unlabeled .* agree"),
        (IMAGES, LABELS, {"test_images": IMAGES}, "test_images and test_labels"),
        (IMAGES, LABELS, held_out, "test_labels.* -1 at index 2"),
        (IMAGES, LABELS, {"test_images": IMAGES[:, 1:], "test_labels": LABELS}, "test images are"),
        (IMAGES, LABELS, {"class_names": ["a", "a"]}, "different"),
        (np.zeros((6, 16), dtype=np.float32), np.arange(6) % 2, {}, r"\(6, 16\).*DASOClassifier"),
    ]
    for images, labels, options, message in cases:
        with pytest.raises(DataError, match=message):
            from_arrays(images, labels, **options)


def test_numbers_with_gaps_are_names_of_classes_in_their_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    numbers = np.array([10, 1, 5, 1, 5, 10] * 2)
    contents = list(map(png, images))
    np.savez(tmp_path / "gaps.npz", train_images=images, train_labels=numbers)
    members = [(f"{n}.png", content) for n, content in enumerate(contents)]
    members += [(f"{n}.cls", str(number).encode()) for n, number in enumerate(numbers)]
    write_tar(tmp_path / "shards" / "train-0.tar", sorted(members))
    (tmp_path / "table").mkdir()
    table = pa.table({"image": contents, "label": numbers})
    pq.write_table(table, tmp_path / "table" / "train-00000-of-00001.parquet")
    for source in ("gaps.npz", "shards", "table"):
        opened = open_source(str(tmp_path / source))
        assert opened.class_names == ("1", "5", "10"), source
        first = opened.class_names[int(opened.train.labels[0])]
        assert (first, np.bincount(opened.train.labels).tolist()) == ("10", [4, 4, 4]), source
