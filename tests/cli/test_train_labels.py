"""The labels of daso label on the command line: training, resuming, repeating, validating."""

from __future__ import annotations

from pathlib import Path

import pytest
from label_sets import label_some, write_folder

from daso.cli import main
from daso.errors import RunError
from daso.files import read_json
from daso.train.config import RunConfig
from daso.train.prepare import prepare_again

Capture = pytest.CaptureFixture[str]
FAST = ("--method", "supervised", "--steps", "6", "--batch", "4", "--network", "small-4")


def train(source: Path, out: Path, *options: str) -> dict[str, object]:
    assert (
        main(["train", str(source), "--out", str(out), *FAST, "--evaluate-every", "3", *options])
        == 0
    )
    return read_json(out / "data.json")


def test_a_run_keeps_its_labels_while_labeling_goes_on(tmp_path: Path, capsys: Capture) -> None:
    photos = write_folder(tmp_path / "photos")
    first = train(photos, tmp_path / "first")
    assert "journal" not in first
    label_some(photos, {0: "cat", 1: "fox", 2: None})
    second = train(photos, tmp_path / "second")
    assert "2 labels of daso label are used (1 cat, 1 fox)" in capsys.readouterr().err
    journal = second["journal"]
    assert isinstance(journal, dict)
    assert (journal["entries"], journal["labels"], journal["none"]) == (3, 2, 1)
    assert second["class_names"] == ["cat", "dog", "fox"]
    label_some(photos, {3: "fox", 4: "dog"})

    # Both runs still have their own labels: to resume, report and validate them.
    for name, expected in (("first", first), ("second", second)):
        folder = tmp_path / name
        config = RunConfig.read(folder)
        data = prepare_again(folder, config).data
        assert data.class_counts.tolist() == expected["labeled_counts"]
    second_run = str(tmp_path / "second")
    assert main(["validate", second_run, "--folds", "2", "--steps", "2", "--quiet"]) == 0
    capsys.readouterr()

    again = tmp_path / "again"
    assert main(["train", "--like", str(tmp_path / "second"), "--out", str(again)]) == 0
    said = capsys.readouterr().err
    assert "13 -> 15 labels (dog 5 -> 6, fox 1 -> 2)" in said
    assert "2 -> 4 labels of daso label" in said
    assert "journal" not in said.partition("options:")[2].partition("data:")[0]
    assert RunConfig.read(again).journal == 5

    without = train(photos, tmp_path / "without", "--no-journal")
    assert without["labeled_counts"] == first["labeled_counts"]
    assert RunConfig.read(tmp_path / "without").journal == 0


def test_a_journal_that_is_gone_is_told_in_words(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos")
    journal = label_some(photos, {0: "cat", 1: "dog"})
    train(photos, tmp_path / "run")
    journal.unlink()
    with pytest.raises(RunError, match="2 -> 0 labels of daso label"):
        prepare_again(tmp_path / "run", RunConfig.read(tmp_path / "run"))


def test_data_check_sees_the_labels(tmp_path: Path, capsys: Capture) -> None:
    photos = write_folder(tmp_path / "photos")
    label_some(photos, {0: "cat", 1: "fox"})
    assert main(["data", "check", str(photos)]) == 0
    shown = capsys.readouterr().out
    assert "2 labels of daso label are used" in shown
    assert "only one labeled image of 1 class: 'fox'" in shown
