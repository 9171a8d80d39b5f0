"""daso validate: folds are trained, stopped validations go on, the run stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daso.cli import main
from tests.conftest import MakeFolder

TINY = ["--steps", "30", "--batch", "8", "--network", "small-4", "--evaluate-every", "15", "--quiet"]


@pytest.fixture
def run_folder(make_image_folder: MakeFolder, tmp_path: Path) -> Path:
    images = make_image_folder(labeled=7, val=0)
    folder = tmp_path / "run"
    assert main(["train", str(images), "--out", str(folder), "--method", "supervised", *TINY]) == 0
    return folder


def test_every_labelled_image_is_measured_and_what_is_done_is_not_done_again(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run_folder / "summary.json").read_bytes()
    capsys.readouterr()
    assert main(["validate", str(run_folder), "--folds", "3", "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["measured"] == result["labeled"] == [7, 6, 5]
    assert result == json.loads((run_folder / "cross_validation.json").read_text())
    assert (run_folder / "summary.json").read_bytes() == before

    answers = run_folder / "3-folds" / "1" / "answers.json"
    written, other = answers.stat().st_mtime_ns, (run_folder / "3-folds" / "2" / "answers.json")
    other.unlink()  # as if it had been stopped there
    assert main(["validate", str(run_folder), "--folds", "3", "--quiet"]) == 0
    output = capsys.readouterr()
    assert "fold 3 of 3" in output.err
    assert "fold 2 of 3" not in output.err
    assert "95% interval" in output.out
    assert answers.stat().st_mtime_ns == written
    assert json.loads((run_folder / "cross_validation.json").read_text()) == result


def test_a_benchmarks_split_is_refused(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(finished_run)]) == 2
    assert "drawn from a larger set" in capsys.readouterr().err
    assert main(["validate", str(finished_run.parent / "nothing")]) == 1
