"""What daso advises, done as it says: every piece of advice must work."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daso.cli import main
from daso.cli.training import session
from daso.files import read_json

Capture = pytest.CaptureFixture[str]
CLASSES = ("cat", "dog", "emu")
QUICK = ["--method", "supervised", "--network", "small-4", "--steps", "2", "--batch", "4"]
QUICK += ["--device", "cpu", "--size", "8"]


def tiny(folder: Path, labeled: tuple[int, ...] = (12, 6, 4), **parts: int) -> Path:
    """Write a folder of images in which a class is a brightness; *parts* hold so many of each."""
    random = np.random.default_rng(0)
    counts = {"labeled": labeled} | {name: (n,) * len(labeled) for name, n in parts.items()}
    for part, numbers in counts.items():
        for k, number in enumerate(numbers):
            place = folder / part / (CLASSES[k] if part != "unlabeled" else "")
            place.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                pixels = 40 + 80 * k + random.integers(0, 40, (8, 8))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{k}-{i}.png")
    return folder


def train(capsys: Capture, *words: object) -> str:
    """Train as asked; return what was printed."""
    capsys.readouterr()
    assert main(["train", *map(str, words)]) == 0
    said = capsys.readouterr()
    return said.err + said.out


def advised(said: str, pattern: str) -> list[str]:
    """Return the words of the only command or option of that form in what was printed."""
    (found,) = set(re.findall(pattern, said))
    return str(found).split()


def test_a_holdout_that_strips_a_class_is_told_and_the_one_advised_does_not(
    tmp_path: Path, capsys: Capture
) -> None:
    images = tiny(tmp_path / "images", test=2)
    said = train(capsys, images, *QUICK, "--quiet", "--holdout", 12, "--out", tmp_path / "a")
    assert "1 of 4 of emu" in said
    assert min(read_json(tmp_path / "a" / "data.json")["labeled_counts"]) == 1
    option = advised(said, r"(--holdout \d+) leaves at least half")
    said = train(capsys, images, *QUICK, *option, "--out", tmp_path / "b")
    assert "few labels to learn from" not in said
    data = read_json(tmp_path / "b" / "data.json")
    assert data["holdout"] == int(option[1])
    assert all(2 * left >= all_ for left, all_ in zip(data["labeled_counts"], (12, 6, 4)))  # noqa: B905


def test_a_holdout_is_advised_where_nothing_is_measured(tmp_path: Path, capsys: Capture) -> None:
    images = tiny(tmp_path / "images", (4, 3, 2))
    said = train(capsys, images, *QUICK, "--out", tmp_path / "a")
    assert "nothing was measured" in said
    option = advised(said, r"(--holdout \d+) sets")
    said = train(capsys, images, *QUICK, *option, "--out", tmp_path / "b")
    assert "nothing was measured" not in said
    assert read_json(tmp_path / "b" / "summary.json")["measured_on"] == "holdout"


@pytest.mark.parametrize("labeled", [(40, 40, 40), (12, 6, 4)])
def test_what_is_advised_to_calibrate_calibrates(
    labeled: tuple[int, ...], tmp_path: Path, capsys: Capture
) -> None:
    images = tiny(tmp_path / "images", labeled, test=2)
    said = train(capsys, images, *QUICK, "--out", tmp_path / "a")
    assert "not calibrated" in said
    if min(labeled) == 40:
        words = advised(said, r"To calibrate, (--holdout \d+) sets")
    else:  # there are too few to set any aside
        found = re.search(r"give (\d+) or more for validation \((--val) FOLDER", said)
        assert found
        tiny(tmp_path / "more", (0, 0, 0), val=-(-int(found[1]) // 3))
        words = [found[2], str(tmp_path / "more" / "val")]
    said = train(capsys, images, *QUICK, *words, "--out", tmp_path / "b")
    assert "not calibrated" not in said
    assert "few labels to learn from" not in said
    assert "calibration error of daso predict" in said
    assert read_json(tmp_path / "b" / "calibration.json")["note"] is None


def test_too_few_validation_images_are_not_met_with_a_holdout(
    tmp_path: Path, capsys: Capture
) -> None:
    images = tiny(tmp_path / "images", val=2)
    said = train(capsys, images, *QUICK, "--out", tmp_path / "a")
    assert "--holdout" not in said  # which a source with validation images refuses
    assert "50 or more labeled validation images" in said


def test_train_label_train_again_compare(tmp_path: Path, capsys: Capture) -> None:
    images = tiny(tmp_path / "images", test=4, unlabeled=6)
    before, after, out = tmp_path / "before", tmp_path / "after", tmp_path / "out"
    train(capsys, images, *QUICK, "--out", before)
    for path in sorted((images / "unlabeled").glob("2-*.png"))[:3]:
        shutil.move(path, images / "labeled" / "emu" / f"new-{path.name}")
    said = train(capsys, "--like", before, "--out", after)
    assert "22 -> 25 labels (emu 4 -> 7)" in said
    assert "18 -> 15 unlabeled images" in said
    assert not re.search(r"\b[0-9a-f]{16}\b", said), "no fingerprints"
    assert main(["compare", str(before), str(after), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for text in ("(22 labels)", "(25 labels)", "95% interval", "recall per class", "4 / 7"):
        assert text in said, text

    # The run before can no longer be resumed, and what is advised instead works.
    (before / "summary.json").unlink()
    assert main(["resume", str(before)]) == 1
    said = capsys.readouterr().err
    assert "22 -> 25 labels" in said
    command = advised(said, r"'daso (train --like [^']+)'")
    assert main([*command, "--out", str(tmp_path / "again")]) == 0


def test_a_folder_with_a_run_is_resumed_and_one_without_is_not(
    tmp_path: Path, capsys: Capture
) -> None:
    images, run, notes = tiny(tmp_path / "images", test=2), tmp_path / "run", tmp_path / "notes"
    train(capsys, images, *QUICK, "--out", run)
    assert main(["train", str(images), "--out", str(run)]) == 1
    said = capsys.readouterr().err
    assert main(advised(said, r"resume its run with 'daso (resume [^']+)', or use")) == 0
    notes.mkdir()
    (notes / "a.txt").write_text("hi")
    assert main(["train", str(images), "--out", str(notes)]) == 1
    said = capsys.readouterr().err
    assert "--out" in said
    assert "resume" not in said


def test_a_run_that_is_not_complete_is_finished_as_advised_and_compared(
    tmp_path: Path, capsys: Capture
) -> None:
    images, run = tiny(tmp_path / "images", test=2), tmp_path / "run"
    train(capsys, images, *QUICK, "--out", run)
    (run / "summary.json").unlink()
    (run / "calibration.json").unlink()
    assert main(["compare", str(run)]) == 1
    assert main(["predict", str(run), str(images / "test")]) == 0
    said = capsys.readouterr().err
    assert "' calibrates it" in said
    assert main(advised(said, r"'daso (resume \S+)'")) == 0
    assert (run / "calibration.json").exists()
    assert main(["compare", str(run), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("where", ["out", "embedding_folder"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    where: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "read_source", pytest.fail)
    images = tiny(tmp_path / "images")
    (tmp_path / "file").touch()  # nobody can make a folder in it, root included
    wrong = str(tmp_path / "file" / "folder")
    places = {"out": str(tmp_path / "run")} | {where: wrong}
    words = [w for n, p in places.items() for w in (f"--{n.replace('_', '-')}", p)]
    assert main(["train", str(images), *words, "--freeze", "--network", "./encoder"]) == 1
    assert f"cannot write into {wrong}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_paths_to_label_next_are_absolute_whatever_the_command(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny(tmp_path / "images", unlabeled=4, test=2)
    monkeypatch.chdir(tmp_path)
    train(capsys, "images", *QUICK[2:], "--method", "fixmatch", "--out", "a")
    train(capsys, "--like", "a", "--out", "b")
    for run in ("a", "b"):
        assert main(["report", run]) == 0
        lines = (tmp_path / run / "report-label-next.csv").read_text().splitlines()
        paths = [Path(line.split(",")[1]) for line in lines[1:]]
        assert paths
        assert all(path.is_absolute() and path.exists() for path in paths)
