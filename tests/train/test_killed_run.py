"""A run that is killed, at any moment, and resumed ends bit for bit as one that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import killed_runs
import numpy as np
import pytest
from forked import command, finish, start
from run_files import comparable
from safetensors.numpy import load_file

from daso.cli import main
from daso.files import read_json, read_rows
from daso.train.folder import checkpoint

METHODS = ("fixmatch+daso", "fixmatch+darp", "fixmatch+crest", "remixmatch")
ACTIVE = {
    # Every part of the state is at work from early on: blending, histogram, confident pseudo-labels.
    "fixmatch+daso": {"--threshold": "0.3", "--warmup-steps": "7", "--histogram-period": "8"},
    "fixmatch+darp": {"--threshold": "0.3", "--darp-start": "0.2", "--darp-period": "3"},
    "fixmatch+crest": {"--threshold": "0.3", "--generations": "3", "--crest-power": "0.2"},
    "remixmatch": {"--unlabeled-ramp": "0.1"},
}
STEPS = 60
KILLS = int(os.environ.get("DASO_KILLS", "2"))
"""Of each method's run. More of them: DASO_KILLS=100 pytest -s tests/train/test_killed_run.py"""


def arguments(method: str, folder: Path) -> list[str]:
    options = {
        "--method": method,
        "--network": "small-4",
        "--steps": str(STEPS),
        "--batch": "8",
        "--evaluate-every": "5",
        "--log-every": "3",
        "--device": "cpu",
        "--out": str(folder),
    }
    options |= ACTIVE.get(method, {})
    return ["train", "digits", *(word for option in options.items() for word in option)]


def newest_step(folder: Path) -> int:
    return checkpoint.newest_step(folder / "checkpoints") or 0


def kill_after(process: BaseProcess, folder: Path, step: int, pause: float) -> None:
    """Kill a process once it has saved *step*, and a little later: anywhere between two checkpoints."""
    deadline = time.monotonic() + 120
    while newest_step(folder) < step and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.001)
    time.sleep(pause)
    process.kill()


def final_tensors(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(folder / "checkpoints" / f"step-{STEPS:09d}.safetensors")


def assert_same_end(folder: Path, undisturbed: Path) -> None:
    tensors, expected = final_tensors(folder), final_tensors(undisturbed)
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].tobytes() == value.tobytes(), f"{name} differs"
    assert comparable(folder) == comparable(undisturbed)
    summaries = [read_json(path / "summary.json") for path in (folder, undisturbed)]
    for summary in summaries:
        assert summary.pop("seconds") > 0
    assert summaries[0] == summaries[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {method: tmp_path_factory.mktemp("undisturbed") / "run" for method in METHODS}
    processes = [start(command, arguments(method, folder)) for method, folder in folders.items()]
    assert [finish(process) for process in processes] == [0] * len(METHODS)
    return folders


def is_writing(folder: Path) -> bool:
    """Tell whether a process was killed in the middle of a checkpoint."""
    files = list((folder / "checkpoints").glob("step-*"))
    unfinished = {path.stem for path in files if path.suffix == ".safetensors"} - {
        path.stem for path in files if path.suffix == ".json"
    }
    return bool(unfinished or list(folder.rglob(".*.tmp")))


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_random_moments(
    tmp_path: Path, undisturbed: dict[str, Path], method: str
) -> None:
    """Kill one run after another, anywhere, until there were enough kills; each ends as if nothing had happened."""
    draw = random.Random()
    kills = writing = between = runs = 0
    while kills < KILLS:
        folder = tmp_path / f"run-{runs}"
        runs += 1
        # Checkpoints every few steps, so that most lives begin between two rows, and all get on.
        life = [*arguments(method, folder), "--save-minutes", str(draw.choice((0.0005, 0.002, 10)))]
        end = None
        while end != 0:
            slow = draw.random() < 0.5 and kills < KILLS
            target = (
                newest_step(folder) + draw.randrange(2 if slow else 15)
                if kills < KILLS
                else 2 * STEPS
            )
            process = start(killed_runs.slow_disk, life, 0.1) if slow else start(command, life)
            kill_after(
                process, folder, target, draw.uniform(0, 0.6 if slow else 0.05 if target else 0.5)
            )
            end = finish(process)
            assert end in (0, -signal.SIGKILL)
            kills += end != 0
            writing += end != 0 and is_writing(folder)
            between += end != 0 and newest_step(folder) % 5 > 0
            if (folder / "config.json").exists():
                life = ["resume", str(folder)]
            else:
                shutil.rmtree(folder, ignore_errors=True)
        assert_same_end(folder, undisturbed[method])
    print(
        f"{method}: {runs} runs, {kills} kills, {writing} in a write, {between} off an evaluation",
        end=" ",
    )


@pytest.mark.parametrize("method", ["fixmatch+daso", "fixmatch+crest"])
def test_asked_to_stop_at_random_moments(
    tmp_path: Path, undisturbed: dict[str, Path], method: str
) -> None:
    folder, draw = tmp_path / "run", random.Random()
    life, number = arguments(method, folder), draw.choice((signal.SIGTERM, signal.SIGINT))
    process = start(killed_runs.slow_disk, life, 0.1)  # so that it is not over before it is asked
    while newest_step(folder) < 5:
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1))
    assert process.pid is not None
    os.kill(process.pid, number)
    assert finish(process) == 128 + number
    stopped = newest_step(folder)
    assert read_rows(folder / "metrics.jsonl")[-1]["step"] <= stopped
    assert finish(start(command, ["resume", str(folder)])) == 0
    assert_same_end(folder, undisturbed[method])


