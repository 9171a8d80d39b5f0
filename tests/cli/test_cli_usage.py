"""Help and wrong usage: fast, short, and with the name that was probably meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_files import write_image

from daso.cli import VERBS, main
from daso.cli.training.command import parse_train

Capture = pytest.CaptureFixture[str]

TINY = "--network small-4 --steps 4 --batch 8 --evaluate-every 2 --device cpu"


def status_of(arguments: list[str]) -> int:
    """Return the exit status, whether it is returned or raised."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def refused(arguments: list[str], capsys: Capture) -> str:
    """Return the message of a refused command, which must be brief and without a traceback."""
    status = status_of(arguments)
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert status in (1, 2), said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 16, said
    return said


ANSWER = """
import contextlib, io, json, sys
from daso.cli import main
answers = []
for line in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main(line.split())
        except SystemExit as stop:
            status = stop.code or 0
    heavy = sorted({"torch", "scipy", "matplotlib", "pandas", "sklearn"} & set(sys.modules))
    answers.append([status, said.getvalue(), heavy])
print(json.dumps(answers))
"""


def answers(lines: list[str], folder: Path) -> list[tuple[int, str, list[str]]]:
    """Return status, output and heavy modules of command lines run by one fresh process."""
    process = subprocess.run(
        [sys.executable, "-c", ANSWER],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
    )
    return [tuple(answer) for answer in json.loads(process.stdout)]


WITHOUT_TORCH = {
    "train --help": (0, "--dist-temperature"),
    "train --help --method fixmatch+darp": (0, "--darp-period"),
    "resume --help": (0, "--on-divergence"),
    "demo --help": (0, "--seeds"),
    "presets --help": (0, "--method"),
    "presets": (0, "cifar10-n500-g100-uniform"),
    "presets --json": (0, "dist_temperature"),
    "presets cifar10-n500-g1000": (2, "Did you mean 'cifar10-n500-g100'"),
    "train digits --stepss 10": (2, "--steps"),
    "train digits --steps many": (2, "--steps"),
    "train digits --steps 0": (2, "--steps"),
    "train nowhere": (1, "'nowhere'"),
    "train cifr10-n500-g100": (2, "Did you mean 'cifar10-n500-g100'?"),
    "train --labeled nowhere": (1, "--labeled nowhere"),
    "train digits --test nowhere": (1, "--test nowhere"),
    "train digits --device gpu": (2, "Did you mean 'cuda'?"),
    "resume . --device gpu": (1, "no config.json"),
    "train --like nowhere": (1, "nowhere is not a run folder"),
    "resume nowhere": (1, "nowhere is not a run folder"),
    "train digits --method supervised --queue-length 7 --threshold 0.8": (
        2,
        "supervised has no --queue-length and no --threshold; methods and parts that have it: "
        "--queue-length: +daso; --threshold: pseudolabel, fixmatch, freematch",
    ),
    "train digits --method meanteacher --no-align": (2, "meanteacher has no --align"),
    "train digits --adjustment-strength 2": (2, "fixmatch+daso has no --adjustment-strength"),
    "train digits --blend distributon": (2, "Did you mean 'distribution'?"),
    "train digits --precision bf16": (2, "'bfloat16'"),
    "train digits --unlabeled_shape=unifrom": (2, "Did you mean 'uniform'?"),
    "train digits --optimizer adamW": (2, "Did you mean 'adamw'?"),
    "train digits --track wandbb": (2, "Did you mean 'wandb'?"),
    "train": (2, "name a SOURCE"),
    "train digits --labeled .": (2, "not both"),
    "demo --steps 0": (2, "--steps"),
    "demo --seeds 1 1": (2, "--seeds 1 1"),
}
"""Command lines, and the status and a part of the answer that each gets."""


