"""daso under torchrun: two processes train one run, which one process may go on with, and the other way round."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch

from daso.cli import main
from daso.cli.processes.torchrun import team
from daso.errors import OptionError
from daso.files import read_json
from daso.train.folder.checkpoint import newest_step
from daso.train.model import load_model

SPLIT = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --holdout 50"
TRAINING = "--batch 8 --network small-4 --evaluate-every 10 --learning-rate 0.01 --threshold 0.2 --steps 30 --quiet"
OPTIONS = [*SPLIT.split(), *TRAINING.split()]


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, torch.device("cpu"), pytest.fail).network.state_dict()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_alike(one: Path, other: Path) -> None:
    for a, b in zip(rows(one), rows(other), strict=True):
        assert (a["event"], a["step"]) == (b["event"], b["step"])
        if a["event"] == "train":
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
        else:
            assert a["test"]["recall"] == pytest.approx(b["test"]["recall"], abs=0.05)
            for part in ("linear", "semantic", "final"):
                assert a["pseudo_labels"][part]["distribution"] == pytest.approx(
                    b["pseudo_labels"][part]["distribution"], abs=0.02
                )
    mine, theirs = weights(one), weights(other)
    assert all(torch.allclose(mine[name], theirs[name], rtol=1e-2, atol=2e-3) for name in mine)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", "digits", "--out", str(folder), "--device", "cpu", *OPTIONS]) == 0
    return folder


def test_two_processes_leave_the_run_that_one_leaves(alone: Path, tmp_path: Path) -> None:
    output = finished("-m", "daso", "train", "digits", "--out", tmp_path / "run", *OPTIONS)
    assert output.count("30 steps in") == 1  # the first process speaks, the other is silent
    assert_alike(alone, tmp_path / "run")
    assert {path.name for path in alone.iterdir()} == {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_two_processes_go_on_with_what_one_began(alone: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(alone, tmp_path / "run"))
    for name in ("summary.json", "confusion.json"):
        (folder / name).unlink()
    for path in (folder / "checkpoints").glob("*30.*"):
        path.unlink()
    output = finished("-m", "daso", "resume", folder, "--quiet")
    assert output.count("30 steps in") == 1
    resumed = json.loads((folder / "environment.json").read_text())["resumed"]
    assert [entry["from_step"] for entry in resumed] == [20]
    assert_alike(alone, folder)


def test_processes_that_are_told_to_stop_leave_one_whole_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    long = ["3000000" if option == "30" else option for option in OPTIONS]
    with torchrun("-m", "daso", "train", "digits", "--out", folder, *long) as process:
        deadline = time.monotonic() + 200
        while not list(folder.glob("checkpoints/step-*.json")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert f"'daso resume {folder}' resumes from there" in output
    steps = [
        json.loads(path.read_text())["step"] for path in folder.glob("checkpoints/step-*.json")
    ]
    assert rows(folder)[-1]["step"] <= max(steps)


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


LAST = "checkpoints/step-000000120.safetensors"


def strip(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what tells of time."""
    return {
        name: value for name, value in row.items() if not name.endswith(("seconds", "per_second"))
    }


def newest(folder: Path) -> int:
    return newest_step(folder / "checkpoints") or 0


def test_processes_that_are_killed_are_started_anew_and_end_with_the_same_weights(
    tmp_path: Path,
) -> None:
    steps, options = "120", OPTIONS[: OPTIONS.index("--steps")]
    options = [*options, "--steps", steps, "--quiet"]
    calm, harassed = tmp_path / "calm", tmp_path / "harassed"
    finished("-m", "daso", "train", "digits", "--out", calm, *options)
    random = Random(time.time())
    with torchrun(
        "-m", "daso", "train", "digits", "--out", harassed, *options, restarts=20
    ) as process:
        for victim in (1, 0):
            before = newest(harassed)
            while newest(harassed) <= before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(random.uniform(0, 0.5))
            if process.poll() is None and len(alive := processes_of(process.pid)) == 2:
                os.kill(alive[victim], signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    resumed = read_json(harassed / "environment.json")["resumed"]
    assert all(
        0 < entry["from_step"] < 120 for entry in resumed
    )  # nothing is noted of one that was complete
    states = [safetensors.torch.load_file(folder / LAST) for folder in (calm, harassed)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert [strip(row) for row in rows(calm)] == [strip(row) for row in rows(harassed)]


def test_two_then_one_then_four_processes(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = tmp_path / "stopping.py"
    script.write_text(
        "import os, signal, sys\n"
        "from daso.train import run\n"
        "save, at = run.save_checkpoint, int(os.environ['STOP_AT'])\n"
        "def save_and_stop(folder, tensors, step, *rest):\n"
        "    save(folder, tensors, step, *rest)\n"
        "    if step == at and os.environ.get('RANK', '0') == '0':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "run.save_checkpoint = save_and_stop\n"
        "from daso.cli import main\n"
        "raise SystemExit(main())\n"
    )
    with torchrun(script, "train", "digits", "--out", folder, *OPTIONS, stop_at=10) as process:
        process.communicate(timeout=240)
    assert newest(folder) == 10
    subprocess.run(
        [sys.executable, script, "resume", folder, "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "STOP_AT": "20"},
        check=False,
    )
    assert newest(folder) == 20
    finished("-m", "daso", "resume", folder, "--quiet", size=4)
    resumed = read_json(folder / "environment.json")["resumed"]
    assert [entry["from_step"] for entry in resumed] == [10, 20]
    assert_alike(alone, folder)


def test_what_needs_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(OptionError, match="2 processes cannot train on --device mps"), team("mps"):
        pass
