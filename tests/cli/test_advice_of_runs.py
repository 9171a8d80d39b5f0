"""Advice about run folders, done as it says; see ``test_advice_done.py``."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from label_sets import write_folder

from daso.cli import main
from tests.conftest import Say

QUICK = ["--network", "small-4", "--batch", "4", "--device", "cpu", "--size", "8", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``photos`` and a ``run`` on them, ``first``, to copy."""
    place = tmp_path_factory.mktemp("advice")
    photos = write_folder(place / "photos")
    words = ["train", photos, "--method", "supervised", "--steps", "2", "--evaluate-every", "1"]
    assert main([*map(str, words), *QUICK, "--out", str(place / "first")]) == 0
    return place


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "first", tmp_path / "run"))


def test_a_calibration_that_is_gone_comes_back_as_advised(run: Path, place: Path, say: Say) -> None:
    (run / "calibration.json").unlink()
    status, said = say("predict", run, place / "photos" / "unlabeled")
    assert status == 0
    (words,) = re.findall(r"'daso (resume \S+)' calibrates it", said)
    assert say(*words.split())[0] == 0
    assert (run / "calibration.json").exists()


def test_a_damaged_row_is_removed_as_advised(run: Path, say: Say, tmp_path: Path) -> None:
    rows = run / "metrics.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    for number in (0, len(lines) - 1):
        damaged = [*lines[:number], lines[number].replace("step", "stop"), *lines[number + 1 :]]
        rows.write_text("".join(damaged))
        status, said = say("compare", run, run, "--out", tmp_path / "table")
        assert f"line {number + 1}, is damaged" in said
        assert "remove the line" in said
        rows.write_text("".join([*lines[:number], *lines[number + 1 :]]))
        status, said = say("compare", run, run, "--out", tmp_path / "table")
        assert status == 0
        assert "is damaged" not in said


def test_damaged_files_are_made_again_as_advised(run: Path, place: Path, say: Say) -> None:
    words = ("export", run, "--format", "safetensors")
    assert say(*words)[0] == 0
    model = run / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    status, said = say("predict", model, place / "photos" / "unlabeled")
    assert status == 1
    assert "export it again" in said
    assert say(*words)[0] == 0
    assert say("predict", model, place / "photos" / "unlabeled")[0] == 0

    assert say("validate", run, "--folds", "2", "--quiet")[0] == 0
    (answers,) = run.rglob("0/answers.json")
    whole = json.loads(answers.read_text())
    answers.write_text(answers.read_text().replace("answers", "answer"))
    status, said = say("validate", run, "--folds", "2", "--quiet")
    assert status == 1
    assert f"{answers} cannot be read" in said
    assert "remove it" in said
    answers.unlink()
    assert say("validate", run, "--folds", "2", "--quiet")[0] == 0
    assert json.loads(answers.read_text()) == whole


def test_a_changed_configuration_is_restored_as_advised(
    run: Path, place: Path, say: Say, tmp_path: Path
) -> None:
    config = run / "config.json"
    content = config.read_text()
    values = json.loads(content)
    values.pop("checksum")
    values["train"]["learning_rate"] = 7.0
    whole = {"compare": ("compare", run, "--out", tmp_path / "table")}
    verbs = {
        "resume": ("resume", run),
        "evaluate": ("evaluate", run),
        "predict": ("predict", run, place / "photos" / "unlabeled"),
        "export": ("export", run, "--format", "safetensors"),
        "calibrate": ("calibrate", run, place / "photos" / "labeled"),
    }
    # Without its checksum, as older runs are, it is known by the checkpoint's.
    config.write_text(json.dumps(values))
    for verb, words in verbs.items():
        status, said = say(*words)
        assert status == 1, verb
        assert "undo the change, or start a new run with 'daso train'" in said, verb
    assert say("train", "--like", run, "--quiet", "--out", tmp_path / "new")[0] == 0
    config.write_text(re.sub(r'("learning_rate": )[\d.]+', r"\g<1>7.0", content))
    assert config.read_text() != content
    for verb, words in (verbs | whole).items():
        status, said = say(*words)
        assert status == 1, verb
        assert "was edited" in said, verb
    assert "was edited" in say("report", run, "--out", tmp_path / "report.html")[1]
    config.write_text(content)
    for verb, words in verbs.items():
        if verb != "calibrate":  # those images are the training's
            assert say(*words)[0] == 0, verb


def test_another_place_is_named_as_advised(
    run: Path, place: Path, say: Say, tmp_path: Path
) -> None:
    other = write_folder(tmp_path / "other")
    next((other / "labeled" / "cat").iterdir()).unlink()
    status, said = say("evaluate", run, "--data", other)
    assert status == 1
    (option,) = re.findall(r"name the run's images with (--data)", said)
    assert say("evaluate", run, option, place / "photos")[0] == 0

    words = ["train", place / "photos", "--method", "supervised", "--steps", "1", *QUICK]
    status, said = say(*words, "--out", place / "first")
    assert status == 1
    (verb,) = re.findall(rf"'daso (\w+) {re.escape(str(place / 'first'))}'", said)
    assert say(verb, place / "first", "--quiet")[0] == 0
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "note.txt").touch()
    status, said = say(*words, "--out", tmp_path / "junk")
    assert status == 1
    assert "daso resume" not in said, said
    (tmp_path / "file").touch()
    status, said = say(*words, "--out", tmp_path / "file")
    assert status == 1
    assert "name a folder with --out" in said
    status, said = say(*words, "--out", tmp_path / "new", "--device", "cuda")
    assert status != 0
    assert "--device cpu" in said
    assert say(*words, "--out", tmp_path / "new")[0] == 0


def test_no_steps_are_made_as_advised(place: Path, say: Say, tmp_path: Path) -> None:
    words = ["train", place / "photos", "--steps", "0", *QUICK, "--out", tmp_path / "run"]
    status, said = say(*words, "--method", "supervised")
    assert status != 0
    (more,) = re.findall(r"add (\+\w+) to the method", said)
    assert say(*words, "--method", f"supervised{more}")[0] == 0


@pytest.mark.parametrize("name", ["my run", "it's", 'a "b" $c', "-x"])
def test_advice_with_the_path_of_a_run_can_be_typed(
    name: str, run: Path, place: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    folder = run.rename(run.with_name(name))
    monkeypatch.setenv("COLUMNS", "200")
    taken = say("train", place / "photos", *QUICK, f"--out={name}")
    assert taken[0] == 1
    (folder / "summary.json").unlink()
    incomplete = say("compare", f"./{name}")
    for _, said in (taken, incomplete):
        (command,) = re.findall(r"'daso (resume .*)'(?:, or| goes on)", said)
        (folder / "summary.json").unlink(missing_ok=True)
        assert say(*shlex.split(command))[0] == 0
        assert (folder / "summary.json").exists()
    other = Path(shutil.copytree(place / "photos", "other"))
    next((other / "labeled").rglob("*.png")).unlink()
    said = say("validate", f"./{name}", "--folds", "2", "--data", other)[1]
    (command,) = re.findall(r"'daso (train --like .*)' trains on", said)
    assert say(*shlex.split(command), "--out", "again", "--quiet")[0] == 0
