"""The labels of daso label as a manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from label_sets import KINDS, label_some, write_folder, write_set
from labeled_sources import LABELS, labels_of, opened, unlabeled_of
from made_files import write_image

from daso.data.labeling import (
    export_labels,
    open_for_labeling,
    sort_files,
)
from daso.data.open import open_source
from daso.errors import DataError, OptionError


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_a_manifest_holds_what_training_sees(tmp_path: Path, kind: str) -> None:
    source = write_set(tmp_path / "data", kind)
    label_some(source, LABELS)
    label_some(source, {0: "dog", 3: None}, "train")
    journal, data = opened(source)
    expected = open_source(str(source))
    for out in (tmp_path / "data" / "labels.csv", tmp_path / "labels.csv"):
        export_labels(journal, data, out)
        read = open_source(str(out))
        assert labels_of(read) == labels_of(expected)
        assert unlabeled_of(read) == unlabeled_of(expected)
        assert read.test is not None
        assert len(read.test) == 4
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "labels.csv"
    notes = export_labels(journal, data, out)
    assert any("--data" in note for note in notes)
    assert labels_of(open_source(str(out), data=tmp_path / "data")) == labels_of(expected)
    if kind == "manifest":
        with pytest.raises(OptionError, match="another file"):
            export_labels(journal, data, source)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("folder", "manifest")])
def test_other_data_is_exported_by_name(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source = write_set(tmp_path / "data", kind)
    label_some(source, {1: "fox", 4: "cat", 9: None})
    journal, data = opened(source)
    notes = export_labels(journal, data, tmp_path / "labels.csv")
    assert any("by name" in note for note in notes)
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["name", "label"],
        [data.name("unlabeled", 1), "fox"],
        [data.name("unlabeled", 4), "cat"],
    ]
    with pytest.raises(OptionError, match="--export"):
        sort_files(journal, data)


@pytest.mark.parametrize("names", [("1.0", "2.0"), ("cat ", "cat"), ("7", "8.0")])
def test_names_that_a_table_would_change_are_refused(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for seed, name in enumerate(names):
        write_image(tmp_path / "labeled" / name / "a.png", seed)
    write_image(tmp_path / "unlabeled" / "b.png", 9)
    label_some(tmp_path, {0: names[0]})
    with pytest.raises(DataError, match="read back otherwise"):
        export_labels(*opened(tmp_path), tmp_path / "labels.csv")


def test_names_that_a_table_must_quote(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for seed, name in enumerate((' "a", b.png', "$HOME <b>.png", "=1+1.png", "é.png")):
        write_image(tmp_path / "unlabeled" / name, 80 + seed)
    names = open_for_labeling(str(tmp_path)).names("unlabeled")
    label_some(tmp_path, dict.fromkeys(range(len(names)), 'a "class", <b>'))
    journal, data = opened(tmp_path)
    export_labels(journal, data, tmp_path / "labels.csv")
    assert labels_of(open_source(str(tmp_path / "labels.csv"))) == labels_of(
        open_source(str(tmp_path))
    )
    write_image(bytes(tmp_path / "unlabeled") + b"/\xe9.png", 90)
    with pytest.raises(DataError, match="UTF-8"):
        export_labels(journal, open_for_labeling(str(tmp_path)), tmp_path / "labels.csv")
