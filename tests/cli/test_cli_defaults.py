"""What the command line chooses where it is not told: by source, option by option."""

from dataclasses import replace
from typing import Any

import pytest

from daso.cli.training.command import parse_train
from daso.cli.training.defaults import to_config
from daso.data.longtail import SplitOptions
from daso.presets.sources import MISMATCH_TEMPERATURE, SOURCES, SourceDefaults
from daso.train.config import RunConfig


def config_of(*argv: str, **changes: Any) -> tuple[RunConfig, list[str]]:
    notices: list[str] = []
    command, options = parse_train(argv)
    defaults = replace(
        SOURCES.get(argv[0], SourceDefaults(dist_temperature=MISMATCH_TEMPERATURE)), **changes
    )
    return to_config(command, options, argv, defaults, notices.append), notices


def test_an_option_leaves_the_rest_of_the_default_split_in_place() -> None:
    config, notices = config_of(
        "cifar100", "--unlabeled-shape", "reversed", "--gamma-labeled", "20"
    )
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
    assert (
        config.train.resolution,
        config.augmentation.cutout,
        config.augmentation.crop_padding,
    ) == (
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


@pytest.mark.parametrize(
    ("source", "steps", "supervised_steps", "epoch", "warmup"),
    # 90 epochs of 26,640 or 148,848 images, 1,280 a step, or of 5,959 labelled ones, 256 a step.
    [("semi-aves", 1_873, 2_095, 21, 416), ("semi-aves-open", 10_466, 2_095, 116, 2_326)],
)
def test_semi_aves_takes_the_papers_setting_in_epochs(
    source: str, steps: int, supervised_steps: int, epoch: int, warmup: int
) -> None:
    config, notices = config_of(source)
    train = config.train
    assert (train.steps, train.batch, train.unlabeled_ratio, train.network) == (
        steps,
        256,
        5,
        "resnet34",
    )
    assert (train.learning_rate, train.schedule, train.evaluate_every) == (0.04, "thirds", epoch)
    assert (train.weight_decay, train.ema_decay, config.augmentation.crop) == (3e-4, 0.9, "resized")
    options = config.method_options
    assert (options["dist_temperature"], options["warmup_steps"]) == (0.5, warmup)
    assert options["histogram_period"] == epoch
    assert config.split == SplitOptions()
    for flag in (
        "--schedule thirds",
        "--crop resized",
        "--ema-decay 0.9",
        f"--warmup-steps {warmup}",
    ):
        assert flag in notices[0]

    train = config_of(source, "--method", "supervised")[0].train
    assert (train.steps, train.batch, train.schedule) == (supervised_steps, 256, "thirds")
    assert train.learning_rate is None  # the method's own, 0.1 as in the paper
    assert train.evaluate_every is None


def test_what_is_given_goes_before_the_setting_of_semi_aves() -> None:
    config, _ = config_of(
        "semi-aves",
        "--weight_decay=0.1",
        "--schedule",
        "cosine",
        "--crop",
        "pad",
        "--histogram-period",
        "7",
    )
    assert (config.train.weight_decay, config.train.schedule) == (0.1, "cosine")
    assert (config.augmentation.crop, config.method_options["histogram_period"]) == ("pad", 7)
    # A run of another length has warm-up and evaluations in proportion, as any run has.
    config, _ = config_of("semi-aves", "--steps", "90")
    assert (config.train.steps, config.train.evaluate_every) == (90, None)
    assert config.method_options["warmup_steps"] is None


def test_the_warm_up_of_daso_is_not_another_parts() -> None:
    assert config_of("semi-aves", "--method", "usadtm")[0].method_options["warmup_steps"] is None


@pytest.mark.parametrize(
    ("argv", "threshold"),
    [
        (("photos",), 0.95),
        (("photos", "--freeze"), 0.7),
        (("photos", "--freeze", "--threshold=0.9"), 0.9),
        (("photos", "--freeze", "--embedding-network", "mlp-256"), 0.95),
    ],
)
def test_guesses_of_a_probe_teach_from_a_lower_threshold(
    argv: tuple[str, ...], threshold: float
) -> None:
    config, notices = config_of(*argv)
    assert config.method_options["threshold"] == threshold
    assert any("--threshold 0.7" in notice for notice in notices) is (threshold == 0.7)
