"""daso under torchrun: two processes train one run, which one process may go on with, and the other way round."""

from __future__ import annotations

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
from typing import Any

import pytest
import torch

from daso.cli import main
from daso.cli.processes import team
from daso.errors import OptionError
from daso.train.model import load_model

SPLIT = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --holdout 50"
TRAINING = (
    "--batch 8 --network small-4 --evaluate-every 10 --learning-rate 0.01 --threshold 0.2 --steps 30 --quiet"
)
OPTIONS = [*SPLIT.split(), *TRAINING.split()]


@contextmanager
def torchrun(*arguments: str | Path, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command = [*start, f"--max-restarts={restarts}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.terminate()  # it ends its processes, if need be by force
        process.communicate()


def finished(*arguments: str | Path, restarts: int = 0) -> str:
    with torchrun(*arguments, restarts=restarts) as process:
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
    assert {path.name for path in alone.iterdir()} == {path.name for path in (tmp_path / "run").iterdir()}


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
    assert f"'daso resume {folder}' goes on from there" in output
    steps = [json.loads(path.read_text())["step"] for path in folder.glob("checkpoints/step-*.json")]
    assert rows(folder)[-1]["step"] <= max(steps)


def test_a_team_that_was_started_anew_goes_on_with_its_run(alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os\n"
        "from daso.train import run\n"
        "save = run.save_checkpoint\n"
        "def save_and_die(folder, tensors, step, *rest):\n"
        "    save(folder, tensors, step, *rest)\n"
        "    if step == 10 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.environ['RANK'] == '1':\n"
        "        os._exit(1)\n"
        "run.save_checkpoint = save_and_die\n"
        "from daso.cli import main\n"
        "raise SystemExit(main())\n"
    )
    finished(killer, "train", "digits", "--out", folder, *OPTIONS, restarts=1)
    assert json.loads((folder / "environment.json").read_text())["resumed"][0]["from_step"] == 10
    assert_alike(alone, folder)


def test_what_needs_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(OptionError, match="2 processes cannot train on --device mps"), team("mps"):
        pass
