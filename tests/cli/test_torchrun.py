"""daso under torchrun: two processes train one run, which one process may go on with, and the other way round."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import elastic
import pytest
import safetensors.torch
import torch
from forked import finish, start

from daso.cli.processes.torchrun import team
from daso.errors import OptionError
from daso.files import read_json, read_rows
from daso.train.folder.checkpoint import newest_step

SPLIT = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --holdout 50"
TRAINING = "--batch 8 --network small-4 --evaluate-every 10 --learning-rate 0.01 --threshold 0.2 --steps 30 --quiet"
OPTIONS = [*SPLIT.split(), *TRAINING.split(), "--precision", "float32"]


class Torchrun:
    """Processes that an agent started, as torchrun does, and what they say."""

    def __init__(
        self, place: Path, *words: str | Path, size: int = 2, restarts: int = 0, stop_at: int = 0
    ) -> None:
        self.place = place
        self.agent = start(elastic.run, list(words), size, restarts, place, stop_at)

    @property
    def said(self) -> str:
        return (self.place / "said").read_text()

    def processes(self) -> list[int]:
        return [int((self.place / f"process-{rank}").read_text()) for rank in (0, 1)]


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Callable[..., Torchrun]]:
    """Return a function that starts processes, which end with the test."""
    running: list[Torchrun] = []

    def begin(*words: str | Path, **options: int) -> Torchrun:
        place = tmp_path / f"torchrun-{len(running)}"
        place.mkdir()
        running.append(Torchrun(place, *words, **options))
        return running[-1]

    yield begin
    for one in running:
        one.agent.terminate()  # it ends its processes, if need be by force
        finish(one.agent)


def finished(torchrun: Callable[..., Torchrun], *words: str | Path, **options: int) -> str:
    one = torchrun(*words, **options)
    assert finish(one.agent) == 0, one.said
    return one.said


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_rows(folder / "metrics.jsonl")


def numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what depends on time."""
    return {
        name: value for name, value in row.items() if not name.endswith(("seconds", "per_second"))
    }


def states(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(max((folder / "checkpoints").glob("*.safetensors")))


def assert_alike(one: Path, other: Path) -> None:
    for a, b in zip(rows(one), rows(other), strict=True):
        assert_close(numbers(a), numbers(b))
    mine, theirs = states(one), states(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-7, atol=1e-9, msg=name)


def assert_close(one: Any, other: Any) -> None:
    """Compare values of JSON, numbers within rounding in float64."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert_close(value, other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    else:
        assert one == (pytest.approx(other, rel=1e-6) if isinstance(one, float) else other)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("alone")
    words = ["train", "digits", "--out", place / "run", "--device", "cpu", *OPTIONS]
    one = Torchrun(place, *words, size=1)
    assert finish(one.agent) == 0, one.said
    return place / "run"


def test_two_processes_leave_the_run_that_one_leaves(
    alone: Path, torchrun: Callable[..., Torchrun], tmp_path: Path
) -> None:
    said = finished(torchrun, "train", "digits", "--out", tmp_path / "run", *OPTIONS)
    assert said.count("30 steps in") == 1  # the first process speaks, the other is silent
    assert_alike(alone, tmp_path / "run")
    assert {path.name for path in alone.iterdir()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_processes_that_are_told_to_stop_leave_one_whole_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ["3000000" if option == "30" else option for option in OPTIONS]
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*program, "--nproc-per-node=2", "-m", "daso", "train", "digits", "--out", folder]
    with subprocess.Popen(
        [*map(str, words), *long],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            while not list(folder.glob("checkpoints/step-*.json")):
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
        finally:
            process.terminate()
        output, _ = process.communicate(timeout=120)
    assert f"daso resume {folder}" in output
    assert rows(folder)[-1]["step"] <= newest(folder)


def newest(folder: Path) -> int:
    return newest_step(folder / "checkpoints") or 0


def test_processes_that_are_killed_are_started_anew_and_end_with_the_same_weights(
    torchrun: Callable[..., Torchrun], tmp_path: Path
) -> None:
    steps, options = "40", OPTIONS[: OPTIONS.index("--steps")]
    options = [*options, "--steps", steps, "--quiet"]
    calm, harassed = tmp_path / "calm", tmp_path / "harassed"
    finished(torchrun, "train", "digits", "--out", calm, *options)
    one = torchrun("train", "digits", "--out", harassed, *options, restarts=20)
    for victim in (1, 0):
        before = newest(harassed)
        while newest(harassed) <= before and one.agent.is_alive():
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            if one.agent.is_alive():  # the training is not over
                os.kill(one.processes()[victim], signal.SIGKILL)
    assert finish(one.agent) == 0, one.said
    resumed = read_json(harassed / "environment.json")["resumed"]
    assert all(
        0 < entry["from_step"] < 40 for entry in resumed
    )  # nothing is noted of one that was complete
    expected, actual = states(calm), states(harassed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert list(map(numbers, rows(calm))) == list(map(numbers, rows(harassed)))


def test_two_then_one_then_four_processes(
    alone: Path, torchrun: Callable[..., Torchrun], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    finish(torchrun("train", "digits", "--out", folder, *OPTIONS, stop_at=10).agent)
    assert newest(folder) == 10
    finish(torchrun("resume", folder, "--quiet", size=1, stop_at=20).agent)
    assert newest(folder) == 20
    said = finished(torchrun, "resume", folder, "--quiet", size=4)
    assert said.count("30 steps in") == 1
    resumed = read_json(folder / "environment.json")["resumed"]
    assert [entry["from_step"] for entry in resumed] == [10, 20]
    assert_alike(alone, folder)


def test_what_needs_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(OptionError, match="--device mps"), team("mps"):
        pass
