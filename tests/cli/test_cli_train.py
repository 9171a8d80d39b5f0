"""From images to a run folder and on, as a person would do it."""

from __future__ import annotations

import csv
import gc
import io
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from daso.cli import main
from daso.cli.terminal.tables import class_table
from daso.data.open import open_source
from daso.data.source import Source
from daso.train.step.state import Training

Capture = pytest.CaptureFixture[str]
MakeFolder = Callable[..., Path]
TINY = ["--network", "small-4", "--batch", "8", "--evaluate-every", "2", "--device", "cpu"]


def config_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return value


@pytest.fixture(scope="module")
def _trained_folder(
    make_image_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    images = shutil.copytree(make_image_folder(), folder / "images")
    options = [
        "--method",
        "fixmatch",
        "--steps",
        "30",
        "--learning-rate",
        "0.1",
        "--ema-decay",
        "0.5",
    ]
    options += ["--evaluate-every", "15", "--out", str(folder / "run")]
    assert main(["train", str(images), *TINY, *options]) == 0
    return folder


@pytest.fixture
def trained_folder(_trained_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return copies of an image folder and of a run that has learned its three colors."""
    folder = shutil.copytree(_trained_folder, tmp_path / "trained")
    return folder / "images", folder / "run"


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


@pytest.mark.usefixtures("without_pictures")
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
    assert (run / "plots" / "recall.png").exists()
    assert config_of(run)["method"] == method


@pytest.mark.usefixtures("without_pictures")
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


@pytest.mark.usefixtures("without_pictures")
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


@pytest.mark.usefixtures("without_pictures")
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


@pytest.mark.usefixtures("without_pictures")
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


@pytest.mark.usefixtures("without_pictures")
def test_unreadable_images_are_skipped_where_that_is_wanted(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: Capture
) -> None:
    images, run = make_image_folder(), tmp_path / "run"
    (images / "labeled" / "red" / "000.png").write_bytes(b"no image")
    assert main(["train", str(images), "--out", str(run), *TINY, "--steps", "2", "--skip-bad"]) == 0
    assert "skipped" in capsys.readouterr().err
    assert json.loads((run / "data.json").read_text())["labeled_counts"] == [6, 5, 3]


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


@pytest.mark.usefixtures("without_pictures")
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
    original = config.read_text()
    config.write_text(original.replace('"labeled_head": 20', '"labeled_head": 19'))
    assert main(["evaluate", str(finished_run)]) == 1
    assert "not the images of the run" in capsys.readouterr().err
    config.write_text(original.replace("small-4", "small-6"))
    assert main(["evaluate", str(finished_run)]) == 1
    assert "do not match" in capsys.readouterr().err
    config.write_text(original)
    data = json.loads((finished_run / "data.json").read_text())
    del data["split_fingerprint"]
    (finished_run / "data.json").write_text(json.dumps(data))
    assert main(["evaluate", str(finished_run)]) == 1


@pytest.mark.usefixtures("without_pictures")
def test_brackets_in_names_are_printed_as_they_are(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run [red]"
    options = ["--method", "supervised", "--steps", "2", "--out", str(run)]
    assert main(["train", "digits", *TINY, *options]) == 0
    assert str(run) in capsys.readouterr().out
    metrics = {"recall": [0.5], "precision": [0.25]}
    Console().print(class_table(["[bold]"], [3], metrics))
    assert "[bold]" in capsys.readouterr().out


def test_plot(finished_run: Path, capsys: Capture) -> None:
    assert main(["plot", str(finished_run)]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in printed)


def predict(capsys: Capture, *arguments: str | Path) -> tuple[int, list[dict[str, str]], str]:
    status = main(["predict", *map(str, arguments), "--device", "cpu"])
    captured = capsys.readouterr()
    return status, list(csv.DictReader(io.StringIO(captured.out))), captured.err


def test_predict_finds_images_and_says_what_they_are(
    trained_folder: tuple[Path, Path], capsys: Capture
) -> None:
    images, run = trained_folder
    (images / "test" / ".hidden.png").write_bytes(b"")
    (images / "test" / "notes.txt").write_text("no image")
    status, rows, _ = predict(capsys, run, images / "test")
    assert status == 0
    assert [row["path"] for row in rows] == sorted(map(str, (images / "test").rglob("0*.png")))
    assert list(rows[0]) == ["path", "class", "confidence", "error"]
    right = [Path(row["path"]).parent.name == row["class"] for row in rows]
    last = json.loads((run / "summary.json").read_text())["last"]
    assert np.mean(right) == pytest.approx(last["accuracy"])
    assert np.mean(right) > 0.6
    assert all(1 / 3 - 1e-6 <= float(row["confidence"]) <= 1 for row in rows)
    assert {row["error"] for row in rows} == {""}


def test_predict_with_probabilities(trained_folder: tuple[Path, Path], capsys: Capture) -> None:
    images, run = trained_folder
    status, rows, _ = predict(capsys, run, images / "test", "--probabilities")
    assert status == 0
    names = ["blue", "green", "red"]
    columns = [f"probability_{name}" for name in names]
    assert list(rows[0]) == ["path", "class", "confidence", *columns, "error"]
    plain = np.array([[float(row[column]) for column in columns] for row in rows])
    np.testing.assert_allclose(plain.sum(1), 1, atol=2e-6)
    for row, probs in zip(rows, plain, strict=True):
        assert row["class"] == names[int(probs.argmax())]
        assert float(row["confidence"]) == probs.max()
    _, rows, _ = predict(capsys, run, images / "test", "--probabilities", "--logit-adjusted")
    adjusted = np.array([[float(row[column]) for column in columns] for row in rows])
    expected = plain / np.array([6, 5, 4])
    np.testing.assert_allclose(adjusted, expected / expected.sum(1, keepdims=True), atol=1e-5)


def test_predict_goes_on_past_an_unreadable_image(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    images, run = trained_folder
    bad, good = tmp_path / "bad.png", images / "test" / "red" / "000.png"
    bad.write_bytes(b"no image")
    status, rows, errors = predict(capsys, run, bad, good, good)
    assert status == 1
    assert rows[0]["class"] == ""
    assert "not a readable image" in rows[0]["error"]
    assert rows[1]["class"] in ("blue", "green", "red")
    assert rows[1] == rows[2]
    assert "1 of 3 images could not be read" in errors
    status, rows, _ = predict(capsys, run, bad, "--probabilities")
    assert status == 1
    assert list(rows[0].values())[1:-1] == [""] * 5


def test_predict_takes_images_of_any_size_and_color(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    _, run = trained_folder
    Image.new("L", (100, 40), 128).save(tmp_path / "gray.jpg")
    Image.new("RGBA", (5, 9), (200, 40, 30, 255)).save(tmp_path / "red, or so.png")
    status, rows, _ = predict(capsys, run, tmp_path / "gray.jpg", tmp_path / "red, or so.png")
    assert status == 0
    assert rows[1]["path"].endswith("red, or so.png")


def test_predict_writes_a_file(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    images, run = trained_folder
    out = tmp_path / "out.csv"
    out.write_text("old")
    status, rows, errors = predict(capsys, run, images / "unlabeled", "--out", out)
    assert (status, rows) == (0, [])
    assert "24 images" in errors
    with out.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 24
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("out", ["nowhere/out.csv", "file/out.csv", "folder"])
def test_predict_cannot_write(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture, out: str
) -> None:
    images, run = trained_folder
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    status, _, errors = predict(capsys, run, images / "test", "--out", tmp_path / out)
    assert status == 1
    assert "cannot write" in errors
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.tmp"))


def test_predict_names_files_whose_names_are_not_unicode(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    images, run = trained_folder
    odd = tmp_path / "odd"
    odd.mkdir()
    # Folders from older systems hold names in Latin-1, which Python hands on as lone surrogates.
    shutil.copy(images / "test" / "red" / "000.png", odd / "caf\udce9.png")
    out = tmp_path / "out.csv"
    status, _, _ = predict(capsys, run, odd, "--out", out)
    assert status == 0
    assert len(out.read_bytes().splitlines()) == 2


def test_predict_without_images(finished_run: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    for images, message in (
        (tmp_path / "empty", "no image"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        status, rows, errors = predict(capsys, finished_run, images)
        assert status == 1
        assert message in errors + "".join(row["error"] for row in rows)


def test_predict_from_a_damaged_run(finished_run: Path, tmp_path: Path, capsys: Capture) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    newest = max((finished_run / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])
    status, rows, errors = predict(capsys, finished_run, tmp_path / "image.png")
    assert (status, len(rows)) == (0, 1)
    assert "damaged checkpoint" in errors
    for path in (finished_run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    status, rows, errors = predict(capsys, finished_run, tmp_path / "image.png")
    assert (status, rows) == (1, [])
    assert "every checkpoint" in errors
