"""Advice of refusals and notes, done as it says: one table, besides ``test_advice_done.py``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from label_sets import write_folder, write_image

from daso.cli import main
from tests.conftest import Say

QUICK = ["--network", "small-4", "--steps", "2", "--batch", "4", "--device", "cpu"]
TRAIN = ["train", "photos", "--method", "supervised", "--size", "8", "--out", "new"]
FIXMATCH = ["train", "photos", "--method", "fixmatch", "--size", "8", "--out", "new"]

CASES: dict[str, tuple[list[str], str, list[str]]] = {
    "no unlabeled images": (
        ["train", "bare", "--method", "fixmatch", "--size", "8", "--out", "new"],
        r"use (--method supervised)",
        ["--method", "fixmatch"],
    ),
    "a device that nobody has": (
        [*TRAIN, "--device", "tpu"],
        r"choose from (cpu)",
        ["--device", "tpu"],
    ),
    "patience without a hold-out": (
        [*TRAIN, "--patience", "3"],
        r"--patience has no effect[^;]*; (--holdout \d+)",
        [],
    ),
    "padding without a crop": (
        [*FIXMATCH, "--crop", "resized", "--crop-padding", "2"],
        r"--crop-padding has no effect: it requires (--crop pad)",
        ["--crop", "resized"],
    ),
    "a report is not computed": (
        ["report", "run", "--device", "cpu"],
        r"goes with (--refresh)",
        [],
    ),
    "adjusted twice": (
        ["predict", "run", "photos/test", "--logit-adjusted", "--prior", "labeled"],
        r"--logit-adjusted means (--prior uniform)",
        ["--logit-adjusted", "--prior", "labeled"],
    ),
    "a prior without a name": (
        ["predict", "run", "photos/test", "--prior", "unifrom"],
        r"choose from (uniform)",
        ["--prior", "unifrom"],
    ),
    "more classes than there are": (
        ["predict", "run", "photos/test", "--top", "9"],
        r"--top = 9 is more than the model's (\d+) classes",
        ["--top", "9"],
    ),
    "an export by another name": (
        ["export", "run", "--format", "safetensors", "--out", "model.bin"],
        r"the suffix must be (\.\w+)",
        ["--out", "model.bin"],
    ),
    "undone without applying": (
        ["label", "photos", "--undo"],
        r"--undo goes with (--apply)",
        [],
    ),
    "the images of another run": (
        ["train", "--like", "run", "--unlabeled", "photos/unlabeled", "--out", "new"],
        r"omit (--unlabeled)",
        ["--unlabeled", "photos/unlabeled"],
    ),
    "a damaged image": (
        ["train", "damaged", "--method", "supervised", "--size", "8", "--out", "new"],
        r"(--skip-bad)",
        [],
    ),
    "a verb of data": (["data", "chek", "photos"], r"use (check)", ["chek", "photos"]),
    "both names of a source": (
        ["data", "check", "photos", "--labeled", "photos/labeled"],
        r"give either SOURCE or (--labeled) FOLDER",
        ["photos"],
    ),
    "two ways to save memory": (
        [*TRAIN, "--recompute", "--compile"],
        r"(--recompute) and --compile exclude each other; leave one out",
        ["--compile"],
    ),
    "resumed on standard output": (
        ["predict", "run", "photos/test", "--resume"],
        r"(--out)",
        [],
    ),
    "a row of a comparison": (
        ["compare", "run", "--baseline", "supervisd", "--out", "compared"],
        r"choose from (supervised)",
        ["--baseline", "supervisd"],
    ),
}
"""Words that meet a refusal or a note, the advice in it, and the words that the advice replaces."""
VALUES = {"cpu": "--device", "uniform": "--prior", "supervised": "--baseline", "2": "--top"}
"""Options whose value is advised."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with image folders and a ``run``."""
    place = tmp_path_factory.mktemp("table")
    photos = write_folder(place / "photos")
    shutil.copytree(photos, place / "bare")
    shutil.rmtree(place / "bare" / "unlabeled")
    shutil.copytree(photos, place / "damaged")
    write_image(place / "damaged" / "labeled" / "cat" / "bad.png", 77)
    (place / "damaged" / "labeled" / "cat" / "bad.png").write_bytes(b"no image")
    words = ["train", str(photos), "--method", "supervised", "--size", "8", *QUICK]
    assert main([*words, "--out", str(place / "run")]) == 0
    return place


@pytest.mark.parametrize("case", CASES)
def test_the_trouble_is_gone_after_doing_as_advised(
    case: str, place: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(here)
    words, pattern, replaced = CASES[case]
    training = QUICK if words[0] == "train" else []
    status, said = say(words[0], *training, *words[1:])
    advice = re.search(pattern, re.sub(r"\s+", " ", said))
    assert advice, (status, said)
    shutil.rmtree(here / "new", ignore_errors=True)
    kept = [word for word in words if word not in replaced]
    advised = advice[1].split()
    if advised[0] in VALUES:
        advised = [VALUES[advised[0]], *advised]
    elif advised[0].startswith("."):
        advised = ["--out", f"model{advised[0]}"]
    elif advised == ["check"]:
        advised = ["check", "photos"]
    elif advised == ["--out"]:
        advised = ["--out", "predictions.csv"]
    elif set(advised) <= set(words):  # it is kept, or named to be left out
        advised = []
        kept += ["--prior", "uniform"] if "--logit-adjusted" in words else []
    status, said = say(kept[0], *training, *kept[1:], *advised)
    assert status == 0 or words[0] == "label", said
    assert not re.search(pattern, re.sub(r"\s+", " ", said)), said
