"""What is told where the images of a run, or its configuration, are no longer those of its training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from label_sets import write_folder
from made_files import write_image
from run_files import edit

from daso.cli import main
from tests.conftest import Say

QUICK = ["--method", "supervised", "--network", "small-4", "--steps", "2", "--batch", "4"]
QUICK += ["--device", "cpu", "--size", "8", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``photos`` and a ``run`` on them."""
    place = tmp_path_factory.mktemp("told")
    words = ["train", str(write_folder(place / "photos")), *QUICK, "--holdout", "4"]
    assert main([*words, "--out", str(place / "run")]) == 0
    return place


def test_fewer_test_images_are_counted_by_class(place: Path, say: Say, tmp_path: Path) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "test" / "dog" / "00.png").unlink()
    status, said = say("evaluate", place / "run", "--data", tmp_path / "photos")
    assert status == 0
    assert "4 -> 3 test images (dog 2 -> 1)" in said


@pytest.mark.parametrize("verb", ["evaluate", "resume", "calibrate", "validate", "report"])
def test_a_changed_seed_is_no_change_of_data(
    verb: str, place: Path, say: Say, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(place / "run", tmp_path / "run"))
    edit(run / "config.json", lambda config: config["train"].update(seed=5))
    status, said = say(verb, run, *(["--refresh"] if verb == "report" else []))
    assert status == 1
    assert "config.json was changed" in said
    assert "--data" not in said


@pytest.mark.parametrize("test_too", [False, True])
def test_a_run_on_an_edited_copy_is_compared_or_told_apart(
    test_too: bool, place: Path, say: Say, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(place / "photos", tmp_path / "photos-2"))
    write_image(copy / "labeled" / "dog" / "new.png", 99)
    if test_too:
        (copy / "test" / "dog" / "00.png").unlink()
    words = ["--out", tmp_path / "run"]
    assert say("train", copy, *QUICK, "--holdout", 4, *words)[0] == 0
    status, said = say("compare", place / "run", tmp_path / "run", "--out", tmp_path / "c")
    assert status == 0
    assert "7 -> 8 labels" in said
    assert ("4 -> 3 test images (dog 2 -> 1)" in said) == test_too
    assert ("not compared with" in said) == test_too
    assert ("differences from" in said) != test_too
