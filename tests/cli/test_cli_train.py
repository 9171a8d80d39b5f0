"""From images to a run folder and on, as a person would do it."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from run_files import edit

from daso.cli import main
from daso.cli.terminal.tables import class_table
from daso.data.open import open_source
from daso.data.source import Source
from daso.files import read_json
from daso.train.step.state import Training

Capture = pytest.CaptureFixture[str]
MakeFolder = Callable[..., Path]
TINY = ["--network", "small-4", "--batch", "8", "--evaluate-every", "2", "--device", "cpu"]


def config_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


@pytest.mark.usefixtures("with_pictures")
def test_a_folder_of_images_is_trained_on_from_end_to_end(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images, run = make_image_folder(), tmp_path / "run"
    assert main(["train", str(images), "--out", str(run), *TINY, "--steps", "4"]) == 0
    captured = capsys.readouterr()
    assert "15 labeled images 12x12 of 3 classes" in captured.err
    assert "24 unlabeled, 6 hold-out, 12 test" in captured.err
    for name in ("blue", "green", "red", "balanced accuracy", "best on hold-out", str(run)):
        assert name in captured.out
    data = json.loads((run / "data.json").read_text())
    assert data["class_names"] == ["blue", "green", "red"]
    assert data["labeled_counts"] == [6, 5, 4]
    assert data["unlabeled_counts"] is None
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    pictures = {path.name for path in (run / "plots").iterdir()}
    assert pictures == {"classes.png", "training.png", "recall.png"}


def test_it_is_said_once_that_probabilities_are_not_calibrated(
    tmp_path: Path, capsys: Capture
) -> None:
    line = ["train", "digits", "--method", "supervised", *TINY, "--steps", "4"]
    for number, (holdout, reason) in enumerate(
        (("0", "there is no hold-out"), ("20", "20 held-out images are too few"), ("100", ""))
    ):
        assert main([*line, "--holdout", holdout, "--out", str(tmp_path / str(number))]) == 0
        said = capsys.readouterr().err
        assert said.count("probabilities are not calibrated") == bool(reason)
        assert reason in said


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "fixmatch+daso"])
def test_every_method_runs_from_end_to_end(method: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert (
        main(["train", "digits", "--method", method, "--out", str(run), *TINY, "--steps", "4"]) == 0
    )
    assert config_of(run)["method"] == method


def test_every_hyper_parameter_is_an_option_and_is_written_down(tmp_path: Path) -> None:
    run = tmp_path / "run"
    wanted = {
        "threshold": 0.5,
        "unlabeled_weight": 2.0,
        "weak_pass": "apart",
        "queue_length": 16,
        "prototype_temperature": 0.1,
        "dist_temperature": 0.3,
        "align_weight": 0.5,
        "warmup_steps": 1,
        "histogram_period": 2,
        "blend": "fixed",
        "fixed_blend": 0.25,
        "balanced_queue": False,
        "queue_encoder": "online",
        "queue_batch_statistics": False,
    }
    options: list[str] = []
    for name, value in wanted.items():
        option = name.replace("_", "-")
        options += [f"--no-{option}"] if value is False else [f"--{option}", str(value)]
    assert main(["train", "digits", "--out", str(run), *TINY, "--steps", "2", *options]) == 0
    assert config_of(run)["method_options"] == wanted


def test_options_of_training_split_and_views_are_written_down(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = "--steps 3 --unlabeled-ratio 1 --learning-rate 0.01 --schedule cosine --momentum 0.5 --seed 4 "
    options += (
        "--labeled-head 12 --unlabeled-head 24 --gamma-labeled 3 --gamma-unlabeled 2 --holdout 20 "
    )
    options += "--unlabeled-shape reversed --crop-padding 2 --cutout 0 --flip True --log-every 1"
    assert main(["train", "digits", "--out", str(run), *TINY, *options.split()]) == 0
    config = config_of(run)
    train = {
        "steps": 3,
        "unlabeled_ratio": 1,
        "learning_rate": 0.01,
        "schedule": "cosine",
        "momentum": 0.5,
    }
    assert train.items() <= config["train"].items()
    assert config["train"]["seed"] == 4
    assert config["split"] == {
        "labeled_head": 12,
        "unlabeled_head": 24,
        "gamma_labeled": 3.0,
        "gamma_unlabeled": 2.0,
        "unlabeled_shape": "reversed",
        "holdout": 20,
        "folds": None,
        "fold": None,
    }
    assert {"crop_padding": 2, "cutout": 0, "flip": True}.items() <= config["augmentation"].items()


def test_what_the_split_has_left_is_not_kept_while_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Any]] = []

    def remembered(*given: Any, **named: Any) -> Source:
        source = open_source(*given, **named)
        images = source.train.images
        assert isinstance(images, np.ndarray)
        read.append(weakref.ref(images if images.base is None else images.base))
        return source

    def advanced(training: Training, batch: Any) -> Any:
        gc.collect()
        alive.append(read[0]() is not None)
        return advance(training, batch)

    alive: list[bool] = []
    advance = Training.advance
    monkeypatch.setattr("daso.cli.training.source.open_source", remembered)
    monkeypatch.setattr(Training, "advance", advanced)
    options = ["--labeled-head", "20", "--unlabeled-head", "40", "--gamma-labeled", "4"]
    assert (
        main(["train", "digits", "--out", str(tmp_path / "run"), *TINY, *options, "--steps", "2"])
        == 0
    )
    assert alive == [False, False]


def test_run_folders_number_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", "digits", "--method", "supervised", *TINY, "--steps", "2"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "digits-supervised-1",
        "digits-supervised-2",
    ]


def test_a_folder_that_is_not_empty_is_refused_untouched(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["train", "digits", "--out", str(tmp_path), *TINY]) == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_out_path_that_is_a_file_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert main(["train", "digits", "--out", str(out), *TINY, "--steps", "2"]) in (1, 2)
        assert "file" in capsys.readouterr().err.splitlines()[-1]


def test_fewer_images_than_a_batch_are_noted(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images = make_image_folder(labeled=3, unlabeled=1, val=0, test=0)
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", str(images), *out, *TINY, "--batch", "32", "--steps", "2"]) == 0
    captured = capsys.readouterr()
    assert "6 labeled images are fewer than a batch of 32" in captured.err
    assert "nothing was measured" in captured.out


def test_two_classes_leave_a_group_empty(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images = make_image_folder(classes=("green", "red"))
    assert main(["train", str(images), "--out", str(tmp_path / "run"), *TINY, "--steps", "2"]) == 0
    summary = json.loads(
        (tmp_path / "run" / "summary.json").read_text(), parse_constant=pytest.fail
    )
    assert summary["median_of_last"]["recall_few"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: [p.unlink() for p in (images / "labeled" / "red").iterdir()], "'red'"),
        (
            lambda images: [shutil.rmtree(path) for path in images.glob("*/[br][le][ud]*")],
            "two classes",
        ),
        (
            lambda images: (images / "labeled" / "red" / "000.png").write_bytes(b"no image"),
            "000.png",
        ),
        (lambda images: shutil.rmtree(images / "labeled"), "labeled"),
        (lambda images: shutil.rmtree(images / "unlabeled"), "unlabeled images"),
    ],
    ids=[
        "a class without images",
        "one class",
        "an unreadable image",
        "no labels",
        "no unlabeled images",
    ],
)
def test_a_folder_that_cannot_be_trained_on(
    make_image_folder: MakeFolder,
    tmp_path: Path,
    capsys: Capture,
    change: Callable[[Path], object],
    message: str,
) -> None:
    images = make_image_folder()
    change(images)
    line = ["train", str(images), "--method", "fixmatch", "--out", str(tmp_path / "run"), *TINY]
    assert main(line) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_skipped_where_that_is_wanted(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images, run = make_image_folder(), tmp_path / "run"
    (images / "labeled" / "red" / "000.png").write_bytes(b"no image")
    assert main(["train", str(images), "--out", str(run), *TINY, "--steps", "2", "--skip-bad"]) == 0
    assert "skipped" in capsys.readouterr().err
    assert json.loads((run / "data.json").read_text())["labeled_counts"] == [6, 5, 3]


@pytest.mark.usefixtures("with_pictures")
def test_resume(finished_run: Path, capsys: Capture) -> None:
    newest = max((finished_run / "checkpoints").glob("step-*.json"))
    newest.write_text("damaged")
    (finished_run / "summary.json").unlink()
    assert main(["resume", str(finished_run)]) == 0
    captured = capsys.readouterr()
    assert "damaged checkpoint" in captured.err
    assert "resuming from step 15" in captured.err
    assert "20 steps" in captured.out
    assert main(["resume", str(finished_run)]) == 0
    assert (finished_run / "plots" / "recall.png").exists()


def test_resume_where_the_images_have_gone(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images, run = make_image_folder(), tmp_path / "run"
    assert main(["train", str(images), "--out", str(run), *TINY, "--steps", "2"]) == 0
    next((images / "labeled" / "blue").iterdir()).unlink()
    assert main(["resume", str(run)]) == 1
    assert "has changed" in capsys.readouterr().err
    shutil.rmtree(images)
    assert main(["resume", str(run)]) == 1
    assert str(images) in capsys.readouterr().err


def test_evaluate(finished_run: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(finished_run), "--device", "cpu"]) == 0
    table = capsys.readouterr().out
    for text in (
        "on test images, after 20 steps",
        "on held-out images, after 20 steps",
        "balanced accuracy",
        "labeled",
        "precision",
    ):
        assert text in table
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    assert main(["evaluate", str(finished_run), "--json", "--device", "cpu"]) == 0
    numbers = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    last = json.loads((finished_run / "summary.json").read_text())["last"]
    assert numbers["step"] == 20
    assert numbers["test"]["recall"] == last["recall"]
    assert numbers["test"]["loss"] == pytest.approx(last["loss"], rel=1e-5)
    assert {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()} == before


def test_evaluate_refuses_what_does_not_fit(finished_run: Path, capsys: Capture) -> None:
    config = finished_run / "config.json"
    original = json.dumps(read_json(config))
    config.write_text(original.replace('"labeled_head": 20', '"labeled_head": 19'))
    assert main(["evaluate", str(finished_run)]) == 1
    assert "config.json was changed" in capsys.readouterr().err
    config.write_text(original.replace("small-4", "small-6"))
    assert main(["evaluate", str(finished_run)]) == 1
    assert "config.json was changed" in capsys.readouterr().err
    config.write_text(original)
    edit(finished_run / "data.json", lambda data: data.pop("split_fingerprint"))
    assert main(["evaluate", str(finished_run)]) == 1


def test_brackets_in_names_are_printed_as_they_are(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run [red]"
    options = ["--method", "supervised", "--steps", "2", "--out", str(run)]
    assert main(["train", "digits", *TINY, *options]) == 0
    assert str(run) in capsys.readouterr().out
    metrics = {"recall": [0.5], "precision": [0.25]}
    Console().print(class_table(["[bold]"], [3], metrics))
    assert "[bold]" in capsys.readouterr().out


@pytest.mark.usefixtures("with_pictures")
def test_plot(finished_run: Path, capsys: Capture) -> None:
    assert main(["plot", str(finished_run)]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in printed)
