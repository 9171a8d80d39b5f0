"""What is said about options without effect, and about numbers that are not adjusted."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from daso.cli import main
from daso.cli.terminal.tables import percent, summary_table
from daso.cli.training import notes
from daso.cli.training.command import parse_train
from daso.cli.training.defaults import configure
from daso.cli.training.notes import idle_options, not_adjusted, pretrained_may_help
from daso.compose import Recipe
from daso.data.images.cache import Cache
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.source import Source
from daso.files import read_rows
from daso.presets.benchmarks import PRESETS
from daso.presets.sources import SOURCES
from daso.report.html.overview import overview
from daso.report.html.run import load_run
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import prepare


def notes_on(line: str) -> list[str]:
    request = parse_train(shlex.split(line))
    config, _ = configure(request, SOURCES[request.command.source])
    return [note.partition(" has no effect: ")[0] for note in idle_options(config, request.given)]


IDLE = [
    ("--method fixmatch+daso --cutout 4 --strong-operations 1 --threshold 0.9", []),
    ("--method mixmatch --strong-operations 1", ["--strong-operations"]),
    ("--method supervised --cutout=4 --unlabeled-ratio 3", ["--cutout", "--unlabeled-ratio"]),
    ("--method meanteacher+daso --align-weight 2", ["--align-weight"]),
    ("--method remixmatch+daso --align-weight 2", []),
    (
        "--method fixmatch+daso --blend fixed --fixed-blend 0.3 --dist-temperature 1",
        ["--dist-temperature"],
    ),
    ("--method fixmatch+daso --fixed-blend 0.3 --dist-temperature 1", ["--fixed-blend"]),
    ("--method fixmatch+daso --blend linear --queue-length 9", []),
    (
        "--method fixmatch+daso --blend linear --align-weight 0 --queue-length 9",
        ["--queue-length"],
    ),
    (
        "--method mixmatch+daso --blend linear --no-queue-batch-statistics",
        ["--queue-batch-statistics"],
    ),
    ("--method fixmatch+daso --no-balanced-queue --queue-length 9", ["--queue-length"]),
    ("--method fixmatch --unlabeled-weight 0 --threshold 0.5", ["--threshold"]),
    ("--method remixmatch --unlabeled-weight 0 --unlabeled-ramp 0.5", []),
    (
        "--method remixmatch --unlabeled-weight 0 --premix-weight 0 --unlabeled-ramp 0.5",
        ["--unlabeled-ramp"],
    ),
    (
        "--method usadtm --unlabeled-weight 0 --cosine-threshold 0.5 --warmup-steps 3",
        ["--cosine-threshold", "--warmup-steps"],
    ),
    ("--method fixmatch+daso --unlabeled-weight 0 --warmup-steps 3", []),
    (
        "--method fixmatch+ldam --reweight-from 1 --max-margin 1 --effective-number-beta 0.9",
        ["--effective-number-beta", "--max-margin"],
    ),
    (
        "--method fixmatch+ldam --reweight-from 1 --margins-from 0 --max-margin 1 --effective-number-beta 0.9",
        ["--effective-number-beta"],
    ),
    ("--method fixmatch+ldam --margins-from 1 --max-margin 1", ["--max-margin"]),
    ("--method fixmatch+darp --darp-start 1 --darp-keep 3", ["--darp-keep"]),
    (
        "--method fixmatch+daso --queue-encoder online --no-queue-batch-statistics",
        ["--queue-batch-statistics"],
    ),
    ("--method meanteacher+daso --queue-encoder online --no-queue-batch-statistics", []),
    ("--method fixmatch --unlabeled-shape uniform --gamma-unlabeled 3", ["--gamma-unlabeled"]),
    ("--method fixmatch --crop resized --crop-padding 3", ["--crop-padding"]),
    ("--method remixmatch+crest-plus --align False --align-min 0.3", ["--align-min"]),
    ("--method remixmatch+crest-plus --align-min 0.3", []),
    ("--method usadtm --strong-magnitude 3", []),
    (
        "--method supervised+mixture --steps 0 --learning-rate 1 --batch 4 --flip False",
        ["--batch", "--learning-rate"],
    ),
    ("--method supervised+mixture --steps 1 --learning-rate 1 --batch 4", []),
    ("--method fixmatch --weak-versions 3 --strong-mix 0.1", ["--weak-versions", "--strong-mix"]),
    ("--memory 3", ["--memory"]),
    ("--memory 3 --cache decoded --download --skip-bad", []),
    ("--method fixmatch --network hf:a --freeze --weak-versions 3", []),
    ("--method fixmatch --network hf:a --freeze --backbone-rate 0.5", ["--backbone-rate"]),
    (
        "--method fixmatch --network hf:a --freeze --embedding-network mlp-9 --backbone-rate 0.5",
        [],
    ),
]


def test_options_without_effect_are_named() -> None:
    for line, idle in IDLE:
        assert notes_on(f"digits {line}") == idle, line


def test_what_reading_does_not_use_is_named(
    make_image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    given, folder = {"cache": "", "memory": 1.0, "download": True}, str(make_image_folder())
    config = RunConfig(folder, "fixmatch", cache=str(tmp_path))
    cached = open_source(folder, cache=Cache(tmp_path))
    (note,) = idle_options(config, given, cached)
    assert note.startswith("--download")
    digits = idle_options(replace(config, source="digits"), given, open_source("digits"))
    assert [note.partition(" ")[0] for note in digits] == ["--cache", "--memory"]


def test_imbalance_ratios_need_what_they_divide() -> None:
    given = {"gamma_labeled", "gamma_unlabeled"}
    assert len(idle_options(RunConfig("photos", "fixmatch"), given)) == 2
    assert not idle_options(RunConfig("photos", "fixmatch", split=SplitOptions(5, 5)), given)


def test_hyper_parameters_that_a_configuration_leaves_out_have_their_defaults() -> None:
    config = RunConfig("digits", "fixmatch+daso", method_options={"threshold": 0.9})
    assert idle_options(config, {"fixed_blend", "queue_length"}) == [
        "--fixed-blend has no effect: it requires --blend fixed"
    ]


def test_the_note_says_why_and_the_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "train digits --method supervised --strong-operations 1 --steps 2 --batch 4 --network small-4 --device cpu"
    assert main([*line.split(), "--out", str(tmp_path / "run")]) == 0
    assert (
        "note: --strong-operations has no effect: Supervised has no strong views"
        in capsys.readouterr().err
    )


def test_an_idle_option_does_change_nothing(tmp_path: Path) -> None:
    line = "train digits --method meanteacher+daso --steps 4 --batch 4 --network small-4 --device cpu --warmup-steps 0"
    for number, more in enumerate(("", "--align-weight 3 --strong-operations 1")):
        assert main([*line.split(), *more.split(), "--out", str(tmp_path / str(number))]) == 0
    confusions = [(tmp_path / str(number) / "confusion.json").read_text() for number in range(2)]
    assert confusions[0] == confusions[1]


def test_a_training_too_short_for_the_blend_says_so(digits: Source) -> None:
    for line, remark in (
        (
            "--steps 40",
            "never blends pseudo-labels in a training of 40 steps (--histogram-period 100)",
        ),
        ("--steps 100", "never"),  # the histogram is updated after the last step
        ("--steps 120", "only from step 100 on"),
        ("--steps 200", None),
        ("--steps 40 --histogram-period 4", None),
        (
            "--steps 400 --warmup-steps 400",
            "never blends pseudo-labels in a training of 400 steps (--warmup-steps 400)",
        ),
        ("--steps 40 --blend semantic", None),
        ("--steps 40 --blend linear", None),
        ("--steps 40 --method fixmatch", None),
        (
            "--steps 300 --method fixmatch+daso+crest --generations 3",
            "never blends pseudo-labels in a training of 100 steps",
        ),
    ):
        argv = ["digits", *line.split(), "--batch", "4", "--network", "small-4", "--device", "cpu"]
        prepared = prepare(configure(parse_train(argv), SOURCES["digits"])[0], digits)
        steps = prepared.training.options.steps
        remarks = prepared.recipe.remarks(prepared.config.method_options, steps)
        assert len(remarks) == (remark is not None), line
        assert remark is None or remark in remarks[0]


def test_the_blend_weights_are_zero_where_it_is_said_that_daso_never_blends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "train digits --batch 4 --network small-4 --device cpu --evaluate-every 10 --steps 40"
    for number, (more, blends) in enumerate((("", False), ("--histogram-period 10", True))):
        folder = tmp_path / str(number)
        assert main([*line.split(), *more.split(), "--out", str(folder)]) == 0
        last = read_rows(folder / "metrics.jsonl")[-1]
        assert any(last["pseudo_labels"]["blend_weight"]) == blends
        assert ("never blends pseudo-labels" in capsys.readouterr().err) == (not blends)


def test_few_labels_of_own_images_want_a_pretrained_encoder(
    digits: Source, tiny_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config()
    prepared = prepare(config, digits)
    for source, options, few, noted in (
        ("photos", {}, 100, True),
        ("hf:someone/photos", {}, 100, True),
        ("digits", {}, 100, False),
        ("photos", {"weights": "resnet18.safetensors"}, 100, False),
        ("photos", {}, 1, False),
    ):
        monkeypatch.setattr(notes, "FEW_LABELS", few)
        own = replace(config, source=source, train=replace(config.train, **options))
        found = list(pretrained_may_help(replace(prepared, config=own)))
        assert len(found) == noted, (source, options, few)
        for note in found:
            assert f"{len(prepared.data.labeled)} labels for 10 classes" in note
            assert "--freeze" in note


def test_what_has_balanced_a_classifier_already() -> None:
    for method, sampling, reason in (
        ("fixmatch+daso", "uniform", None),
        ("fixmatch+la+daso", "uniform", "(la)"),
        ("supervised+ldam+crt", "uniform", "(crt, ldam)"),
        ("supervised", "class-balanced", "(class-balanced sampling)"),
        ("fixmatch+la", "effective-number", "(la, effective-number sampling)"),
    ):
        train = TrainOptions(labeled_sampling=cast(Any, sampling))
        config = RunConfig("digits", method, train=train)
        # Runs of daso 0.1.0 do not record it.
        for data in ({"method": Recipe.parse(method).describe()}, {}):
            note = not_adjusted(config, data)
            assert (note is None) if reason is None else (reason in str(note))


def test_evaluate_adjusts_no_classifier_that_was_balanced(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(finished_run)]) == 0
    captured = capsys.readouterr()
    assert "note:" not in captured.err
    assert captured.out.count("% logit-adjusted)") == 2  # on test and held-out images
    balanced = str(tmp_path / "balanced")
    line = "digits --method supervised --steps 2 --batch 4 --network small-4 --device cpu --quiet"
    more = ["--holdout", "20", "--labeled-sampling", "effective-number", "--out", balanced]
    assert main(["train", *line.split(), *more]) == 0
    capsys.readouterr()
    assert main(["evaluate", balanced]) == 0
    captured = capsys.readouterr()
    assert "(effective-number sampling)" in captured.err
    assert "logit-adjusted" not in captured.out
    assert main(["evaluate", balanced, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["test"]["logit_adjusted"] is numbers["holdout"]["logit_adjusted"] is None


def test_the_table_of_a_run_shows_adjusted_numbers_unless_it_was_balanced(
    finished_run: Path,
) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    data = json.loads((finished_run / "data.json").read_text())
    counts = data["test_counts"], data["labeled_counts"]
    adjusted = percent(summary["last"]["logit_adjusted"]["balanced_accuracy"])
    for balanced_by, columns in (((), 7), (("la",), 4)):
        console = Console(file=io.StringIO(), width=120)
        console.print(summary_table(summary, balanced_by, *counts))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        (line,) = (
            line for line in text.splitlines() if line.strip().startswith("balanced accuracy")
        )
        assert len(line.split()) == columns + 1
        assert (adjusted in line.split()) == ("adjusted" in text) == (not balanced_by)


def test_the_table_of_a_run_tells_how_well_the_number_is_known_as_the_report_does(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(finished_run)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "±" in line)
    found = re.search(r"± [\d.]+", line)
    assert found is not None
    measured = json.loads((finished_run / "data.json").read_text())["test"]
    assert f"from {measured} images" in line
    overview_of_report = overview(load_run(finished_run))
    assert overview_of_report is not None
    assert found[0] in json.dumps(overview_of_report, ensure_ascii=False)


def decided(line: str) -> tuple[str, dict[str, Any], list[str]]:
    request = parse_train(shlex.split(line))
    name = request.command.source
    defaults = PRESETS[name].defaults if name in PRESETS else SOURCES[name]
    config, notices = configure(request, defaults)
    flags = re.findall(r"--method \S+|--align \S+", " ".join(notices))
    return config.method, config.method_options, flags


def test_a_setting_decides_what_the_paper_does_where_distributions_differ() -> None:
    uniform = "cifar10-n500-g100-uniform"
    method, _, notices = decided(f"{uniform} --method fixmatch+la+darp")
    assert method == "fixmatch+la+estimate+darp"
    assert notices == ["--method fixmatch+la+estimate+darp"]
    method, options, notices = decided("stl10-n150-g10 --method remixmatch+darp")
    assert (method, options["align"]) == ("remixmatch+estimate+darp", False)
    assert notices == ["--method remixmatch+estimate+darp", "--align False"]
    assert (
        decided("semi-aves --method fixmatch+darp")[0] == "fixmatch+darp"
    )  # which has no hold-out


def test_nothing_is_decided_where_there_is_no_need_or_the_command_says_otherwise() -> None:
    for line in (
        "cifar10-n500-g100 --method fixmatch+darp",
        "cifar10-n500-g100 --method remixmatch",
        "cifar10 --unlabeled-shape reversed --method fixmatch+darp",
        "cifar10-n500-g100-reversed --unlabeled-shape consistent --method remixmatch+darp",
        "stl10-n150-g10 --method remixmatch --align True",
        "cifar10-n500-g100-reversed --holdout 0 --method fixmatch+darp",
        "stl10-n150-g10 --method fixmatch+daso",
        "stl10-n150-g10 --unlabeled-head 200 --gamma-unlabeled 10 --method remixmatch+darp",
    ):
        request = parse_train(shlex.split(line))
        method, options, flags = decided(line)
        assert (method, flags) == (request.method, []), line
        assert options.get("align") is request.given.get("align"), line


def test_a_split_of_ones_own_in_a_setting_may_differ_too() -> None:
    assert (
        decided("cifar10-n500-g100 --gamma-unlabeled 10 --method remixmatch")[1]["align"] is False
    )


def test_what_a_table_trains_is_what_one_command_trains() -> None:
    cases = {}
    for name, preset in PRESETS.items():
        for method in ("fixmatch+darp", "remixmatch", "remixmatch+crest-plus"):
            found = preset.method_for(method)
            options = preset.options_for(found)
            cases[method, found, repr(options)] = name, options
    for (method, *_), (name, options) in cases.items():
        found, given, _ = decided(f"{name} --method {method}")
        assert found == PRESETS[name].method_for(method)
        assert options.items() <= given.items()


@pytest.mark.parametrize(("holdout", "said"), [("0", True), ("100", False)])
def test_a_choice_by_a_hold_out_that_is_not_there(
    holdout: str, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--method supervised --network small-4 --steps 2 --batch 8 --device cpu --patience 1 --deploy best"
    options += f" --holdout {holdout}"
    assert main(["train", "digits", *options.split(), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().err
    for option in ("--patience", "--deploy best"):
        assert (f"{option} has no effect without a hold-out" in printed) == said


def test_a_training_that_patience_ended_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--method supervised --network small-4 --steps 9 --batch 8 --device cpu --patience 1"
    options += " --holdout 100 --evaluate-every 1 --learning-rate 1e-9 --ema-decay 0.5"
    run = str(tmp_path / "run")
    assert main(["train", "digits", *options.split(), "--out", run]) == 0
    steps = json.loads((tmp_path / "run" / "summary.json").read_text())["steps"]
    assert steps < 9
    assert f"{steps} steps of 9, stopped early" in capsys.readouterr().out
    assert main(["resume", run]) == 0
    said = capsys.readouterr().err
    assert "is complete" in said
    assert "resuming" not in said
