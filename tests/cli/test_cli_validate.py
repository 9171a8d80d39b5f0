"""daso validate: folds are trained, stopped validations go on, the run stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_files import edit

from daso.cli import main
from daso.data.longtail import SplitOptions
from daso.errors import OptionError
from daso.report.uncertainty import interval
from daso.train.cross_validation import check_folds, fold_config
from tests.conftest import MakeConfig, MakeFolder

TINY = "--steps 30 --batch 8 --network small-4 --evaluate-every 15 --quiet"


@pytest.fixture
def run_folder(make_image_folder: MakeFolder, tmp_path: Path) -> Path:
    images = make_image_folder(labeled=7, val=0)
    folder = tmp_path / "run"
    assert (
        main(["train", str(images), "--out", str(folder), "--method", "supervised", *TINY.split()])
        == 0
    )
    return folder


def test_every_labeled_image_is_measured_and_what_is_done_is_not_done_again(
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
    half = interval(np.array(result["recall"]), np.array(result["measured"], dtype=float))
    assert half is not None
    assert f"{100 * result['balanced_accuracy']:.1f}% ± {100 * half:.1f} (95%)" in output.out
    assert answers.stat().st_mtime_ns == written
    assert json.loads((run_folder / "cross_validation.json").read_text()) == result


def test_other_labels_and_images_than_the_runs_are_refused(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["validate", str(run_folder), "--folds", "2", "--steps", "10", "--quiet"]
    assert main(line) == 0
    written = (run_folder / "cross_validation-10-steps.json").read_bytes()
    images = Path(json.loads((run_folder / "config.json").read_text())["source"])
    blue, red = (sorted((images / "labeled" / name).iterdir()) for name in ("blue", "red"))
    place, mended = blue[0], images / "labeled" / "red" / "mended.png"
    place.rename(mended)
    capsys.readouterr()
    assert main(line) == 1
    assert "blue 7 -> 6" in capsys.readouterr().err
    mended.rename(place)
    swap(blue[0], red[0])
    assert main(line) == 1
    assert "labels as before, but other images" in capsys.readouterr().err
    swap(blue[0], red[0])
    new = next((images / "unlabeled").rglob("*.png"))
    new.rename(images / "kept.png")
    assert main(line) == 1
    assert "unlabeled images" in capsys.readouterr().err
    (images / "kept.png").rename(new)
    assert main(line) == 0
    assert (run_folder / "cross_validation-10-steps.json").read_bytes() == written


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_more_folds_than_images_are_refused_before_anything_is_trained(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["validate", str(run_folder), "--folds", "19", "--quiet"]) == 2
    assert "18 labeled images to test" in capsys.readouterr().err
    assert not (run_folder / "19-folds").exists()
    check_folds(np.array([0, 0, 1, 2, 2]), 4)
    with pytest.raises(OptionError, match="4 labeled images"):
        check_folds(np.array([0, 0, 1, 2, 2]), 5)


def test_folds_of_another_training_are_refused(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["validate", str(run_folder), "--folds", "2", "--steps", "10", "--quiet"]
    assert main(line) == 0
    fold = run_folder / "2-folds-10-steps" / "1"
    for name, change in (
        ("config.json", lambda saved: saved["train"].update(learning_rate=0.5)),
        ("data.json", lambda saved: saved.update(split_fingerprint="0" * 16)),
        ("answers.json", lambda saved: saved["labels"].append(0)),
        ("answers.json", lambda saved: saved["images"].update(labeled="0" * 16)),
    ):
        before = (fold / name).read_bytes()
        edit(fold / name, change)
        capsys.readouterr()
        assert main(line) == 1, name
        assert "remove" in capsys.readouterr().err
        (fold / name).write_bytes(before)


def test_a_benchmarks_split_is_refused(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(finished_run)]) == 2
    assert "drawn from a larger set" in capsys.readouterr().err
    assert main(["validate", str(finished_run.parent / "nothing")]) == 1


def test_shorter_trainings_measure_the_held_out_images_and_are_kept_apart(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["validate", str(run_folder), "--folds", "2", "--steps", "10"]
    capsys.readouterr()
    assert main(line) == 0
    captured = capsys.readouterr()
    # There are test images, but what a fold holds out is what is measured.
    assert captured.err.count("on held-out images at the end") == 2
    assert "on test images" not in captured.err + captured.out
    assert "10 steps; the run has 30" in captured.out
    config = json.loads((run_folder / "2-folds-10-steps" / "0" / "config.json").read_text())
    assert (config["train"]["steps"], config["train"]["evaluate_every"]) == (10, 5)
    assert json.loads((run_folder / "cross_validation-10-steps.json").read_text())["steps"] == 10
    assert not (run_folder / "cross_validation.json").exists()
    assert main([*line[:-1], "0"]) == 2


def test_the_warm_up_of_a_shorter_training_is_shorter(tiny_config: MakeConfig) -> None:
    config = tiny_config(
        split=SplitOptions(), method_options={"warmup_steps": 8}, steps=40, evaluate_every=None
    )
    shorter = fold_config(config, 5, 1, 20)
    assert shorter.method_options["warmup_steps"] == 4
    assert shorter.split == SplitOptions(folds=5, fold=1)
    assert fold_config(config, 5, 1, 40) == fold_config(config, 5, 1)
