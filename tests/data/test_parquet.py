from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import plain_png
from PIL import Image

from daso.data.formats.parquet import list_parquet
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import DataError, MissingDependencyError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ["cat", "dog", "emu"]


def read_parquet(folder: Path, **options: Any) -> Source:
    return open_source(str(folder), **options)


def png(value: int, size: tuple[int, int] = (8, 8)) -> bytes:
    return plain_png((value, 0, 255), size)


def write(
    path: Path,
    contents: list[bytes | None],
    labels: list[int | None],
    *,
    image: str = "img",
    label: str = "label",
    names: list[str] | None = NAMES,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(structs, kind), label: pa.array(labels, pa.int64())})
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path, row_group_size=4)
    return path


def values(count: int, start: int = 0) -> list[bytes | None]:
    return [png(start + i) for i in range(count)]


@pytest.mark.parametrize(
    ("subfolder", "image", "label"),
    [(".", "img", "label"), ("data", "image", "fine_label"), ("plain_text", "img", "labels")],
)
def test_parts_and_names(tmp_path: Path, subfolder: str, image: str, label: str) -> None:
    for start, (part, count) in enumerate((("train", 9), ("validation", 3), ("test", 6))):
        write(
            tmp_path / subfolder / f"{part}-00000-of-00001.parquet",
            values(count, 20 * start),
            [i % 3 for i in range(count)],
            image=image,
            label=label,
        )
    source = read_parquet(tmp_path)
    assert source.class_names == tuple(NAMES)
    assert source.train.images[:, 0, 0, 0].tolist() == list(range(9))
    assert source.train.labels.tolist() == [0, 1, 2] * 3
    assert source.validation is not None
    assert source.test is not None
    assert (len(source.validation), len(source.test)) == (3, 6)


def test_shards_are_read_in_order_and_must_all_be_there(tmp_path: Path) -> None:
    write(tmp_path / "train-00001-of-00002.parquet", values(3, 100), [0, 1, 2])
    with pytest.raises(DataError, match="1 of 2 files"):
        read_parquet(tmp_path)
    write(tmp_path / "train-00000-of-00002.parquet", values(3), [2, 1, 0])
    source = read_parquet(tmp_path)
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert source.test is None


