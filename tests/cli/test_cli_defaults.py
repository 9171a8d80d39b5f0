"""What the command line chooses for open options: by source, option by option."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from daso.cli.training.command import SOURCE_DECIDES, parse_train
from daso.cli.training.defaults import configure
from daso.data.longtail import SplitOptions
from daso.presets.benchmarks import PRESETS
from daso.presets.layers import Decision, Layer, decide
from daso.presets.sources import MISMATCH_TEMPERATURE, SOURCES, SourceDefaults
from daso.reproduce.scales import SCALES
from daso.train.config import GROUPS, RunConfig


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)


def config_of(line: str, **options: Any) -> tuple[RunConfig, str]:
    """Return the configuration of a command line, and what was printed about it."""
    request = parse_train(line.split())
    name = request.command.source
    own = SourceDefaults(options=options, dist_temperature=MISMATCH_TEMPERATURE)
    defaults = PRESETS[name].defaults if name in PRESETS else SOURCES.get(name, own)
    config, notices = configure(request, defaults)
    return config, "\n".join(notices)


def test_a_later_layer_wins_and_some_values_hold_only_together() -> None:
    method = Layer("DASO", {"warmup_steps": None, "queue_length": 256})
    source = Layer(
        "source",
        {"steps": 90, "warmup_steps": 20, "batch": 8},
        {"batch": "small"},
        {"warmup_steps": "steps"},
    )
    assert decide([method, source]) == {
        "queue_length": Decision(256, "DASO"),
        "steps": Decision(90, "source"),
        "warmup_steps": Decision(20, "source"),
        "batch": Decision(8, "source", "small"),
    }
    given = decide([method, source, Layer("command line", {"steps": 5, "batch": None})])
    assert given["steps"] == Decision(5, "command line")
    assert given["warmup_steps"] == Decision(None, "DASO")
    assert given["batch"] == Decision(None, "command line")


def test_an_option_leaves_the_rest_of_the_default_split_in_place() -> None:
    config, printed = config_of("cifar100 --unlabeled-shape reversed --gamma-labeled 20")
    assert config.split == SplitOptions(50, 400, 20.0, 10, "reversed", None)
    assert "--labeled-head 50" in printed
    assert "--gamma-labeled" not in printed


def test_the_temperature_is_the_papers_for_the_distribution() -> None:
    temperatures = {
        "cifar10": 1.5,
        "cifar10 --unlabeled-shape reversed": 0.3,
        "cifar10 --unlabeled-shape=uniform": 0.3,
        "cifar10 --gamma-unlabeled 10": 0.3,
        "cifar10 --unlabeled-shape reversed --dist-temperature 0.7": 0.7,
        "cifar10-n500-g100": 1.5,
        "cifar10-n500-g100-reversed": 0.3,
        "cifar100": 0.3,
        "stl10": 0.3,
        "semi-aves": 0.5,
        "photos --method fixmatch+daso": 0.3,
        "photos --method fixmatch+daso --dist-temperature=1.5": 1.5,
    }
    chosen = {line: config_of(line)[0].method_options["dist_temperature"] for line in temperatures}
    assert chosen == temperatures


def test_the_papers_length_for_its_benchmarks_and_what_is_given_for_all() -> None:
    assert config_of("cifar10")[0].train.steps == 250_000
    assert config_of("digits")[0].train.steps == 1_000
    assert config_of("digits --steps 250000")[0].train.steps == 250_000
    assert config_of("photos", batch=16)[0].train.batch == 16
    assert config_of("photos --batch 8", batch=16)[0].train.batch == 8


def test_stl10_is_augmented_at_96_pixels_and_trained_at_32() -> None:
    config, _ = config_of("stl10")
    views = config.augmentation
    assert (config.train.resolution, views.cutout, views.crop_padding) == (32, 16, 4)
    assert config.split.unlabeled_head is None
    assert config_of("stl10 --resolution 96")[0].train.resolution == 96


def test_methods_get_only_hyper_parameters_that_they_have() -> None:
    options = config_of("cifar10 --method fixmatch")[0].method_options
    assert options.keys() == {"threshold", "unlabeled_weight", "weak_pass"}


def test_semi_aves_takes_the_papers_setting_in_epochs() -> None:
    # 90 epochs of 26,640 or 148,848 images, 1,280 a step, or of 5,959 labeled ones, 256 a step.
    for source, steps, epoch, warmup in (
        ("semi-aves", 1_873, 21, 416),
        ("semi-aves-open", 10_466, 116, 2_326),
    ):
        config, printed = config_of(source)
        expected = {
            **{"steps": steps, "batch": 256, "unlabeled_ratio": 5, "network": "resnet34"},
            **{"learning_rate": 0.04, "backbone_rate": 0.04, "schedule": "thirds"},
            **{"evaluate_every": epoch, "weight_decay": 3e-4, "ema_decay": 0.9},
        }
        assert expected.items() <= vars(config.train).items(), source
        options = {"dist_temperature": 0.5, "warmup_steps": warmup, "histogram_period": epoch}
        assert options.items() <= config.method_options.items(), source
        assert (config.split, config.augmentation.crop) == (SplitOptions(), "resized"), source
        for flag in ("--schedule thirds", "--crop resized", f"--warmup-steps {warmup}"):
            assert flag in printed
        # Supervised learning takes its own rate, 0.1 as in the paper, and its own number of epochs.
        expected |= {"steps": 2_095, "learning_rate": None, "backbone_rate": 0.1}
        expected["evaluate_every"] = None
        train = config_of(f"{source} --method supervised")[0].train
        assert expected.items() <= vars(train).items(), source


def test_what_is_given_goes_before_the_setting_of_semi_aves() -> None:
    config, _ = config_of(
        "semi-aves --weight_decay=0.1 --schedule cosine --crop pad --histogram-period 7"
    )
    assert (config.train.weight_decay, config.train.schedule) == (0.1, "cosine")
    assert (config.augmentation.crop, config.method_options["histogram_period"]) == ("pad", 7)
    # A run of another length has warm-up and evaluations in proportion, as any run has.
    config, _ = config_of("semi-aves --steps 90")
    assert (config.train.steps, config.train.evaluate_every) == (90, None)
    assert config.method_options["warmup_steps"] is None
    assert config.method_options["histogram_period"] == 21


def test_the_warm_up_of_daso_is_not_another_parts(tmp_path: Path) -> None:
    assert config_of("semi-aves --method usadtm")[0].method_options["warmup_steps"] is None
    (tmp_path / "own.py").write_text(
        "from daso.refine.daso import DASO\n\n\nclass MyDASOVariant(DASO):\n    'Mine.'\n"
    )
    options = config_of("semi-aves --method fixmatch+own.py:MyDASOVariant")[0].method_options
    assert (options["warmup_steps"], options["histogram_period"]) == (None, 100)


def test_guesses_of_a_probe_teach_from_a_lower_threshold() -> None:
    thresholds = {
        "photos": 0.95,
        "photos --freeze": 0.7,
        "photos --freeze --threshold=0.9": 0.9,
        "photos --freeze --embedding-network mlp-256": 0.95,
    }
    for line, threshold in thresholds.items():
        config, printed = config_of(f"{line} --method fixmatch+la+daso")
        assert config.method_options["threshold"] == threshold
        assert ("--threshold 0.7" in printed) is (threshold == 0.7)


def test_what_a_setting_trains_is_what_the_paper_s_tables_train() -> None:
    methods = ("supervised", "fixmatch+daso", "fixmatch+darp", "remixmatch", "usadtm+crest")
    for name in ("cifar10-n500-g100", "cifar100-n50-g10-uniform", "stl10-n150-g10", "semi-aves"):
        for method in methods:
            config, _ = config_of(f"{name} --method {method} --seed 3 --device cpu")
            preset = PRESETS[name]
            chosen = preset.method_for(method)
            options = preset.options_for(chosen)
            campaign = SCALES["full"].configure(preset, chosen, options, seed=3, device="cpu")
            assert config == campaign, (name, method)


def test_help_names_each_default_that_a_source_may_change() -> None:
    chosen = set()
    for defaults in SOURCES.values():
        chosen |= defaults.options.keys() | defaults.semi_supervised.keys()
        chosen |= {name for part in defaults.parts.values() for name in part}
    general = {f.name: f.default for kind in GROUPS.values() for f in dataclasses.fields(kind)}
    for method in ("fixmatch+daso", "fixmatch+crest"):
        line = ["digits", "--method", method]
        general |= configure(parse_train(line), SourceDefaults())[0].method_options
    assert {name for name in chosen if general[name] is not None} <= SOURCE_DECIDES