def test_help_and_refusals_need_no_torch(tmp_path: Path) -> None:
    wrong = []
    for (line, (status, text)), (code, said, heavy) in zip(
        WITHOUT_TORCH.items(), answers(list(WITHOUT_TORCH), tmp_path), strict=True
    ):
        if (code, text in said, heavy) != (status, True, []):
            wrong.append((line, code, heavy, said))
    assert wrong == []
    assert list(tmp_path.iterdir()) == []


def test_the_source_is_what_the_parser_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    methods = {
        "photos --out digits": "supervised+la+mixture",
        "--out digits photos": "supervised+la+mixture",
        "photos --data cifar10 --cache stl10": "supervised+la+mixture",
        "digits --out photos": "fixmatch+daso",
        "cifar10-n500-g100": "fixmatch+daso",
        "--labeled photos --out digits": "supervised+la+mixture",
        "photos --out digits --method=supervised": "supervised",
        "hf:somebody/something --shrinkage 0.2": "supervised+la+mixture",
    }
    assert {line: parse_train(line.split()).method for line in methods} == methods


def test_a_request_knows_what_was_given() -> None:
    line = "digits --steps 5 --no-balanced-queue --learning_rate=0.1 --no-freeze --holdout 0"
    request = parse_train([*line.split(), "--threshold", "0.95", "--backbone-rate", "None"])
    assert request.options == {
        "steps": 5,
        "balanced_queue": False,
        "learning_rate": 0.1,
        "freeze": False,
        "holdout": 0,
        "threshold": 0.95,
        "backbone_rate": None,
    }
    assert (request.command.source, request.train.steps) == ("digits", 5)


