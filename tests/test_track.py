"""Trackers get what the rows say, continue after a resume, and never end a training."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tracked_runs import ROWS, TINY, Capture, Row, begun_run, cut_back

from daso import track
from daso.cli import main
from daso.errors import MissingDependencyError
from daso.report.runs import read_run
from daso.track import Tracking, _key, check_installed, numbers_of, used_before


def test_names_for_mlflow_stay_different() -> None:
    names = ["$", "$$", "€", "猫", "犬", "a b", "a_b", ".", "..", "[x]"]
    names += ["x" * 300, "x" * 301, "é " * 100 + "a", "é " * 100 + "b"]
    keys = [_key(f"test/recall/{name}") for name in names]
    assert len(set(keys)) == len(names)
    assert max(map(len, keys)) == 250
    assert all(re.fullmatch(r"[/\w.\- ]+", key) and os.path.normpath(key) == key for key in keys)
    assert _key("test/recall/cat") == "test/recall/cat"


def test_numbers_of_rows() -> None:
    row = {
        "event": "train",
        "step": 3,
        "loss": 1.5,
        "losses": {"labeled": 0.5, "align": float("nan")},
        "seconds": 2,
    }
    assert numbers_of(row, ["a", "b"]) == {
        "train/loss": 1.5,
        "train/losses/labeled": 0.5,
        "train/seconds": 2.0,
    }
    row = {
        "event": "evaluate",
        "step": 4,
        "test": {"accuracy": 0.5, "recall": [0.25, None], "precision": [1.0, 1.0]},
        "pseudo_labels": {"final": {"distribution": [0.1, 0.9]}},
        "warnings": [{"kind": "T_dist"}],
    }
    assert numbers_of(row, ["a", "b"]) == {
        "test/accuracy": 0.5,
        "test/recall/a": 0.25,
        "pseudo_labels/final/distribution/a": 0.1,
        "pseudo_labels/final/distribution/b": 0.9,
    }
    many = {"event": "evaluate", "step": 4, "test": {"accuracy": 0.5, "recall": [0.5] * 51}}
    assert numbers_of(many, [str(k) for k in range(51)]) == {"test/accuracy": 0.5}


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Read TensorBoard's files with its own reader."""
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert event.step not in found[name], f"{name} has step {event.step} twice"
            found[name][event.step] = event.value
    return dict(found)


def expected(run_folder: Path) -> dict[str, dict[int, float]]:
    run = read_run(run_folder)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in run.rows:
        for name, value in numbers_of(row, run.class_names).items():
            found[name][row["step"]] = float(np.float32(value))
    return dict(found)


def test_tensorboard_has_every_number_of_the_rows_and_weights_are_the_same(
    tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("tensorboard")
    options = ["train", "digits", *TINY, "--steps", "6"]
    assert main([*options, "--out", str(tmp_path / "tracked"), "--track", "tensorboard"]) == 0
    assert "tracker tensorboard: " in capsys.readouterr().err
    assert main([*options, "--out", str(tmp_path / "plain")]) == 0
    assert scalars(tmp_path / "tracked" / "tensorboard") == expected(tmp_path / "tracked")
    assert not (tmp_path / "plain" / "tensorboard").exists()
    name = "checkpoints/step-000000006.safetensors"
    tracked, plain = (load_file(tmp_path / run / name) for run in ("tracked", "plain"))
    assert tracked.keys() == plain.keys()
    assert all(np.array_equal(tracked[key], plain[key]) for key in tracked)


def test_a_resumed_run_goes_on_in_the_same_place(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    options = [*TINY, "--steps", "6", "--out", str(run)]
    assert main(["train", "digits", *options, "--track", "tensorboard"]) == 0
    assert used_before(run) == ("tensorboard",)
    cut_back(run, 4)
    assert main(["resume", str(run)]) == 0
    assert scalars(run / "tensorboard") == expected(run)
    assert max(scalars(run / "tensorboard")["test/accuracy"]) == 6


class Recorder:
    """A tracker that keeps what it gets, or fails, or hangs."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        self.state = {"id": state.get("id", 0) + 1, "from": step}
        self.place = "nowhere"
        self.written: list[tuple[int, dict[str, float]]] = []
        self.notes: list[tuple[int, str]] = []
        self.closed = False
        made.append(self)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self.written.append((step, numbers))

    def note(self, step: int, text: str) -> None:
        self.notes.append((step, text))

    def close(self) -> None:
        self.closed = True


made: list[Recorder] = []


class Failing(Recorder):
    def write(self, step: int, numbers: dict[str, float]) -> None:
        raise ConnectionError("no route\nto host")


class Refusing(Recorder):
    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        raise TimeoutError


class Interrupted(Recorder):
    def close(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    kinds: dict[str, Callable[..., Any]] = {
        "recorder": Recorder,
        "failing": Failing,
        "refusing": Refusing,
        "interrupted": Interrupted,
    }
    for name, kind in kinds.items():
        monkeypatch.setitem(track.TRACKERS, name, kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return begun_run(tmp_path)


def test_rows_and_warnings_arrive_in_order_and_the_state_is_kept(folder: Path) -> None:
    said: list[str] = []
    for start in (0, 2):
        tracking = Tracking(["recorder"], folder, said.append, start)
        for row in ROWS:
            tracking.write(row)
        tracking.write(
            {"event": "evaluate", "step": 3, "warnings": [{"message": "m", "advice": "a."}]}
        )
        tracking.close()
    first, second = made
    assert first.written == [(1, {"train/loss": 1.0}), (2, {"train/loss": 2.0}), (3, {})]
    assert (first.notes, first.closed) == ([(3, "m. a.")], True)
    assert second.state == {"id": 2, "from": 2}
    assert json.loads((folder / "trackers.json").read_text()) == {"recorder": {"id": 2, "from": 2}}
    assert said == ["tracker recorder: nowhere"] * 2


def test_a_tracker_that_fails_is_said_once_and_the_others_go_on(folder: Path) -> None:
    said: list[str] = []
    tracking = Tracking(["failing", "refusing", "recorder"], folder, said.append)
    for row in ROWS:
        tracking.write(row)
    tracking.close()
    failures = sorted(line for line in said if "failed" in line)
    assert len(failures) == 2
    assert failures[0].startswith("tracker failing failed and is dropped: no route to host")
    assert failures[1].startswith("tracker refusing failed and is dropped: TimeoutError")
    assert all(str(folder / "metrics.jsonl") in line for line in failures)
    recorder = next(tracker for tracker in made if type(tracker) is Recorder)
    assert len(recorder.written) == 2


def test_ctrl_c_ends_the_time_of_a_tracker_and_the_others_finish(folder: Path) -> None:
    said: list[str] = []
    tracking = Tracking(["interrupted", "recorder"], folder, said.append)
    tracking.write(ROWS[0])
    tracking.close()
    assert [tracker.closed for tracker in made] == [False, True]
    assert "interrupted failed" in said[-1]
    assert "Ctrl-C" in said[-1]
    tracking.close()
    assert len(said) == 3


def test_without_trackers_and_without_rows_nothing_happens(folder: Path) -> None:
    for kinds in ([], ["recorder"]):
        Tracking(kinds, folder, pytest.fail).close()
    assert not (folder / "trackers.json").exists()
    assert used_before(folder) == ()


def test_a_package_that_is_missing_is_an_error_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="'daso\\[track\\]'"):
        check_installed(["wandb"])
    assert (
        main(["train", "digits", *TINY, "--out", str(tmp_path / "run"), "--track", "mlflow"]) == 1
    )
    assert not (tmp_path / "run").exists()
