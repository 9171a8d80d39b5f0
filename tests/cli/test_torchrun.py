"""daso under torchrun: two processes train one run, which one process may go on with, and the other way round."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from daso.cli.processes.torchrun import team
from daso.errors import OptionError
from daso.files import read_json, read_rows
from daso.train.folder.checkpoint import newest_step

SPLIT = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --holdout 50"
TRAINING = "--batch 8 --network small-4 --evaluate-every 10 --learning-rate 0.01 --threshold 0.2 --steps 30 --quiet"
OPTIONS = [*SPLIT.split(), *TRAINING.split(), "--precision", "float32"]

SCRIPT = """
import os, signal
import torch
torch.set_default_dtype(torch.float64)  # where a true difference is larger than rounding
torch.Tensor.float = torch.Tensor.double
from daso.train import run
save, at = run.save_checkpoint, int(os.environ["STOP_AT"])
def save_and_stop(folder, tensors, step, *rest):
    save(folder, tensors, step, *rest)
    if step == at and os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGTERM)
run.save_checkpoint = save_and_stop
from daso.cli import main
raise SystemExit(main())
"""
"""The command line in float64; it is told to stop after the checkpoint of step STOP_AT."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "daso_float64.py"
    path.write_text(SCRIPT)
    return path


@contextmanager
def torchrun(
    *arguments: str | Path, restarts: int = 0, size: int = 2, stop_at: int = 0
) -> Iterator[subprocess.Popen[str]]:
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(size),
        "--standalone",
    ]
    command = [*start, f"--max-restarts={restarts}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "STOP_AT": str(stop_at)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.terminate()  # it ends its processes, if need be by force
        process.communicate()


def finished(*arguments: str | Path, size: int = 2) -> str:
    with torchrun(*arguments, size=size) as process:
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


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
def alone(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    in_one_process(script, "train", "digits", "--out", folder, "--device", "cpu", *OPTIONS)
    return folder


def in_one_process(*command: str | Path, stop_at: int = 0) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "STOP_AT": str(stop_at)}
    process = subprocess.run([sys.executable, *command], env=environment, check=False)
    assert process.returncode in (0, 128 + signal.SIGTERM)


def test_two_processes_leave_the_run_that_one_leaves(
    alone: Path, script: Path, tmp_path: Path
) -> None:
    output = finished(script, "train", "digits", "--out", tmp_path / "run", *OPTIONS)
    assert output.count("30 steps in") == 1  # the first process speaks, the other is silent
    assert_alike(alone, tmp_path / "run")
    assert {path.name for path in alone.iterdir()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_processes_that_are_told_to_stop_leave_one_whole_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ["3000000" if option == "30" else option for option in OPTIONS]
    with torchrun("-m", "daso", "train", "digits", "--out", folder, *long) as process:
        while not list(folder.glob("checkpoints/step-*.json")):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert f"daso resume {folder}" in output
    assert rows(folder)[-1]["step"] <= newest(folder)


def processes_of(torchrun: int) -> list[int]:
    """Return the training processes by rank, or fewer where some are not there yet or no more."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == torchrun and state != "Z":
                variables = (place / "environ").read_bytes().split(b"\0")
                rank = next(text[5:] for text in variables if text.startswith(b"RANK="))
                found[int(rank)] = int(place.name)
    return [found[rank] for rank in sorted(found)]


def newest(folder: Path) -> int:
    return newest_step(folder / "checkpoints") or 0


def test_processes_that_are_killed_are_started_anew_and_end_with_the_same_weights(
    tmp_path: Path,
) -> None:
    steps, options = "120", OPTIONS[: OPTIONS.index("--steps")]
    options = [*options, "--steps", steps, "--quiet"]
    calm, harassed = tmp_path / "calm", tmp_path / "harassed"
    finished("-m", "daso", "train", "digits", "--out", calm, *options)
    with torchrun(
        "-m", "daso", "train", "digits", "--out", harassed, *options, restarts=20
    ) as process:
        for victim in (1, 0):
            before = newest(harassed)
            while newest(harassed) <= before and process.poll() is None:
                time.sleep(0.02)
            if process.poll() is None and len(alive := processes_of(process.pid)) == 2:
                os.kill(alive[victim], signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    resumed = read_json(harassed / "environment.json")["resumed"]
    assert all(
        0 < entry["from_step"] < 120 for entry in resumed
    )  # nothing is noted of one that was complete
    expected, actual = states(calm), states(harassed)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(value, actual[name]) for name, value in expected.items())
    assert list(map(numbers, rows(calm))) == list(map(numbers, rows(harassed)))


def test_two_then_one_then_four_processes(alone: Path, script: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with torchrun(script, "train", "digits", "--out", folder, *OPTIONS, stop_at=10) as process:
        process.communicate(timeout=240)
    assert newest(folder) == 10
    in_one_process(script, "resume", folder, "--quiet", stop_at=20)
    assert newest(folder) == 20
    output = finished(script, "resume", folder, "--quiet", size=4)
    assert output.count("30 steps in") == 1
    resumed = read_json(folder / "environment.json")["resumed"]
    assert [entry["from_step"] for entry in resumed] == [10, 20]
    assert_alike(alone, folder)


def test_what_needs_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(OptionError, match="--device mps"), team("mps"):
        pass