def test_what_no_method_has_is_left_to_the_parser(capsys: Capture) -> None:
    for option in (["--gamma"], ["--queue-length", "x"], ["--optimizer"], ["--no-such", "1"]):
        assert status_of(["train", "digits", *option]) == 2
        assert option[0] in capsys.readouterr().err


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "daso", "trian"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Did you mean 'train'?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help(capsys: Capture) -> None:
    for arguments in ([], ["-h"], ["help"], ["--help"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert "usage: daso VERB" in shown, arguments
        verbs = ("demo", "train", "resume", "evaluate", "predict", "plot")
        assert [verb for verb in verbs if f"  {verb} " not in shown] == []


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


def test_help_is_written_for_people(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for verb in (*VERBS, "data check"):
        assert status_of([*verb.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"daso {verb}" in shown
        odd = ("``", "{None}", "None|", "default: None", "default: )", "default: '')", "*fixed")
        assert [text for text in (*odd, "as above", "250000") if text in shown] == [], verb


def test_help_does_not_give_defaults_that_the_source_decides(capsys: Capture) -> None:
    assert status_of(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: the paper's 250,000 for its benchmarks; for your own data chosen" in shown
    for text in ("64, or chosen", "1.5, or chosen for the data and printed", "0.95)"):
        assert f"(default: {text}" in shown


def test_help_shows_the_options_of_the_method(capsys: Capture) -> None:
    for method, present, absent in (
        (
            "fixmatch+daso",
            ["--threshold", "--dist-temperature", "--queue-length", "--no-balanced-queue"],
            [],
        ),
        ("fixmatch", ["--threshold", "--unlabeled-weight"], ["--dist-temperature"]),
        ("supervised", ["--labeled-head", "--seed"], ["--threshold", "--dist-temperature"]),
    ):
        assert status_of(["train", "--method", method, "--help"]) == 0
        shown = capsys.readouterr().out
        assert [option for option in (*present, *absent) if option in shown] == present, method


def test_help_names_both_methods_whose_options_it_shows(capsys: Capture) -> None:
    assert status_of(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Hyper-parameters of fixmatch+daso (named sources) and supervised+la+mixture" in shown


MEANT = {
    "evalute run": "'evaluate'",
    "train digits --method fixmach": "'fixmatch'",
    "train digits --method=fixmatch+dazo": "'daso'",
    "train digits --method daso": "addition to a method",
    "train digits --treshold 0.5": "--threshold",
    "train digits --dist-temprature 0.5": "--dist-temperature",
    "train digits --step 5": "--steps",
    "train digits --network smal": "'small'",
    "train digit": "'digits'",
    "train fashion_mnist": "'fashion-mnist'",
    "train CIFAR10": "'cifar10'",
    "train digits --method FixMatch+DASO": "'fixmatch'",
    "train digits --schedule cosin": "'cosine'",
    "predict . image.png --probabilites": "--probabilities",
}


def test_a_misspelt_name_is_answered_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for line, meant in MEANT.items():
        assert meant in refused(line.split(), capsys), line
        assert list(tmp_path.iterdir()) == [], line


OUT_OF_RANGE = (
    "--steps 0|--batch -2|--learning-rate nan|--learning-rate inf|--momentum 1|--ema-decay 1|"
    "--seed -1|--evaluate-every 0|--threshold 1.5|--threshold nan|--unlabeled-weight -1|"
    "--unlabeled-weight nan|--dist-temperature 0|--align-weight inf|--queue-length 0|"
    "--blend fixd|--fixed-blend 2|--network small-0|--device nonsense|--device meta|--size 0|"
    "--crop-padding -3|--crop-padding 100|--strong-operations -1|--strong-magnitude 0|"
    "--strong-probability 7|--cutout -1|--gamma-labeled 0.5|--labeled-head 0|"
    "--labeled-head 100000|--holdout -5|--steps many"
)


def test_a_value_out_of_range_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: Capture
) -> None:
    split = (
        "--labeled-head 10 --unlabeled-head 20 --gamma-labeled 5 --gamma-unlabeled 5 --holdout 0"
    )
    unnamed = []
    for text in OUT_OF_RANGE.split("|"):
        option, value = text.split()
        line = ["train", "digits", *split.split(), *TINY.split(), option, value, "--out"]
        said = refused([*line, str(tmp_path / "run")], capsys)
        if option.split("-")[-1] not in said and value not in said:
            unnamed.append((text, said))
        assert not (tmp_path / "run").exists()
    assert unnamed == []


def test_a_method_without_the_unlabeled_images_it_needs(tmp_path: Path, capsys: Capture) -> None:
    images = np.random.default_rng(0).integers(256, size=(8, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(8) % 2)
    arguments = ["train", str(tmp_path / "few.npz"), "--method", "fixmatch", *TINY.split()]
    assert "unlabel" in refused([*arguments, "--out", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


def test_no_run_folder(tmp_path: Path, capsys: Capture) -> None:
    for verb in ("resume", "evaluate", "plot"):
        for folder in ("nowhere", "."):
            assert "is not a run folder" in refused([verb, str(tmp_path / folder)], capsys)


def test_interrupted_by_the_keyboard(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from daso.cli.verbs import plot

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, "run", interrupt)
    assert main(["plot", str(finished_run)]) == 130
    assert "stopped" in capsys.readouterr().err


def test_a_system_that_takes_all_names_for_ascii(tmp_path: Path) -> None:
    rows = [("path", "label")]
    for seed, label in ((10, "Kätzchen"), (20, "木")):
        for number in range(3):
            name = f"bäume/labeled/{label}/é{number}.png"
            write_image(tmp_path / name, seed + number)
            rows.append((name, label))
    (tmp_path / "liste.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    code = """
import sys
from daso.cli import main
folder, = [name for name in __import__("os").listdir() if name != "liste.csv"]
status = [main(["data", "check", name]) for name in (folder, "liste.csv")]
status += [main(["label", folder, "--export", "written.csv"]), main(["methods"])]
sys.exit(status != [0, 0, 0, 0] and str(status))
"""
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = (tmp_path / "written.csv").read_text(encoding="utf-8")
    assert all(f'{name}","{label}"' in written for name, label in rows[1:]), written
