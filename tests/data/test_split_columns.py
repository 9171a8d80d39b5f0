"""Columns that say which images are for training: none is read as anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_files import pixels, png
from small_inputs import ROWS, read, table

from daso.errors import DataError


def test_test_images_are_never_trained_on(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = pa.array([{"bytes": png(pixels(n)), "path": None} for n in range(4)])
    (tmp_path / "set").mkdir()
    kinds = (pa.string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string()))
    for column, values in (
        ("Usage", ["Training", "Training", "PublicTest", "PrivateTest"]),
        ("phase", ["tr", "tr", "te", "te"]),
        ("where", ["train1", "train2", "holdout", "holdout"]),
        ("is_valid", ["no", "no", "no", "yes"]),
        ("is_training_image", ["1", "1", "1", "0"]),
        ("isTrain", ["T", "T", "F", "F"]),
        ("train", ["1", "0", "1", "0"]),
        ("partition", ["0", "0", "1", "2"]),
        ("Set", ["1", "1", "2", "2"]),
        ("where", ["Train Set", "Train Set", "Test Set", "Test Set"]),
        ("where", ["train_val", "train_val", "test_2007", "test_2007"]),
        ("where", ["data/train", "data/train", "data/test", "data/test"]),
        ("where", ["trn", "learning", "tst", "held-out"]),
        ("where", ["train-clean", "dev-clean", "test-clean", "unlabelled_data"]),
        ("where", ["Training set", "Training set", "Test set", "n/a"]),
        ("where", ["fit", "holdout", "None", "excluded"]),
        ("holdout", ["0", "0", "0", "1"]),
        ("used_for_test", ["0", "0", "0", "1"]),
        ("Test set", ["n", "n", "n", "y"]),
        ("phase", ["", "", "", "te"]),
    ):
        labels = [f"{label},{value}" for label, value in zip(ROWS, values, strict=True)]
        (tmp_path / "m.csv").write_text(table(tmp_path, labels, f"path,label,{column}"))
        with pytest.raises(DataError, match="split"):
            read(tmp_path / "m.csv")
        for kind in kinds:
            rows = pa.table({"image": images, "label": ROWS, column: pa.array(values).cast(kind)})
            parquet.write_table(rows, tmp_path / "set" / "train.parquet")
            with pytest.raises(DataError, match=f"'{column}' reads like a split"):
                read(tmp_path / "set")


def test_other_columns_of_numbers_are_no_splits(tmp_path: Path) -> None:
    for column, values in (
        ("fold", "0101"),
        ("is_train", "1111"),
        ("set", "1111"),
        ("is_round", "0101"),
        ("set", "1719"),
        ("invalid", "0101"),
        ("test_result", "0101"),
        ("value", "0101"),
    ):
        labels = [f"{label},{value}" for label, value in zip(ROWS, values, strict=True)]
        (tmp_path / "m.csv").write_text(table(tmp_path, labels, f"path,label,{column}"))
        assert f"columns that are not used: '{column}'" in read(tmp_path / "m.csv")[2]


def test_a_column_that_names_only_the_test_images_is_a_split(tmp_path: Path) -> None:
    def listed(values: tuple[str, ...]) -> Path:
        rows = [f"{label},{value}" for label, value in zip(ROWS, values, strict=True)]
        (tmp_path / "m.csv").write_text(table(tmp_path, rows, "path,label,used in"))
        return tmp_path / "m.csv"

    assert read(listed(("", "", "", "test")))[1] == [2, 1]
    with pytest.raises(DataError, match="unknown split 'None'"):
        read(listed(("", "None", "", "Test")))
    assert "not used: 'used in'" in read(listed(("train",) * 4))[2]


def test_captions_and_files_are_no_splits(tmp_path: Path) -> None:
    for text in ("a {} image", "{}/0.png"):
        parts = zip(ROWS, ("train", "test") * 2, strict=True)
        labels = [f"{label},{text.format(part)}" for label, part in parts]
        (tmp_path / "m.csv").write_text(table(tmp_path, labels, "path,label,caption"))
        assert "not used: 'caption'" in read(tmp_path / "m.csv")[2]
