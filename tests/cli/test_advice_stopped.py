"""Advice to who has stopped a command, done as it says: what was begun is finished."""

from __future__ import annotations

import importlib
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from advice import QUICK
from label_sets import write_folder

from daso.cli import main
from daso.cli.prediction.classify import Counter
from daso.cli.processes.signals import Stop
from daso.report.figures import draw
from tests.conftest import Say

OPTIONS = [word for pair in QUICK.items() for word in pair]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ``photos``, a ``run`` on them, and the same, ``begun``."""
    place = tmp_path_factory.mktemp("stopped")
    photos = write_folder(place / "photos")
    words = ["train", str(photos), "--method", "supervised", "--size", "8", *OPTIONS]
    assert main([*words, "--out", str(place / "run")]) == 0
    begun = Path(shutil.copytree(place / "run", place / "begun"))
    (begun / "summary.json").unlink()
    return place


def interrupt_once(patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let the next call of a function press Ctrl-C after its work."""
    real: Callable[..., Any] = getattr(owner, name)

    def interrupted(*given: Any, **options: Any) -> None:
        patch.setattr(owner, name, real)
        real(*given, **options)
        raise KeyboardInterrupt

    patch.setattr(owner, name, interrupted)


@pytest.mark.parametrize(
    ("command", "reads", "advice"),
    [
        (
            f"train photos --method supervised --size 8 --out new {' '.join(OPTIONS)}",
            "cli.training.session.read_source",
            "nothing is trained yet, and the same command starts again",
        ),
        *(
            (
                f"train photos --method supervised --size 8 --out new {' '.join(OPTIONS)}",
                place,
                "nothing is trained yet, and the same command starts again",
            )
            for place in ("cli.verbs.train.parse_train", "cli.training.session.refuse_early")
        ),
        ("resume begun", "train.run.prepare_again", "the same command resumes it"),
        (
            "validate run --folds 2 --data photos",
            "train.run_data.open_configured",
            "the same command resumes the validation",
        ),
        (
            "validate run --folds 2 --data photos",
            "train.prepare.prepare",
            "the same command resumes the validation",
        ),
    ],
)
def test_a_command_that_is_stopped_while_it_reads_images_starts_again(
    command: str, reads: str, advice: str, place: Path, say: Say, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    module, name = reads.rsplit(".", 1)
    interrupt_once(monkeypatch, importlib.import_module(f"daso.{module}"), name)
    status, said = say(*command.split())
    assert status == 128 + signal.SIGINT
    assert advice in said
    assert "checkpoint" not in said
    status, said = say(*command.split())
    assert status == 0, said
    assert advice not in said


def test_a_run_that_is_stopped_while_it_draws_is_complete(
    place: Path, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("train", place / "photos", "--method", "supervised", "--size", "8", *OPTIONS)
    interrupt_once(monkeypatch, draw, "draw_run")
    status, said = say(*words, "--out", tmp_path / "new")
    assert status == 128 + signal.SIGINT
    (command,) = re.findall(r"the run is complete; 'daso (plot [^']+)' draws its plots", said)
    status, said = say(*command.split())
    assert status == 0, said
    assert say("resume", tmp_path / "new")[0] == 0


class AtOnce(Stop):
    """A request to stop after the first step."""

    def __call__(self) -> bool:
        self.signal = signal.SIGINT
        return True


def test_a_training_that_is_stopped_is_resumed_as_advised(
    place: Path, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("train", place / "photos", "--method", "supervised", "--size", "8", *OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr("daso.cli.training.session.Stop", AtOnce)
        status, said = say(*words, "--out", tmp_path / "new")
    assert status == 128 + signal.SIGINT
    (command,) = re.findall(r"stopped after step 1 of 2; 'daso (resume [^']+)' resumes from", said)
    status, said = say(*command.split())
    assert status == 0, said
    assert "resuming from step 1" in said


def test_a_validation_that_is_stopped_is_resumed_by_the_same_command(
    place: Path, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    command = ("validate", run, "--folds", "2", "--steps", "3")
    with monkeypatch.context() as patch:
        patch.setattr("daso.cli.processes.signals.Stop", AtOnce)
        status, said = say(*command)
    assert status == 128 + signal.SIGINT
    assert "the same command resumes the validation" in said
    assert not (tmp_path / "run" / "cross_validation-3-steps.json").exists()
    status, said = say(*command)
    assert status == 0, said
    assert (tmp_path / "run" / "cross_validation-3-steps.json").exists()


def test_a_prediction_that_is_stopped_is_resumed_as_advised(
    place: Path, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("predict", place / "run", place / "photos" / "unlabeled", "--out")
    assert say(*command, tmp_path / "whole.csv")[0] == 0
    interrupt_once(monkeypatch, Counter, "add")
    status, said = say(*command, tmp_path / "stopped.csv")
    assert status == 128 + signal.SIGINT
    assert "repeat the command with --resume to continue" in said
    status, said = say(*command, tmp_path / "stopped.csv", "--resume")
    assert status == 0, said
    assert "resumed after 12 images" in said
    whole, stopped = ((tmp_path / f"{n}.csv").read_text() for n in ("whole", "stopped"))
    assert stopped == whole
