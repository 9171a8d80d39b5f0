"""Predictions for files: which are found, what is written, and what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rights import as_nobody

from daso.cli import main
from daso.cli.prediction.inputs import Inputs

Capture = pytest.CaptureFixture[str]
MakeFolder = Callable[..., Path]
TINY = ["--network", "small-4", "--batch", "8", "--evaluate-every", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def _trained_folder(
    make_image_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    images = shutil.copytree(make_image_folder(), folder / "images")
    options = "--method fixmatch --steps 30 --learning-rate 0.1 --ema-decay 0.5 --evaluate-every 15"
    words = [*TINY, *options.split(), "--out", str(folder / "run")]
    assert main(["train", str(images), *words]) == 0
    return folder


@pytest.fixture
def trained_folder(_trained_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Return copies of an image folder and of a run that has learned its three colors."""
    folder = shutil.copytree(_trained_folder, tmp_path / "trained")
    return folder / "images", folder / "run"


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
    (images / "test" / "daso-labels.jsonl").write_text("")
    status, rows, said = predict(capsys, run, images / "test")
    assert "daso-labels" not in said
    assert status == 0
    assert [row["path"] for row in rows] == sorted(map(str, (images / "test").rglob("0*.png")))
    assert list(rows[0]) == ["path", "class", "confidence", "error"]
    right = [Path(row["path"]).parent.name == row["class"] for row in rows]
    last = json.loads((run / "summary.json").read_text())["last"]
    assert np.mean(right) == pytest.approx(last["accuracy"])
    assert np.mean(right) > 0.6
    assert all(1 / 3 - 1e-6 <= float(row["confidence"]) <= 1 for row in rows)
    assert {row["error"] for row in rows} == {""}


def test_a_pattern_names_each_image_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a b/0.png", "a/0.png", "a/b/c/0.png", "a/b/1.png")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for pattern in ("**", "*", "a*/**", "*/**", "**/*.png"):
        found = [item.value for item in Inputs([f"{tmp_path}/{pattern}"])]
        assert sorted(map(str, found)) == sorted(map(str, files)), pattern


def test_further_frames_are_named_and_not_classified(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    run, folder = trained_folder[1], tmp_path / "frames"
    folder.mkdir()
    frames = [Image.new("RGB", (12, 12), color) for color in ("red", "blue")]
    for name in ("pages.tif", "moving.gif", "moving.png", "still.gif"):
        further = {} if name == "still.gif" else {"save_all": True, "append_images": frames[1:]}
        frames[0].save(folder / name, **further)
    status, rows, said = predict(capsys, run, folder)
    assert status == 0
    assert {row["class"] for row in rows} == {"red"}
    assert "3 files hold several frames or pages" in said
    assert "moving.gif" in said
    assert "several" not in predict(capsys, run, folder / "still.gif")[2]


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


def test_predict_cannot_write(
    trained_folder: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    images, run = trained_folder
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for out in ("nowhere/out.csv", "file/out.csv", "folder"):
        status, _, errors = predict(capsys, run, images / "test", "--out", tmp_path / out)
        assert status == 1, out
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


def test_an_image_in_a_closed_folder_is_not_called_missing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "image.png").touch()
    closed.chmod(0)
    try:
        with as_nobody(tmp_path), pytest.raises(PermissionError):
            Inputs([str(closed / "image.png")])
    finally:
        closed.chmod(0o755)
