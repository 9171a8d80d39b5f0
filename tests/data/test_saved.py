"""Data sets that Hugging Face's datasets saved: splits, features, and files that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_parquet

from daso.data.open import open_source
from daso.errors import DataError

pa = pytest.importorskip("pyarrow")
NAMES = ["cat", "dog", "emu"]


def write(
    folder: Path,
    contents: list[bytes | None],
    labels: list[Any],
    *,
    names: list[str] | None = NAMES,
    shards: int = 1,
) -> Path:
    """Write what ``Dataset.save_to_disk`` does: Arrow streams, their list, and a description of the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    structs = [{"bytes": content, "path": None} for content in contents]
    table = pa.table({"image": pa.array(structs, kind), "label": pa.array(labels)})
    files = []
    per_file = -(-len(contents) // shards)
    for number in range(shards):
        name = f"data-{number:05}-of-{shards:05}.arrow"
        part = table.slice(number * per_file, per_file)
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(part, max_chunksize=2)
        files.append({"filename": name})
    (folder / "state.json").write_text(
        json.dumps({"_data_files": files, "_indices_data_files": None})
    )
    label = (
        {"_type": "Value", "dtype": "int64"}
        if names is None
        else {"_type": "ClassLabel", "names": names}
    )
    features = {"image": {"_type": "Image"}, "label": label}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def values(count: int, start: int = 0) -> list[bytes | None]:
    return test_parquet.values(count, start)


def test_one_data_set_in_several_files(tmp_path: Path) -> None:
    write(tmp_path / "birds", values(7), [0, 1, 2, -1, None, 1, 0], shards=3)
    source = open_source(str(tmp_path / "birds"))
    assert (source.name, source.class_names) == ("birds", ("cat", "dog", "emu"))
    assert source.train.labels.tolist() == [0, 1, 2, 1, 0]
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 5, 6]
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [3, 4]
    assert open_source(str(tmp_path / "birds"), size=4).train.images.shape == (5, 3, 4, 4)


def test_each_split_names_its_own_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train", values(3), [0, 1, 2])
    write(tmp_path / "test", values(3, 20), [0, 1, 2], names=["emu", "dog", "cat"])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source = open_source(str(tmp_path))
    assert source.test is not None
    assert source.test.labels.tolist() == [2, 1, 0]


def test_a_dictionary_of_splits(tmp_path: Path) -> None:
    write(tmp_path / "train", values(4), [0, 1, 2, -1])
    write(tmp_path / "valid", values(2, 10), [0, 1])
    write(tmp_path / "test", values(3, 20), [2, 1, 0])
    write(tmp_path / "unsupervised", values(2, 30), [-1, 2])
    (tmp_path / "dataset_dict.json").write_text(
        '{"splits": ["train", "valid", "test", "unsupervised"]}'
    )
    source = open_source(str(tmp_path))
    assert source.unlabeled is not None
    assert source.unlabeled.images[:, 0, 0, 0].tolist() == [3, 30, 31]
    assert source.unlabeled.labels.tolist() == [-1, -1, 2]
    assert source.validation is not None
    assert source.test is not None
    assert (len(source.train), len(source.validation), source.test.labels.tolist()) == (
        3,
        2,
        [2, 1, 0],
    )


def test_labels_that_are_texts(tmp_path: Path) -> None:
    write(tmp_path, values(5), ["10", "9", "", None, "10"], names=None)
    source = open_source(str(tmp_path))
    assert source.class_names == ("9", "10")
    assert source.train.labels.tolist() == [1, 0, 1]


def test_a_leak_is_found_here_too(tmp_path: Path) -> None:
    write(tmp_path / "train", values(3), [0, 1, 2])
    write(tmp_path / "test", values(3, 2), [2, 1, 0])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(
        DataError, match=r"data-00000-of-00001\.arrow, row 0 is a test image, and the same"
    ):
        open_source(str(tmp_path))


def test_unreadable_rows_are_named(tmp_path: Path) -> None:
    write(tmp_path, [*values(4), b"no image", None], [0, 1, 2, 0, 1, 2])
    with pytest.raises(DataError, match="2 images could not be read") as caught:
        open_source(str(tmp_path))
    assert "data-00000-of-00001.arrow, row 4: " in str(caught.value)
    assert len(open_source(str(tmp_path), skip_bad=True).train) == 4


def test_damaged_folders(tmp_path: Path) -> None:
    for number, (name, content, message) in enumerate(
        (
            ("state.json", None, "missing|no known layout"),
            ("state.json", b"[1]", "found list"),
            ("state.json", b"[" * 100_000, "cannot be read"),
            ("state.json", b"{}", "must list '_data_files'"),
            ("state.json", b'{"_data_files": []}', "no rows in it"),
            ("state.json", b'{"_data_files": [3]}', "each with a 'filename'"),
            (
                "state.json",
                b'{"_data_files": [{"filename": "../data.arrow"}]}',
                "not the name of a file",
            ),
            (
                "state.json",
                b'{"_data_files": [{"filename": "/etc/passwd"}]}',
                "not the name of a file",
            ),
            (
                "state.json",
                b'{"_data_files": [{"filename": "no.arrow"}]}',
                "missing file: no.arrow",
            ),
            (
                "state.json",
                b'{"_data_files": [{"filename": "x"}], "_indices_data_files": [1]}',
                "flatten_indices",
            ),
            ("dataset_info.json", b'{"features": {}}', "metadata lacks column label"),
            (
                "dataset_info.json",
                b'{"features": {"label": {"names": ["a", "a", "b"]}}}',
                "names a class twice",
            ),
            (
                "dataset_info.json",
                b'{"features": {"label": {"names": ["a", "b"]}}}',
                "row 2: label 2 is out of range",
            ),
            ("dataset_dict.json", b'{"splits": "train"}', "must have a list 'splits'"),
            ("dataset_dict.json", b'{"splits": ["extra"]}', "split 'extra'"),
            ("dataset_dict.json", b'{"splits": ["train", "labeled"]}', "are the same part"),
            ("dataset_dict.json", b'{"splits": ["test"]}', "no split 'train'"),
            ("dataset_dict.json", b'{"splits": ["train"]}', "has no state.json"),
            ("data-00000-of-00001.arrow", b"", "not a readable Arrow file"),
            (
                "data-00000-of-00001.arrow",
                b"\xff\xff\xff\xff" + bytes(200),
                "not a readable Arrow file|image",
            ),
        )
    ):
        folder = write(tmp_path / str(number), values(4), [0, 1, 2, 0])
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_source(str(folder))


def test_a_damaged_byte_is_an_error_or_another_picture_but_never_a_crash(tmp_path: Path) -> None:
    folder = write(tmp_path / "birds", values(6), [0, 1, 2, 0, 1, 2])
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for position in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        try:
            open_source(str(folder), skip_bad=True)
        except DataError:
            continue
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            open_source(str(folder))
