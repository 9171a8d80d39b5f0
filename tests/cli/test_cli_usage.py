"""Help and wrong usage: fast, short, and with the name that was probably meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daso.cli import VERBS, early, main

Capture = pytest.CaptureFixture[str]

TINY = [
    "--network",
    "small-4",
    "--steps",
    "4",
    "--batch",
    "8",
    "--evaluate-every",
    "2",
    "--device",
    "cpu",
]


def status_of(arguments: list[str]) -> int:
    """Return the exit status, whether it is returned or raised."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


def refused(arguments: list[str], capsys: Capture) -> str:
    """Return what a refused command said, having checked that it failed briefly and without a traceback."""
    status = status_of(arguments)
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert status in (1, 2), said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 12, said
    return said


def test_help_needs_neither_torch_nor_numpy_and_lists_the_verbs() -> None:
    code = (
        "import sys\nfrom daso.cli import main\nstatus = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr.strip()) == (0, "[]")
    for verb in ("demo", "train", "resume", "evaluate", "predict", "plot"):
        assert f"  {verb} " in result.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train nowhere", "'nowhere' is neither a file or folder that exists"),
        ("train cifr10-n500-g100", "Did you mean 'cifar10-n500-g100'?"),
        ("train --labeled nowhere", "--labeled nowhere: there is no such folder"),
        ("train digits --method fixmatch+dasso", "Did you mean 'daso'?"),
        ("train digits --method daso", "It is a part to add to a method."),
        ("train digits --device gpu", "Did you mean 'cuda'?"),
        ("train --like nowhere", "nowhere is no run folder: it does not exist"),
        ("evaluate nowhere", "nowhere is no run folder: it does not exist"),
        ("export .", ". is no run folder: it has no config.json"),
        ("predict nowhere image.jpg", "nowhere does not exist"),
        (
            "train digits --method supervised --queue-length 7 --threshold 0.8",
            "supervised has no --queue-length and no --threshold; methods and parts that have it: --queue-length: "
            "+daso; --threshold: pseudolabel, fixmatch, boss",
        ),
        ("train digits --method meanteacher --no-align", "meanteacher has no --align"),
        ("train digits --blend distributon", "Did you mean 'distribution'?"),
        ("train digits --unlabeled_shape=unifrom", "Did you mean 'uniform'?"),
        ("train digits --optimizer adamW", "Did you mean 'adamw'?"),
        ("train digits --track wandbb", "Did you mean 'wandb'?"),
    ],
)
def test_what_does_not_exist_is_refused_before_torch_is_imported(
    line: str, said: str, tmp_path: Path
) -> None:
    code = (
        "import sys\nfrom daso.cli import main\nstatus = main(sys.argv[1:])\n"
        "sys.exit(99 if 'torch' in sys.modules else status)"
    )
    command = [sys.executable, "-c", code, *line.split()]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said in result.stderr
    assert result.returncode in (1, 2)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "line",
    [
        "train digits --method own.py:Mine+la --device cuda:1",
        "train hf:somebody/something --unlabeled-weight 2",
        "train cifar10-n500-g100",
        "train --labeled . --test .",
        "predict . nowhere.jpg",
        "evaluate --json nowhere",  # what is said of it comes later
    ],
)
def test_what_may_be_right_is_let_through(line: str) -> None:
    verb, *argv = line.split()
    early.refuse_early(verb, argv)


@pytest.mark.parametrize(
    "option", [["--gamma"], ["--queue-length", "x"], ["--optimizer"], ["--no-such", "1"]]
)
def test_what_no_method_has_is_left_to_the_parser(option: list[str], capsys: Capture) -> None:
    assert status_of(["train", "digits", *option]) == 2
    assert option[0] in capsys.readouterr().err


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "daso", "trian"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Did you mean 'train'?" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["-h"], ["help"], ["--help"]])
def test_help(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 0
    assert "usage: daso VERB" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str, capsys: Capture) -> None:
    assert status_of([verb, "--help"]) == 0
    assert f"daso {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [*VERBS, "data check"])
