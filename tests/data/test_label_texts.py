"""Labels as texts and numbers: which are the same class, and which look alike."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_files import pixels, png, write_shard
from small_inputs import ROWS, read, table

from daso.data.open import open_source
from daso.errors import DataError


def test_labels_that_look_alike(tmp_path: Path) -> None:
    for labels, classes, counts, told in (
        (["cat ", " cat", "cat", "dog"], ("cat", "dog"), [3, 1], "1 label 'cat ': read as 'cat'"),
        (["01", "01", "1", "1"], ("01", "1"), [2, 2], "as numbers"),
        (["1e3", "1000", "2e3", "2e3"], ("1000", "1e3", "2e3"), [1, 1, 2], "as numbers"),
        (['"1,000"', "1000", '"1,000"', "7"], ("1,000", "1000", "7"), [2, 1, 1], "as numbers"),
        (["-2", "0", "1", "-2"], ("-2", "0", "1"), [2, 1, 1], "'-2' reads like a missing label"),
        (["1,0", "0,0", "-1,0", "0,0"], ("0,0", "1,0"), [2, 1], "1 are '-1,0': read as unlabeled"),
        (["=1+1", "a", "a", "=1+1"], ("=1+1", "a"), [2, 2], "'=1+1' reads like a formula"),
        (["a|b", "a", "b", "a"], ("a", "a|b", "b"), [2, 1, 1], "'a|b' joins names"),
        (["a; b", "a", "b", "a"], ("a", "a; b", "b"), [2, 1, 1], "'a; b' joins names"),
        (["a b", "a", "b", "a"], ("a", "a b", "b"), [2, 1, 1], "'a b' joins names"),
        (["hot dog + b", "hot dog", "b", "b"], ("b", "hot dog", "hot dog + b"), [2, 1, 1], "joins"),
        (["['a'; 'b']", "a", "b", "a"], ("['a'; 'b']", "a", "b"), [1, 2, 1], "joins names"),
        (["['a'; 'b']", "['a']", "b", "b"], ("['a'; 'b']", "['a']", "b"), [1, 1, 2], "joins names"),
        (["\"['a', 'c']\"", "['a']", "b", "b"], ("['a', 'c']", "['a']", "b"), [1, 1, 2], "joins"),
        (["\\N", "a", "b", "b"], ("\\N", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["(null)", "a", "b", "b"], ("(null)", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["[]", "a", "b", "b"], ("[]", "a", "b"), [1, 1, 2], "reads like a missing label"),
        (["#N/A", "EU", "EU", "#N/A"], ("#N/A", "EU"), [2, 2], "'#N/A' reads like a missing"),
        (["TBD", "a", "b", "b"], ("TBD", "a", "b"), [1, 1, 2], "'TBD' reads like a missing"),
        (["???", "a", "b", "b"], ("???", "a", "b"), [1, 1, 2], "'???' reads like a missing"),
        (["n.a.", "a", "b", "b"], ("a", "b", "n.a."), [1, 2, 1], "'n.a.' reads like a missing"),
        (
            ["unlabelled images", "a", "b", "b"],
            ("a", "b", "unlabelled images"),
            [1, 2, 1],
            "missing",
        ),
        (
            ["hold-out", "a", "b", "b"],
            ("a", "b", "hold-out"),
            [1, 2, 1],
            "'hold-out' reads like a part",
        ),
        (["_todo", "a", "b", "b"], ("_todo", "a", "b"), [1, 1, 2], "'_todo' reads like a missing"),
        (["Unknown", "a", "b", "b"], ("Unknown", "a", "b"), [1, 1, 2], "reads like a missing"),
        (["\uff11", "1", "2", "2"], ("1", "2", "\uff11"), [1, 2, 1], "as numbers"),
        (["\u0661", "1", "2", "2"], ("1", "2", "\u0661"), [1, 2, 1], "as numbers"),
        (["1.0", "1", "cat", "cat"], ("1", "1.0", "cat"), [1, 1, 2], "as numbers"),
        (["a\t", "a\xa0", "a", "b"], ("a", "b"), [3, 1], "1 label 'a\\t': read as 'a'"),
        (["a\u200b", "a", "b", "b"], ("a", "a\u200b", "b"), [1, 1, 2], "Unicode form"),
        (['"a\nb"', "c", '"a\nb"', "c"], ("a\nb", "c"), [2, 2], "a line break"),
    ):
        labels = [f'"{label}"' if label[-2:] == ",0" else label for label in labels]
        (tmp_path / "m.csv").write_text(table(tmp_path, labels))
        found = read(tmp_path / "m.csv")
        assert found[:2] == (classes, counts)
        assert told in found[2]


def test_classes_that_are_only_called_like_parts_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(table(tmp_path, ["train", "valve", "valid", "invalid"]))
    assert "reads like" not in read(tmp_path / "m.csv")[2]


def test_numbers_in_shards_are_those_of_manifests(tmp_path: Path) -> None:
    for name, labels, classes in (
        ("zeros", ["01", "1", "01", "1"], ("01", "1")),
        ("floats", ["0.0", "1.0", "0", "1"], ("0", "1")),
        ("gaps", ["2", "10", "2", "10"], None),
    ):
        write_shard(tmp_path / name / "train-0.tar", labels)
        if classes is None:
            with pytest.raises(DataError, match="number the classes"):
                read(tmp_path / name)
            continue
        assert read(tmp_path / name)[:2] == (classes, [2, 2]), name
    (tmp_path / "zeros" / "classes.txt").write_text("no\nyes\n")
    with pytest.raises(DataError, match="two classes"):
        read(tmp_path / "zeros")


def test_labels_mean_the_same_in_all_parts(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number, (train, test, classes, expected) in enumerate(
        (
            (["1.0", "1", "cat", "cat"], ["1.0", "1.0"], ("1", "1.0", "cat"), [1, 1]),
            (["1.0", "2.0", "1.0", "2.0"], ["1", "2"], ("1", "2"), [0, 1]),
            (ROWS, ["cat ", "dog"], ("cat", "dog"), [0, 1]),
            (["caf\xe9", "b"] * 2, ["cafe\u0301", "b"], ("b", "caf\xe9"), [1, 0]),
        )
    ):
        folder = tmp_path / str(number)
        (folder / "parquet").mkdir(parents=True)
        for part, labels, first in (("train", train, 0), ("test", test, 9)):
            write_shard(folder / "tar" / f"{part}-0.tar", labels, first=first)
            images = [{"bytes": png(pixels(first + n)), "path": None} for n in range(len(labels))]
            written = pa.table({"image": pa.array(images), "label": labels})
            parquet.write_table(written, folder / "parquet" / f"{part}.parquet")
        rows = [f"{label},{part}" for part, of in (("", train), ("test", test)) for label in of]
        (folder / "m.csv").write_text(table(folder, rows, "path,label,split"))
        for kind in ("tar", "parquet", "m.csv"):
            source = open_source(str(folder / kind))
            assert source.test is not None
            assert (source.class_names, source.test.labels.tolist()) == (classes, expected)


def test_declared_names_mean_what_labels_mean(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for declared, classes, labels in (
        (["1.0", "2.0", "10.0"], ("1", "2", "10"), [0, 1, 2, 0, 1, 2]),
        (["None", "cat", "dog"], ("cat", "dog"), [0, 1, 0, 1]),
        (["cat ", "cat", "dog"], ("cat", "dog"), [0, 0, 1, 0, 0, 1]),
    ):
        images = pa.array([{"bytes": png(pixels(n)), "path": None} for n in range(6)])
        rows = pa.table({"image": images, "label": pa.array([0, 1, 2] * 2)})
        features = {"image": {"_type": "Image"}, "label": {"names": declared}}
        metadata = json.dumps({"info": {"features": features}})
        rows = rows.replace_schema_metadata({"huggingface": metadata})
        parquet.write_table(rows, tmp_path / "train.parquet")
        source = open_source(str(tmp_path))
        assert (source.class_names, source.train.labels.tolist()) == (classes, labels)
