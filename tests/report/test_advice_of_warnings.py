"""Advice of the warnings about a training, done as it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from label_sets import write_folder
from made_rows import GOOD, LABELED, REVERSED, evaluation, kinds, warnings_of, watched

from tests.conftest import Say

DIGITS = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 2 --gamma-unlabeled 2 --holdout 30"
TRAINING = "--network small-4 --batch 4 --steps 160 --evaluate-every 20 --device cpu --quiet"
FEW = "--method supervised --size 8 --network small-4 --batch 4 --steps 2 --device cpu --quiet"


def train(say: Say, out: Path, *words: str) -> str:
    status, said = say("train", "digits", *DIGITS.split(), *TRAINING.split(), *words, "--out", out)
    assert status == 0, said
    return re.sub(r"\s+", " ", said)


@pytest.mark.slow
def test_a_lower_threshold_lets_pseudo_labels_in(say: Say, tmp_path: Path) -> None:
    said = train(say, tmp_path / "a", "--method", "fixmatch", "--threshold", "0.999999")
    found = re.search(r"almost no confident pseudo-labels of any class.*Lower (--threshold)", said)
    assert found, said
    said = train(say, tmp_path / "b", "--method", "fixmatch", found[1], "0.2")
    assert "almost no confident pseudo-labels of any class" not in said


def test_the_temperature_that_is_advised_is_not_warned_of() -> None:
    for temperature, final in ((1.5, REVERSED), (0.3, LABELED)):
        options = {"dist_temperature": temperature}
        (warning,) = warnings_of(
            watched(options=options), lambda s, f=final: evaluation(s, final=f, test=GOOD)
        )
        (advised,) = re.findall(
            r"Train again with --dist-temperature ([\d.]*\d)", warning["advice"]
        )
        options = {"dist_temperature": float(advised)}
        assert not warnings_of(
            watched(options=options), lambda s, f=final: evaluation(s, final=f, test=GOOD)
        )


def test_more_images_and_seeds_are_measured_as_advised(say: Say, tmp_path: Path) -> None:
    def warned(images: int) -> list[str]:
        run = watched(measured={"test": [images] * 4})
        return kinds(warnings_of(run, lambda step: evaluation(step, test=GOOD)))

    assert warned(4) == ["uncertain measure"]
    assert warned(4000) == []
    photos = write_folder(tmp_path / "photos")
    for seed in ("0", "1"):
        words = ("--seed", seed, "--out", tmp_path / "runs" / seed)
        status, said = say("train", photos, *FEW.split(), *words)
        assert status == 0, said
        assert "measure on more images, or compare several seeds (daso compare)" in said
    status, said = say("compare", tmp_path / "runs", "--out", tmp_path / "compared")
    assert status == 0
    assert re.search(r"supervised +2 ", said), "two seeds"
    assert "±" in said


def test_a_validation_measures_every_labeled_image(say: Say, tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos")
    shutil.rmtree(photos / "test")
    words = ("--holdout", "4", "--out", tmp_path / "run")
    status, said = say("train", photos, *FEW.split(), *words)
    assert status == 0, said
    advice = r"daso (validate) measures every labeled image; a test folder is better still"
    found = re.search(advice, re.sub(r"\s+", " ", said))
    assert found, said
    status, said = say(found[1], tmp_path / "run", "--folds", "2", "--quiet")
    assert status == 0, said
    assert "11 labeled images, each tested by a training without it" in said