def test_rows_without_a_label_join_the_unlabeled_pool(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", values(5), [0, None, 1, -1, 2])
    source = read_parquet(tmp_path)
    assert source.train.labels.tolist() == [0, 1, 2]
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [1, 3]


def test_each_file_names_its_own_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", values(4), [0, 1, 2, -1])
    write(tmp_path / "train-00001-of-00002.parquet", values(2, 10), [0, 1], names=["emu", "cat"])
    write(tmp_path / "test.parquet", values(3, 20), [0, 1, 0], names=["dog", "emu"])
    write(tmp_path / "unlabeled.parquet", values(2, 30), [0, 1], names=["fox", "emu"])
    source = read_parquet(tmp_path)
    assert source.class_names == ("cat", "dog", "emu")
    assert source.train.labels.tolist() == [0, 1, 2, 2, 0]
    assert source.test is not None
    assert source.test.labels.tolist() == [1, 2, 1]
    assert source.unlabeled is not None
    assert source.unlabeled.labels.tolist() == [-1, -1, 2]
    write(tmp_path / "test.parquet", values(3, 20), [0, 1, 0], names=["dog", "fox"])
    with pytest.raises(DataError, match=r"'fox' .*'cat', 'dog', 'emu'.*'dog', 'fox'"):
        read_parquet(tmp_path)
    write(tmp_path / "test.parquet", values(3, 20), [0, 1, 2], names=None)
    assert any("numbers without names" in note for note in read_parquet(tmp_path).notes)
    for number in range(2):
        path = tmp_path / f"train-0000{number}-of-00002.parquet"
        write(path, values(3, 3 * number), [0, 1, 2], names=None)
    write(tmp_path / "test.parquet", values(3, 20), [0, 1, 2])
    with pytest.raises(DataError, match=r"'cat' .*'0', '1', '2'.*'cat', 'dog', 'emu'"):
        read_parquet(tmp_path)


def test_texts_that_mean_no_label(tmp_path: Path) -> None:
    for labels, names, unlabeled in (
        (["cat", "dog", "-1", "nan", None], ("cat", "dog"), 3),
        (["10", "9", "NaN", "-1", ""], ("9", "10"), 3),
    ):
        table = pa.table({"image": values(5), "label": pa.array(labels, pa.string())})
        pq.write_table(table, tmp_path / "train.parquet")
        source = read_parquet(tmp_path)
        assert source.class_names == names
        assert source.unlabeled is not None
        assert len(source.unlabeled) == unlabeled


def test_nothing_of_a_folder_is_passed_over_without_a_word(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", values(3), [0, 1, 2])
    write(tmp_path / "extra-0.parquet", values(3, 10), [0, 1, 2])
    write(tmp_path / "Test-0.parquet", values(3, 20), [0, 1, 2])
    source = read_parquet(tmp_path)
    assert source.test is not None
    assert any("'extra-0.parquet'" in note for note in source.notes)
    write(tmp_path / "training.parquet", values(3, 30), [0, 1, 2])
    with pytest.raises(DataError, match="both 'train' and 'training'"):
        read_parquet(tmp_path)


def test_a_column_of_splits_is_refused_and_others_are_named(tmp_path: Path) -> None:
    table = pa.table({"image": values(3), "label": ["a", "b", "a"], "id": [1, 2, 3]})
    for name in ("split", "set"):
        with_split = table.append_column(name, pa.array(["train", "train", "test"]))
        pq.write_table(with_split, tmp_path / "train.parquet")
        with pytest.raises(DataError, match=f"column '{name}' reads like a split"):
            read_parquet(tmp_path)
    captions = table.append_column("caption", pa.array(["a train", "a test", None]))
    pq.write_table(captions, tmp_path / "train.parquet")
    assert any("not used: 'id', 'caption'" in note for note in read_parquet(tmp_path).notes)


def test_numbers_may_begin_with_1(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", values(4), [1, 2, -1, 3], names=None)
    write(tmp_path / "test.parquet", values(2, 10), [3, 1], names=None)
    source = read_parquet(tmp_path)
    assert source.class_names == ("1", "2", "3")
    assert source.train.labels.tolist() == [0, 1, 2]
    assert source.test is not None
    assert source.test.labels.tolist() == [2, 0]


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", values(4), [0, 1, 0, 1], names=None)
    assert read_parquet(tmp_path).class_names == ("0", "1")


def test_sizes(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [png(0, (20, 30)), png(1, (40, 16)), png(2)], [0, 1, 2])
    assert read_parquet(tmp_path).train.images.shape == (3, 3, 16, 16)
    assert read_parquet(tmp_path, size=6).train.images.shape == (3, 3, 6, 6)


def test_unreadable_rows_are_named_or_skipped(tmp_path: Path) -> None:
    contents = [*values(9), png(9)[:50], None, b"no image"]
    write(tmp_path / "train-00000-of-00001.parquet", contents, [i % 3 for i in range(12)])
    with pytest.raises(DataError, match="3 images could not be read") as caught:
        read_parquet(tmp_path)
    assert "train-00000-of-00001.parquet, row 10:" in str(caught.value)
    source = read_parquet(tmp_path, skip_bad=True)
    assert len(source.train) == 9
    assert [name.split(", ")[1] for name, _ in source.skipped] == ["row 9", "row 10", "row 11"]


def test_wrong_contents(tmp_path: Path) -> None:
    cases: list[tuple[list[int | None], dict[str, Any], str]] = [
        ([0, 1, 3], {}, r"train\.parquet, row 2: label 3 is out of range"),
        ([0, 1, -2], {}, r"train\.parquet, row 2: label -2"),
        ([0, 1, 2], {"image": "picture"}, "needs a column img or image"),
        ([0, 1, 2], {"label": "target"}, "needs a column img or image"),
        ([0, 1, 2], {"names": ["a", "a", "b"]}, "names a class twice"),
    ]
    for labels, options, message in cases:
        write(tmp_path / "train.parquet", values(3), labels, **options)
        with pytest.raises(DataError, match=message):
            read_parquet(tmp_path)


def test_a_listed_class_without_an_image_is_left_out_and_told(tmp_path: Path) -> None:
    names = ["ant", "cat", "dog", "emu"]
    write(tmp_path / "train.parquet", values(3), [1, 3, -1], names=names)
    source = read_parquet(tmp_path)
    assert source.class_names == ("cat", "emu")
    assert source.train.labels.tolist() == [0, 1]
    assert source.unlabeled is not None
    assert source.unlabeled.labels.tolist() == [-1]
    (note,) = (note for note in source.notes if "without an image" in note)
    assert "2 classes" in note
    assert "'ant', 'dog'" in note
    write(tmp_path / "test.parquet", values(2, 10), [3, 1], names=names)
    test = read_parquet(tmp_path).test
    assert test is not None
    assert test.labels.tolist() == [1, 0]
    write(tmp_path / "test.parquet", values(2, 10), [2, 1], names=names)
    with pytest.raises(DataError, match="no labeled image of class 'dog'"):
        read_parquet(tmp_path)


def test_hold_outs_need_labels(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", values(3), [0, 1, 2])
    write(tmp_path / "test.parquet", values(3), [-1, -1, -1])
    with pytest.raises(DataError, match=r"test\.parquet, row 0: test image without a label"):
        read_parquet(tmp_path)


def test_labels_as_pandas_stores_them(tmp_path: Path) -> None:
    texts = [NAMES[i % 3] for i in range(9)]
    for labels, names in (
        (pa.array(texts).dictionary_encode(), NAMES),
        (pa.array(texts, pa.string_view()), NAMES),
        (pa.array([float(i % 3) for i in range(8)] + [float("nan")]), ["0", "1", "2"]),
        (pa.array([float(i % 3) for i in range(8)] + [None]), ["0", "1", "2"]),
    ):
        pq.write_table(pa.table({"img": values(9), "label": labels}), tmp_path / "train.parquet")
        for unlabeled in ({}, {"label": pa.nulls(4)}, {"label": pa.array([None] * 4, pa.int64())}):
            table = pa.table({"img": values(4, 50), **unlabeled})
            pq.write_table(table, tmp_path / "unlabeled.parquet")
            source = read_parquet(tmp_path)
            assert list(source.class_names) == names
            assert source.unlabeled is not None
            assert len(source.train) + len(source.unlabeled) == 13


def test_a_row_with_a_path_and_no_bytes_says_so(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [None, *values(5)], [0, 1, 2] * 2)
    with pytest.raises(DataError, match=r"row 0: only the path.*'0.png'.*save_to_disk"):
        read_parquet(tmp_path)
    assert len(read_parquet(tmp_path, skip_bad=True).train) == 5


def test_wrong_types(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"img": ["a", "b"], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="must be bytes or struct"):
        read_parquet(tmp_path)
    pq.write_table(pa.table({"img": [b"a", b"b"], "label": [0.5, 1.5]}), path)
    with pytest.raises(DataError, match=r"row 0: the label 0\.5 is neither"):
        read_parquet(tmp_path)
    table = pa.table({"img": values(2), "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": "{"}), path)
    with pytest.raises(DataError, match="metadata lacks column"):
        read_parquet(tmp_path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match="no rows"):
        read_parquet(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", values(30), [i % 3 for i in range(30)])
    whole = path.read_bytes()
    for content in (b"", b"PAR1 and no more", whole[:-20], whole[:40] + bytes(400) + whole[440:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train\.parquet"):
            read_parquet(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"missing train-\*\.parquet"):
        list_parquet(tmp_path)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", values(3), [0, 1, 2])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'daso\[parquet\]'"):
        read_parquet(tmp_path)


def test_images_keep_their_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    contents: list[bytes | None] = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        contents.append(stream.getvalue())
    write(tmp_path / "train.parquet", contents, [0, 1, 2])
    assert np.array_equal(read_parquet(tmp_path).train.images, pixels.transpose(0, 3, 1, 2))
