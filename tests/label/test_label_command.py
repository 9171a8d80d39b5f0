"""What ``daso label`` does without a page: errors in words, --export and --apply."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from label.conftest import NAMES, TESTED

from daso.cli import main
from daso.data.journal import Journal, journal_path
from daso.data.labeling import open_for_labeling
from daso.label.session import Session


@pytest.fixture
def labeled(photos: Path) -> Path:
    """Return folders with a journal that calls two unlabeled images "two" and "new"."""
    data = open_for_labeling(str(photos))
    journal = Journal.open(journal_path(photos))
    for index, label in enumerate(("two", "new")):
        name, checksum = data.name("unlabeled", index), data.checksum("unlabeled", index)
        journal.append("label", image=name, checksum=checksum, label=label)
    journal.close()
    return photos


def test_wrong_uses_are_told_in_words(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = photos.parent / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({}))
    cases = [
        (["no/such/folder"], "no such"),
        (["digits"], "digits"),
        ([str(photos), "--port", "70000"], "--port"),
        ([str(photos), "--links"], "--apply"),
        ([str(photos), "--apply", "--links", "--move"], "one of"),
        ([str(photos), "--apply", "--export", "x.csv"], "one of"),
        ([str(photos), "--export", "x.txt"], ".csv"),
        ([str(photos), "--out", str(run / "config.json"), "--no-open"], "cannot write into"),
        ([str(photos), "--train=--out elsewhere"], "--out"),
        ([str(photos), "--train='"], "--train"),
        ([str(run), "--test", str(photos)], "run"),
        ([str(photos), "--network", "no-such"], "pretrained"),
        ([str(photos), "--host", "203.0.113.7", "--no-open"], "203.0.113.7"),
    ]
    monkeypatch.chdir(photos.parent)
    for words, told in cases:
        assert main(["label", *words]) in (1, 2), words
        error = capsys.readouterr().err
        assert told in error, (words, error)
        assert "Traceback" not in error
    assert not journal_path(photos).exists()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["label", str(photos)]) == 1
    assert "daso[label]" in capsys.readouterr().err


def test_classes_of_the_test_folder_are_offered_from_the_start(photos: Path) -> None:
    shutil.rmtree(photos / "labeled")
    data = open_for_labeling(str(photos))
    session = Session(data, Journal.open(data.journal))
    shown = [(one["name"], one["labels"], one["added"]) for one in session.state()["classes"]]
    assert shown == [(name, 0, False) for name in sorted(NAMES)]
    session.assign([3], "two")
    session.journal.close()
    again = open_for_labeling(str(photos))
    assert again.class_names[0] == "two"
    assert sorted(again.class_names) == sorted(NAMES)
    assert len(again.pools["test"]) == TESTED


def _counts(folder: Path) -> tuple[object, ...]:
    """What the page says of a folder, if it is opened anew."""
    data = open_for_labeling(str(folder))
    with Journal.open(data.journal) as journal:
        state = Session(data, journal).state()
    labels = {one["name"]: one["labels"] for one in state["classes"]}
    return labels, state["images"], state["undecided"], state["none"]


def test_labels_are_exported_and_files_are_sorted_and_put_back(
    labeled: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # these need no server
    table = labeled.parent / "labels.csv"
    (labeled / "labeled" / "more.doc").touch()
    assert main(["label", str(labeled), "--export", str(table)]) == 0
    assert capsys.readouterr().err.count("more.doc") == 1
    with table.open(newline="") as file:
        rows = [row["label"] for row in csv.DictReader(file)]
    assert rows.count("new") == 1
    before = {path.relative_to(labeled) for path in labeled.rglob("*.png")}
    counts = _counts(labeled)
    assert main(["label", str(labeled), "--apply"]) == 0
    assert _counts(labeled) == counts, "an image and its sorted copy are one"
    assert main(["label", str(labeled), "--apply", "--undo"]) == 0
    assert main(["label", str(labeled), "--apply", "--move"]) == 0
    assert len(list((labeled / "labeled" / "new").iterdir())) == 1
    assert len(list(labeled.rglob("*.png"))) == len(before)
    assert main(["label", str(labeled), "--apply", "--undo"]) == 0
    assert {path.relative_to(labeled) for path in labeled.rglob("*.png")} == before


def test_images_that_cannot_be_labeled_or_exported_are_named(
    labeled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((labeled / "unlabeled").iterdir())
    shutil.copy(image, labeled / "labeled" / "stray.png")
    shutil.rmtree(labeled / "labeled" / "three")
    data = open_for_labeling(str(labeled))
    with Journal.open(data.journal) as journal:  # whose class is left without a labeled image
        for index in np.flatnonzero(data.pools["train"].labels == data.class_names.index("four")):
            image, checksum = data.name("train", index), data.checksum("train", index)
            journal.append("label", image=image, checksum=checksum, label="two")
    assert main(["label", str(labeled), "--export", str(labeled.parent / "labels.csv")]) == 0
    told = capsys.readouterr().err
    assert told.count("stray.png: lies outside a class folder") == 1
    assert told.count("class 'three' has no labeled image to learn from (8 here)") == 1
    assert told.count("no labeled image of class 'four'") == 1
