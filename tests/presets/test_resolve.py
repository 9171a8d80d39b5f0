"""What a setting is said to make of a training is what the command line makes of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from daso.cli.training.command import parse_train
from daso.cli.training.defaults import configure
from daso.data.open import open_source
from daso.presets.benchmarks import PRESETS
from daso.reproduce.resolve import resolve
from daso.train.prepare import prepare

SMALL = "--labeled-head 10 --unlabeled-head 20 --holdout 100 --gamma-labeled 5 --gamma-unlabeled 5 --device cpu"


def values_of(preset: str, method: str) -> dict[tuple[str, str], Any]:
    return {(item.group, item.name): item.value for item in resolve(PRESETS[preset], method)[1]}


def deciders(preset: str, method: str) -> dict[str, str]:
    return {item.name: item.decided_by for item in resolve(PRESETS[preset], method)[1]}


def test_the_values_are_those_of_a_prepared_run(cifar10_folder: Path) -> None:
    source = open_source("cifar10", data=cifar10_folder / "cifar10")
    for preset, method in product(
        ("cifar10-n500-g100", "cifar10-n1500-g100-uniform"),
        (
            *("fixmatch+daso", "supervised+la", "remixmatch+darp"),
            *("fixmatch+ldam+crest-plus", "supervised+crt"),
        ),
    ):
        request = parse_train([preset, "--method", method, *SMALL.split()])
        config = prepare(configure(request, PRESETS[preset].defaults)[0], source).config
        name, resolved = resolve(PRESETS[preset], method)
        assert name == config.method
        groups = {
            "training": vars(config.train),
            "augmentation": vars(config.augmentation),
            "method": config.method_options,
        }
        for item in resolved:
            if item.group != "split":
                assert groups[item.group][item.name] == item.value, (preset, method, item.name)
        named = {item.name for item in resolved if item.group == "method"}
        assert named == config.method_options.keys(), (preset, method)


def test_the_papers_table_10() -> None:
    values = values_of("cifar10-n500-g100", "fixmatch+daso")
    expected = {
        "steps": 250_000,
        "batch": 64,
        "unlabeled_ratio": 2,
        "learning_rate": 0.03,
        "ema_decay": 0.999,
    }
    expected |= {"weight_decay": 5e-4, "momentum": 0.9, "evaluate_every": 500}
    assert {name: values["training", name] for name in expected} == expected
    method = {
        "threshold": 0.95,
        "prototype_temperature": 0.05,
        "dist_temperature": 1.5,
        "queue_length": 256,
    }
    method |= {"warmup_steps": 5000, "histogram_period": 100, "align_weight": 1.0}
    assert {name: values["method", name] for name in method} == method
    aves = values_of("semi-aves", "fixmatch+daso")
    training = {
        "batch": 256,
        "unlabeled_ratio": 5,
        "learning_rate": 0.04,
        "weight_decay": 3e-4,
        "ema_decay": 0.9,
    }
    assert {name: aves["training", name] for name in training} == training
    assert aves["method", "dist_temperature"] == 0.5
    assert values_of("stl10-n150-g10", "fixmatch+crest")["method", "crest_power"] == pytest.approx(
        1 / 3
    )
    assert values_of("semi-aves", "fixmatch+crest")["method", "crest_power"] == 0.7


def test_who_decides() -> None:
    found = deciders("cifar10-n500-g100-uniform", "fixmatch+daso")
    assert (
        found["steps"]
        == found["dist_temperature"]
        == found["labeled_head"]
        == "cifar10-n500-g100-uniform"
    )
    assert (found["learning_rate"], found["threshold"], found["queue_length"]) == (
        "FixMatch",
        "FixMatch",
        "DASO",
    )
    assert (found["momentum"], found["warmup_steps"]) == ("general default", "DASO, computed")
    assert (found["cutout"], deciders("stl10-n150-g10", "fixmatch")["cutout"]) == (
        "images of 32 pixels",
        "stl10-n150-g10",
    )
    assert deciders("semi-aves", "fixmatch+daso")["warmup_steps"] == "semi-aves"
    assert deciders("semi-aves", "supervised")["learning_rate"] == "Supervised"
