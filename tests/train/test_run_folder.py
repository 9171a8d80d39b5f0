"""A run folder: what it holds, who may write to it, and what happens where it cannot be written."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_files import comparable, contents

from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.errors import OptionError, RunError
from daso.files import plain, read_json, to_line
from daso.train import run as runs
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]


def test_what_a_run_folder_holds(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()} - {".lock"}
    assert names == {
        "beliefs.safetensors",
        "calibration.json",
        "checkpoints",
        "config.json",
        "confusion.json",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
    }
    summary = read_json(finished_run / "summary.json")
    assert summary["steps"] == 20
    assert summary["method"] == "fixmatch+daso"
    assert summary["seconds"] > 0
    assert len(summary["per_class_recall"]) == 10
    for answer in ("median_of_last", "last", "best_on_holdout"):
        assert 0 <= summary[answer]["balanced_accuracy"] <= 1
        assert len(summary[answer]["recall"]) == 10
    assert summary["accuracy"] == summary["median_of_last"]["accuracy"]
    assert summary["balanced_accuracy"] == summary["median_of_last"]["balanced_accuracy"]
    confusion = read_json(finished_run / "confusion.json")
    counts = np.array(confusion["counts"])
    assert (confusion["measured_on"], len(confusion["class_names"])) == ("test", 10)
    np.testing.assert_allclose(np.diag(counts) / counts.sum(1), summary["last"]["recall"])
    data = read_json(finished_run / "data.json")
    assert data["labeled_counts"] == [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]
    assert sum(data["unlabeled_counts"]) == data["unlabeled"]
    assert data["image_shape"] == [1, 8, 8]
    assert (data["holdout"], data["test"]) == (50, 445)
    assert summary["split_fingerprint"] == data["split_fingerprint"]
    environment = read_json(finished_run / "environment.json")
    assert environment["device"] == "cpu"
    assert {"command", "daso", "python", "torch", "hardware", "threads"} <= environment.keys()


def test_a_configuration_is_fully_resolved_and_comes_back(finished_run: Path) -> None:
    config = read_json(finished_run / "config.json")
    assert config["train"]["learning_rate"] == 0.03
    assert config["train"]["schedule"] == "constant"
    assert config["train"]["network"] == "small-4"
    assert config["method_options"]["warmup_steps"] == 4
    assert config["method_options"]["queue_length"] == 256
    again = RunConfig.from_dict(config, "config.json")
    assert json.loads(json.dumps(again.to_dict())) == config
    assert prepare(again).config == again


def test_json_files_hold_no_nan(finished_run: Path) -> None:
    files = [*finished_run.rglob("*.json")]
    assert len(files) >= 6
    for path in files:
        json.loads(path.read_text(), parse_constant=pytest.fail)
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 8
    # A class that the young network never guesses has no precision.
    assert "null" in lines[1]
    for line in lines:
        json.loads(line, parse_constant=pytest.fail)


def test_plain_values() -> None:
    row = {
        "a": math.nan,
        "b": [1, (math.inf, -math.inf)],
        "c": {"d": math.nan, "e": "NaN", "f": True},
    }
    assert plain(row) == {
        "a": None,
        "b": [1, [None, None]],
        "c": {"d": None, "e": "NaN", "f": True},
    }
    assert json.loads(to_line(row))["b"] == [1, [None, None]]


def test_a_folder_that_is_not_empty_is_refused_untouched(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    prepared = prepare(tiny_config(), digits)
    with pytest.raises(RunError, match="not empty"):
        next(train_run(prepared, folder))
    assert contents(folder) == {"thesis.txt": b"mine"}
    assert sorted(path.name for path in folder.iterdir()) == ["thesis.txt"]
    assert prepared.training.step == 0


def test_a_complete_run_is_not_overwritten(
    tiny_config: MakeConfig, digits: Source, finished_run: Path
) -> None:
    before = contents(finished_run)
    with pytest.raises(RunError, match="daso resume"):
        next(train_run(prepare(tiny_config(), digits), finished_run))
    assert contents(finished_run) == before


def test_an_empty_folder_is_used_and_parents_are_made(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        list(train_run(prepare(tiny_config("supervised", steps=2), digits), folder))
        assert (folder / "summary.json").exists()


def test_a_folder_that_cannot_be_made_is_a_run_error(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError):
            next(train_run(prepare(tiny_config("supervised", steps=2), digits), folder))
    assert (tmp_path / "file").read_text() == ""


def test_a_second_process_is_refused(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    rows = train_run(prepare(tiny_config("supervised"), digits), folder)
    while next(rows)["event"] != "evaluate":
        pass
    before = contents(folder)
    with pytest.raises(RunError, match=rf"another process \({os.getpid()} on .*\) is training in"):
        list(resume_run(folder)[1])
    with pytest.raises(RunError, match="not empty"):
        list(train_run(prepare(tiny_config("supervised"), digits), folder))
    assert contents(folder) == before
    list(rows)
    assert list(resume_run(folder)[1]) == []


def test_of_two_processes_that_start_at_once_one_is_refused_before_it_writes(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    describe = runs.describe_environment
    training: list[Any] = []

    def other_starts_meanwhile(device: Any, method: str) -> dict[str, Any]:
        monkeypatch.setattr(runs, "describe_environment", describe)
        other = train_run(prepare(tiny_config("supervised", seed=7), digits), folder)
        try:
            next(other)
            training.append(other)
        except RunError:
            pass
        return describe(device, method)

    monkeypatch.setattr(runs, "describe_environment", other_starts_meanwhile)
    first = train_run(prepare(tiny_config("supervised", seed=1), digits), folder)
    try:
        next(first)
        seeds = [1]
    except RunError:
        seeds = []
    seeds += [7] * len(training)
    assert len(seeds) == 1
    assert read_json(folder / "config.json")["train"]["seed"] == seeds[0]


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_in_the_middle_costs_nothing_that_was_saved(
    tiny_config: MakeConfig,
    digits: Source,
    finished_supervised_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    rows = train_run(prepare(tiny_config("supervised"), digits), folder)
    while next(rows).get("step") != 15:
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            list(rows)
    assert not list(folder.rglob("*.tmp"))
    list(resume_run(folder, pytest.fail)[1])
    assert comparable(folder) == comparable(finished_supervised_run)


def test_a_record_that_cannot_be_written_is_a_run_error(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = train_run(prepare(tiny_config("supervised"), digits), tmp_path / "run")
    next(rows)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunError, match="No space left"):
        list(rows)


def test_a_lock_that_cannot_be_made_is_a_run_error(finished_run: Path) -> None:
    (finished_run / ".lock").unlink(missing_ok=True)
    (finished_run / ".lock").mkdir()
    with pytest.raises(RunError, match="lock"):
        list(resume_run(finished_run)[1])


def test_a_run_with_nothing_to_measure_on_is_summarized(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = tiny_config("supervised", split=SplitOptions(holdout=0), steps=4)
    list(train_run(prepare(config, dataclasses.replace(digits, test=None)), tmp_path / "run"))
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["steps"] == 4
    assert "accuracy" not in summary
    assert not (tmp_path / "run" / "confusion.json").exists()


def test_preparing_names_what_is_wrong_before_anything_is_written(
    tiny_config: MakeConfig, digits: Source
) -> None:
    with pytest.raises(OptionError, match="unknown device"):
        tiny_config(device="gpu0")
    for config, message in (
        (tiny_config("fixmach"), "fixmatch"),
        (tiny_config("fixmatch+dazo"), "daso"),
        (tiny_config("supervised+daso"), "makes no guesses"),
        (tiny_config(network="smal"), "small"),
        (tiny_config(method_options={"dist_temprature": 1}), "dist_temperature"),
        (tiny_config(method_options={"dist_temperature": 0}), "dist_temperature"),
        (tiny_config(split=SplitOptions()), "unlabeled images"),
    ):
        with pytest.raises(OptionError, match=message):
            prepare(config, digits)