@pytest.fixture(scope="module")
def died_writing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int | None]]:
    """Return a completed run whose earlier lives all ended in the middle of a write, and how they ended."""
    folder = tmp_path_factory.mktemp("died") / "run"
    resume = ["resume", str(folder)]
    # A new run writes environment, data, configuration and an empty record, then two files per checkpoint.
    lives = [
        (killed_runs.die_in_write, arguments("fixmatch+daso", folder), 5),  # tensors of step 5
        (
            killed_runs.die_in_write,
            resume,
            7,
        ),  # voucher of step 15, after the record and two checkpoints
        (killed_runs.die_in_write, resume, 1),  # the record of rows
        (killed_runs.die_in_removal, resume, 1),  # a voucher removed, its tensors not
        (killed_runs.die_in_write, resume, 4),  # tensors of a later checkpoint
    ]
    ends = [finish(start(*life)) for life in lives]
    ends.append(finish(start(command, resume)))
    return folder, ends


def test_killed_while_writing(
    died_writing: tuple[Path, list[int | None]], undisturbed: dict[str, Path]
) -> None:
    folder, ends = died_writing
    assert ends == [-signal.SIGKILL] * 5 + [0]
    assert_same_end(folder, undisturbed["fixmatch+daso"])


def test_killed_while_writing_leaves_no_temporary_file(
    died_writing: tuple[Path, list[int | None]],
) -> None:
    folder, _ = died_writing
    assert [str(path.relative_to(folder)) for path in folder.rglob("*.tmp")] == []


def test_killed_while_removing_leaves_no_old_checkpoint(
    died_writing: tuple[Path, list[int | None]], undisturbed: dict[str, Path]
) -> None:
    left, expected = (
        sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
        for folder in (died_writing[0], undisturbed["fixmatch+daso"])
    )
    assert left == expected


def test_killed_before_the_configuration_was_written(
    tmp_path: Path, undisturbed: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert (
        finish(start(killed_runs.die_in_write, arguments("fixmatch+daso", folder), 3))
        == -signal.SIGKILL
    )
    assert main(["resume", str(folder)]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    # It has not begun: the same command begins it.
    assert finish(start(command, arguments("fixmatch+daso", folder))) == 0
    assert_same_end(folder, undisturbed["fixmatch+daso"])
