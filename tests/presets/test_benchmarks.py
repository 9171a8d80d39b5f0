"""The settings of the papers: their images, their hyper-parameters, and their names on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daso.cli import main
from daso.presets.benchmarks import PRESETS

LABELED = {
    ("cifar10", 500, 100): (1236, 5),
    ("cifar10", 1500, 100): (3720, 15),
    ("cifar10", 500, 150): (1162, 3),
    ("cifar10", 1500, 150): (3496, 10),
    ("cifar100", 50, 10): (1911, 5),
    ("cifar100", 150, 10): (5835, 15),
    ("cifar100", 50, 20): (1545, 2),
    ("cifar100", 150, 20): (4741, 7),
    ("stl10", 150, 10): (609, 15),
    ("stl10", 450, 10): (1835, 45),
    ("stl10", 150, 20): (507, 7),
    ("stl10", 450, 20): (1528, 22),
}
"""Totals and smallest class by source, N1 and gamma."""
UNLABELED = {
    ("cifar10", 500, 100): 9922,
    ("cifar10", 1500, 100): 7443,
    ("cifar10", 500, 150): 9329,
    ("cifar10", 1500, 150): 6996,
    ("cifar100", 50, 10): 15651,
    ("cifar100", 150, 10): 11720,
    ("cifar100", 50, 20): 12719,
    ("cifar100", 150, 20): 9527,
}


def test_the_papers_numbers_of_images() -> None:
    for (source, head, gamma), expected in LABELED.items():
        preset = PRESETS[f"{source}-n{head}-g{gamma}"]
        labeled, unlabeled = preset.labeled_counts(), preset.unlabeled_counts()
        assert labeled is not None
        assert (labeled.sum(), labeled[-1], labeled[0]) == (*expected, head)
        total = None if unlabeled is None else unlabeled.sum()
        assert total == UNLABELED.get((source, head, gamma))
        assert preset.defaults.split.holdout == (500 if source == "stl10" else 5000)


def test_mismatched_settings() -> None:
    uniform = PRESETS["cifar10-n1500-g100-uniform"].unlabeled_counts()
    rising = PRESETS["cifar10-n500-g100-reversed"].unlabeled_counts()
    assert uniform is not None
    assert rising is not None
    assert uniform.tolist() == [3000] * 10
    assert (rising.sum(), rising[0], rising[-1]) == (9922, 40, 4000)
    known = {name for name, preset in PRESETS.items() if not preset.mismatched}
    assert known == {f"{source}-n{head}-g{gamma}" for source, head, gamma in UNLABELED}


def test_the_papers_hyper_parameters() -> None:
    temperatures = {name: preset.dist_temperature for name, preset in PRESETS.items()}
    assert {n for n, value in temperatures.items() if value == 1.5} == {
        f"cifar10-n{head}-g{gamma}" for head in (500, 1500) for gamma in (100, 150)
    }
    assert {n for n, value in temperatures.items() if value == 0.5} == {
        "semi-aves",
        "semi-aves-open",
    }
    assert set(temperatures.values()) == {0.3, 0.5, 1.5}
    for name, preset in PRESETS.items():
        if not name.startswith("semi-aves"):
            expected = {"steps": 250_000, "batch": 64, "network": "wrn-28-2"}
            assert expected.items() <= preset.defaults.options.items()


def test_a_preset_is_trained_by_its_name(cifar10_folder: Path, tmp_path: Path) -> None:
    options = (
        "--labeled-head 10 --unlabeled-head 20 --gamma-unlabeled 5 --gamma-labeled 5 --holdout 100"
    )
    options += " --steps 2 --batch 4 --network small-4 --device cpu --seed 3"
    arguments = [
        *options.split(),
        "--data",
        str(cifar10_folder / "cifar10"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["train", "cifar10-n1500-g100-reversed", *arguments]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["source"] == "cifar10"
    wanted = {"labeled_head": 10, "unlabeled_head": 20, "gamma_labeled": 5, "gamma_unlabeled": 5}
    wanted |= {"unlabeled_shape": "reversed", "holdout": 100}
    assert wanted.items() <= config["split"].items()
    assert config["method_options"]["dist_temperature"] == 0.3
    assert (config["train"]["steps"], config["train"]["network"]) == (2, "small-4")


def test_a_misspelled_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cifar10-n500-g1000"]) == 2
    assert "Did you mean 'cifar10-n500-g100'" in capsys.readouterr().err