def test_help_is_written_for_people(
    verb: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert status_of([*verb.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    for odd in (
        "``",
        "{None}",
        "None|",
        "default: None",
        "default: )",
        "default: '')",
        "*fixed",
        "as above",
        "250000",
    ):
        assert odd not in shown


def test_help_does_not_give_defaults_that_the_source_decides(capsys: Capture) -> None:
    assert status_of(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(default: the paper's 250,000 for its benchmarks; for your own data chosen" in shown
    for text in ("64, or chosen", "1.5, or chosen for the data and printed", "0.95)"):
        assert f"(default: {text}" in shown


@pytest.mark.parametrize(
    ("method", "present", "absent"),
    [
        (
            "fixmatch+daso",
            ["--threshold", "--dist-temperature", "--queue-length", "--no-balanced-queue"],
            [],
        ),
        ("fixmatch", ["--threshold", "--unlabeled-weight"], ["--dist-temperature"]),
        ("supervised", ["--labeled-head", "--seed"], ["--threshold", "--dist-temperature"]),
    ],
)
def test_help_shows_the_options_of_the_method(
    method: str, present: list[str], absent: list[str], capsys: Capture
) -> None:
    assert status_of(["train", "--method", method, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in present)
    assert not any(option in shown for option in absent)


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["evalute", "run"], "'evaluate'"),
        (["train", "digits", "--method", "fixmach"], "'fixmatch'"),
        (["train", "digits", "--method=fixmatch+dazo"], "'daso'"),
        (["train", "digits", "--treshold", "0.5"], "--threshold"),
        (["train", "digits", "--dist-temprature", "0.5"], "--dist-temperature"),
        (["train", "digits", "--step", "5"], "--steps"),
        (["train", "digits", "--network", "smal"], "'small'"),
        (["train", "digit"], "'digits'"),
        (["train", "fashion_mnist"], "'fashion-mnist'"),
        (["train", "CIFAR10"], "'cifar10'"),
        (["train", "digits", "--method", "FixMatch+DASO"], "'fixmatch'"),
        (["train", "digits", "--schedule", "cosin"], "cosine"),
        (["predict", ".", "image.png", "--probabilites"], "--probabilities"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_right_one(
    arguments: list[str],
    meant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    status = status_of(arguments)
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert meant in captured.out + captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_exist(tmp_path: Path, capsys: Capture) -> None:
    said = refused(["train", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")], capsys)
    assert "nowhere" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--steps", "0"),
        ("--batch", "-2"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--momentum", "1"),
        ("--ema-decay", "1"),
        ("--seed", "-1"),
        ("--evaluate-every", "0"),
        ("--threshold", "1.5"),
        ("--threshold", "nan"),
        ("--unlabeled-weight", "-1"),
        ("--unlabeled-weight", "nan"),
        ("--dist-temperature", "0"),
        ("--align-weight", "inf"),
        ("--queue-length", "0"),
        ("--blend", "fixd"),
        ("--fixed-blend", "2"),
        ("--network", "small-0"),
        ("--device", "nonsense"),
        ("--device", "meta"),
        ("--size", "0"),
        ("--crop-padding", "-3"),
        ("--crop-padding", "100"),
        ("--strong-operations", "-1"),
        ("--strong-magnitude", "0"),
        ("--strong-probability", "7"),
        ("--cutout", "-1"),
        ("--gamma-labeled", "0.5"),
        ("--labeled-head", "0"),
        ("--labeled-head", "100000"),
        ("--holdout", "-5"),
        ("--steps", "many"),
    ],
)
def test_a_value_out_of_range_is_refused_before_a_folder_is_made(
    option: str, value: str, tmp_path: Path, capsys: Capture
) -> None:
    options = {
        "--labeled-head": "10",
        "--unlabeled-head": "20",
        "--gamma-labeled": "5",
        "--gamma-unlabeled": "5",
        "--holdout": "0",
        "--network": "small-4",
        "--steps": "4",
        "--batch": "8",
        "--device": "cpu",
    } | {option: value}
    words = [word for pair in options.items() for word in pair]
    said = refused(["train", "digits", *words, "--out", str(tmp_path / "run")], capsys)
    spelled = option.removeprefix("--").split("-")[-1]
    assert spelled in said or value in said
    assert not (tmp_path / "run").exists()


def test_a_negative_holdout_is_refused_by_its_name(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["train", "digits", "--method", "supervised", *TINY, "--holdout", "-5"]
    assert "holdout" in refused([*arguments, "--out", str(tmp_path / "run")], capsys)


def test_a_method_without_the_unlabeled_images_it_needs(tmp_path: Path, capsys: Capture) -> None:
    images = np.random.default_rng(0).integers(256, size=(8, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "few.npz", images=images, labels=np.arange(8) % 2)
    arguments = ["train", str(tmp_path / "few.npz"), "--method", "fixmatch", *TINY]
    assert "unlabelled images" in refused([*arguments, "--out", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["resume", "evaluate", "plot"])
@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_no_run_folder(verb: str, folder: str, tmp_path: Path, capsys: Capture) -> None:
    assert "is no run folder" in refused([verb, str(tmp_path / folder)], capsys)


def test_interrupted_by_the_keyboard(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from daso.cli.verbs import plot

    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, "run", interrupt)
    assert main(["plot", str(finished_run)]) == 130
    assert "stopped" in capsys.readouterr().err


def closed_early(arguments: list[str], *, errors_too: bool = False) -> tuple[int, str]:
    """Run the command line for a reader that closes before it has read anything; return the status and the errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daso", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors_too else subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    said = b"" if process.stderr is None else process.stderr.read()
    return process.wait(), said.decode()


@pytest.mark.parametrize("line", ["--help", "methods", "presets --json", "train digits --help"])
def test_a_reader_that_closes_before_the_end_is_no_error_to_speak_of(line: str) -> None:
    assert closed_early(line.split()) == (1, "")


def test_a_reader_of_errors_that_closes_ends_a_training(tmp_path: Path) -> None:
    train = ["train", "digits", *TINY, "--out", str(tmp_path / "run")]
    assert closed_early(train, errors_too=True) == (1, "")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_another_pipe_that_breaks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> int:
        raise BrokenPipeError(32, "of a worker")

    monkeypatch.setattr("daso.cli.verbs.methods.run", broken)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        main(["methods"])
    code = (
        "import sys, daso.cli.verbs.methods\n"
        "def broken(arguments): raise BrokenPipeError(32, 'of a worker')\n"
        "daso.cli.verbs.methods.run = broken\n"
        "sys.argv = ['daso', 'methods']\n"
        "sys.exit(daso.cli.main())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("BrokenPipeError: [Errno 32] of a worker")
