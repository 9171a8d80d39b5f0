"""What the command line chooses where it is not told: by source, option by option."""

from dataclasses import replace
from typing import Any

import pytest

from daso.cli.options import parse_train, to_config
from daso.data.longtail import SplitOptions
from daso.presets.sources import OWN_DATA, SOURCES
from daso.train.config import RunConfig


def config_of(*argv: str, **changes: Any) -> tuple[RunConfig, list[str]]:
    notices: list[str] = []
    command, options = parse_train(argv)
    defaults = replace(SOURCES.get(argv[0], OWN_DATA), **changes)
    return to_config(command, options, argv, defaults, notices.append), notices


def test_an_option_leaves_the_rest_of_the_default_split_in_place() -> None:
    config, notices = config_of("cifar100", "--unlabeled-shape", "reversed", "--gamma-labeled", "20")
    assert config.split == SplitOptions(50, 400, 20.0, 10, "reversed", None)
    assert "--labeled-head 50" in notices[0]
    assert "--gamma-labeled" not in notices[0]


@pytest.mark.parametrize(
    ("argv", "temperature"),
    [
        (("cifar10",), 1.5),
        (("cifar10", "--unlabeled-shape", "reversed"), 0.3),
        (("cifar10", "--unlabeled-shape=uniform"), 0.3),
        (("cifar10", "--unlabeled-shape", "reversed", "--dist-temperature", "0.7"), 0.7),
        (("cifar100",), 0.3),
        (("stl10",), 0.3),
        (("photos",), 0.3),
        (("photos", "--dist-temperature=1.5"), 1.5),
    ],
)
def test_the_temperature_is_the_papers_for_the_distribution(
    argv: tuple[str, ...], temperature: float
) -> None:
    config, _ = config_of(*argv)
    assert config.method_options["dist_temperature"] == temperature


def test_the_papers_length_for_its_benchmarks_and_what_is_given_for_all() -> None:
    assert config_of("cifar10")[0].train.steps == 250_000
    assert config_of("digits")[0].train.steps == 1_000
    assert config_of("digits", "--steps", "250000")[0].train.steps == 250_000
    assert config_of("photos", batch=16)[0].train.batch == 16
    assert config_of("photos", "--batch", "8", batch=16)[0].train.batch == 8


def test_stl10_is_augmented_at_96_pixels_and_trained_at_32() -> None:
    config, _ = config_of("stl10")
    assert (config.train.resolution, config.augmentation.cutout, config.augmentation.crop_padding) == (
        32,
        16,
        4,
    )
    assert config.split.unlabeled_head is None
    assert config_of("stl10", "--resolution", "96")[0].train.resolution == 96


def test_methods_without_the_temperature_do_not_get_one() -> None:
    assert config_of("cifar10", "--method", "fixmatch")[0].method_options.keys() == {
        "threshold",
        "unlabeled_weight",
        "weak_pass",
    }
