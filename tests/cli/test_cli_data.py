"""``daso data check`` and the sources of ``daso train`` that are manifests or several folders."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daso.cli import main
from daso.data.images.layout import Layout
from tests.conftest import MakeFolder


def listed(folder: Path) -> Path:
    """Write a manifest of an image folder."""
    rows = ["file_name,category,split"]
    for path in sorted(folder.rglob("*.png")):
        part, name = path.relative_to(folder).parts[:2]
        rows.append(f"{path.relative_to(folder)},{name if part != 'unlabeled' else ''},{part}")
    manifest = folder / "photos.csv"
    manifest.write_text("\n".join(rows))
    return manifest


def test_check_shows_a_table_and_a_verdict(
    make_image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_image_folder()
    assert main(["data", "check", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "15 labeled, 24 unlabeled, 6 validation, 12 test images of 3 classes" in shown
    assert "all are 12 x 12 pixels; training uses 12 x 12 pixels in color" in shown
    assert shown.rstrip().splitlines()[-1] == "No problems found."


def test_check_names_what_is_wrong_and_fails(
    make_image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_image_folder()
    for index in range(7):
        (folder / "unlabeled" / f"[bold]bad{index}.jpg").write_bytes(b"no image")
    assert main(["data", "check", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "refused 7 images cannot be read" in shown
    assert f"{folder}/unlabeled/[bold]bad0.jpg: not a readable image" in shown
    assert "and 2 more" in shown
    assert re.search("Training refuses this data: .*--skip-bad", shown)
    assert main(["data", "check", str(folder), "--all"]) == 1
    assert "bad6.jpg" in capsys.readouterr().out


def test_check_as_json(make_image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_image_folder()
    (folder / "test" / "red" / "leak.png").write_bytes(
        (folder / "labeled" / "red" / "000.png").read_bytes()
    )
    assert main(["data", "check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["would_train"] is False
    assert [finding["code"] for finding in report["findings"] if finding["level"] == "refused"] == [
        "leak"
    ]
    assert main(["data", "check", str(folder / "nowhere"), "--json"]) == 1
    assert "no such source" in json.loads(capsys.readouterr().out)["error"]


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "chek", "x"]) == 2
    assert "Did you mean 'check'" in capsys.readouterr().err
    assert main(["data"]) == 2
    assert main(["data", "check"]) == 2
    assert "--labeled FOLDER" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "--labeled FOLDER" in capsys.readouterr().err
    for verb in (["train"], ["data", "check"]):
        assert main([*verb, "digits", "--labeled", str(tmp_path)]) == 2
        assert "--labeled" in capsys.readouterr().err


TRAIN = ["--steps", "2", "--batch", "4", "--network", "small-4", "--device", "cpu"]


def test_train_on_a_manifest_and_evaluate_it_where_it_moved(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, run = listed(make_image_folder()), tmp_path / "run"
    assert main(["train", str(manifest), *TRAIN, "--out", str(run)]) == 0
    told = capsys.readouterr().err
    assert (
        "path from column 'file_name', label from column 'category', split from column 'split'"
        in told
    )
    assert "15 labeled images 12x12 of 3 classes" in told
    moved = manifest.parent.rename(tmp_path / "moved")
    assert main(["evaluate", str(run)]) == 1
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(moved / "photos.csv"), "--json"]) == 0
    assert "test" in json.loads(capsys.readouterr().out)


def test_images_of_a_manifest_elsewhere(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_image_folder()
    manifest, run = listed(folder).rename(tmp_path / "photos.csv"), tmp_path / "run"
    assert main(["train", str(manifest), *TRAIN, "--out", str(run)]) == 1
    assert main(["train", str(manifest), "--data", str(folder), *TRAIN, "--out", str(run)]) == 0
    moved = folder.rename(tmp_path / "moved")
    assert main(["evaluate", str(run), "--data", str(moved)]) == 0
    assert "are not those of the run" not in capsys.readouterr().err


def test_train_on_parts_in_several_folders(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, away, run = make_image_folder(), tmp_path / "away", tmp_path / "run"
    away.mkdir()
    for name in ("labeled", "unlabeled", "test"):
        (folder / name).rename(away / f"my-{name}")
    parts = [f"--{name}={away / f'my-{name}'}" for name in ("labeled", "unlabeled", "test")]
    assert main(["data", "check", *parts]) == 0
    assert main(["train", *parts, *TRAIN, "--out", str(run)]) == 0
    assert "15 labeled images 12x12 of 3 classes" in capsys.readouterr().err
    moved = away.rename(tmp_path / "moved")
    assert main(["evaluate", str(run), "--data", str(moved / "my-labeled")]) == 0
    assert main(["resume", str(run), "--data", str(moved / "my-labeled")]) == 0
    assert "are not those of the run" not in capsys.readouterr().err


def test_leaks_stop_a_training_unless_told_to_skip_them(
    make_image_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = make_image_folder(), tmp_path / "run"
    (folder / "test" / "red" / "leak.png").write_bytes(
        (folder / "labeled" / "red" / "000.png").read_bytes()
    )
    assert main(["train", str(folder), *TRAIN, "--out", str(run)]) == 1
    assert "leak.png is a test image, and the same image as the labeled" in capsys.readouterr().err
    assert not run.exists()
    assert main(["train", str(folder), *TRAIN, "--out", str(run), "--skip-bad"]) == 0
    told = capsys.readouterr().err
    assert "skipped " in told
    assert "leak.png" in told
    assert json.loads((run / "data.json").read_text())["test"] == 12


@pytest.mark.parametrize(("accelerator", "side"), [("cpu", 32), ("cuda", 48)])
def test_check_tells_the_size_that_training_takes_here(
    accelerator: str,
    side: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        path = tmp_path / "photos" / "labeled" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(path)
    monkeypatch.setattr(
        "daso.train.step.state.choose_device", lambda name: torch.device(accelerator)
    )
    photos = str(tmp_path / "photos")
    assert main(["data", "check", photos]) == 0
    said = capsys.readouterr().out
    assert f"training uses {side} x {side} pixels in color" in said
    assert ("no accelerator" in said) == (side == 32)
    assert main(["data", "check", photos, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training_shape"] == [3, side, side]
    assert main(["data", "check", photos, "--size", "40"]) == 0
    assert "training uses 40 x 40" in capsys.readouterr().out


def test_without_an_accelerator_large_images_are_read_small_and_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for index in range(5):
            path = tmp_path / "photos" / "labeled" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (120, 100, 3), dtype=np.uint8)).save(path)
    decoded = 0
    original = Layout.decode_picture

    def counting(layout: Layout, source: Path) -> Any:
        nonlocal decoded
        decoded += 1
        return original(layout, source)

    monkeypatch.setattr(Layout, "decode_picture", counting)
    source, run = str(tmp_path / "photos"), tmp_path / "run"
    assert main(["train", source, "--method", "supervised", *TRAIN, "--out", str(run)]) == 0
    assert "images are resized to 32 x 32 pixels to save time; --size 96" in capsys.readouterr().err
    assert decoded == 10
    assert json.loads((run / "data.json").read_text())["image_shape"] == [3, 32, 32]
    assert json.loads((run / "config.json").read_text())["size"] == 32


def test_names_are_shown_as_they_are_written(
    make_image_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_image_folder()
    for part in ("labeled", "val", "test"):
        (folder / part / "red").rename(folder / part / ":cat:[b]")
    assert main(["data", "check", str(folder)]) == 0
    assert ":cat:[b]" in capsys.readouterr().out
    assert main(["data", "check", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["endings"] == {".png": 57}
