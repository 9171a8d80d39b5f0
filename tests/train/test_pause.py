"""A training that is saved between two rows, loaded elsewhere and gone on with gives the same rows and weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import without_times
from safetensors.torch import load_file
from torch import Tensor

from daso.data.source import Source
from daso.files import read_json, read_rows
from daso.train.config import RunConfig
from daso.train.loop import fit
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]
OPTIONS: dict[str, dict[str, Any]] = {
    "fixmatch+daso": {"threshold": 0.2, "warmup_steps": 4, "histogram_period": 4},
    "remixmatch+darp": {"darp_start": 0.2, "darp_period": 3},
    "fixmatch+abc": {"threshold": 0.2},
    "fixmatch+crest": {"threshold": 0.2, "generations": 2},
}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


class After:
    """Is true from the n-th question on, as a signal that came."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked >= self.count


@pytest.mark.parametrize("method", ["fixmatch+daso", "remixmatch+darp", "fixmatch+abc"])
def test_a_training_moved_after_every_third_step(
    tiny_config: MakeConfig, digits: Source, method: str
) -> None:
    # Rows after 4, 7, 8, 12, 14, 16, 20; moves after 3, 6, 9, ...: between rows, and at them.
    config = tiny_config(method, method_options=OPTIONS[method], evaluate_every=7, log_every=4)
    undisturbed, moved = prepare(config, digits), prepare(config, digits)
    expected = [
        without_times(row)
        for row in fit(undisturbed.training, undisturbed.batches, undisturbed.data)
    ]
    rows: list[str] = []
    moves = 0
    while moved.training.step < 20:
        for row in fit(moved.training, moved.batches, moved.data, After(3)):
            if row["event"] != "pause":
                rows.append(without_times(row))
            if row["event"] == "pause" or (
                row["event"] == "evaluate" and moved.training.step % 3 == 0
            ):
                break
        saved = {name: value.clone() for name, value in moved.training.tensors().items()}
        step = moved.training.step
        moved, moves = prepare(config, digits), moves + 1
        moved.training.load(saved, step, 0.0)
    assert moves == 7
    assert rows == expected
    assert same(moved.training.tensors(), undisturbed.training.tensors())


def test_pauses_change_no_row_and_no_weight(tiny_config: MakeConfig, digits: Source) -> None:
    config = tiny_config(method_options=OPTIONS["fixmatch+daso"], log_every=4)
    undisturbed, paused = prepare(config, digits), prepare(config, digits)
    expected = [
        without_times(row)
        for row in fit(undisturbed.training, undisturbed.batches, undisturbed.data)
    ]
    rows = list(fit(paused.training, paused.batches, paused.data, lambda: True))
    assert [row["step"] for row in rows if row["event"] == "pause"] == [
        step for step in range(1, 21) if step % 5
    ]
    assert [without_times(row) for row in rows if row["event"] != "pause"] == expected
    assert same(paused.training.tensors(), undisturbed.training.tensors())


@pytest.mark.parametrize("method", ["fixmatch+daso", "fixmatch+crest"])
def test_a_run_that_stops_after_every_second_step(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, method: str
) -> None:
    config = tiny_config(method, method_options=OPTIONS[method], steps=11, log_every=4)
    folders = {name: tmp_path / name for name in ("undisturbed", "stopped")}
    list(train_run(prepare(config, digits), folders["undisturbed"]))
    folder = folders["stopped"]
    list(train_run(prepare(config, digits), folder, After(2)))
    lives: list[int] = []
    for _ in range(11):
        assert not (folder / "summary.json").exists()
        prepared, rows = resume_run(folder, stop=After(2))
        before = prepared.step
        list(rows)
        steps = [read_json(path)["step"] for path in (folder / "checkpoints").glob("*.json")]
        assert before < max(steps) <= before + 2
        lives.append(before)
        if (folder / "summary.json").exists():
            break
    lines = [
        [without_times(r) for r in read_rows(path / "metrics.jsonl")] for path in folders.values()
    ]
    assert lines[0] == lines[1]
    first, second = (
        load_file(path / "checkpoints" / "step-000000011.safetensors") for path in folders.values()
    )
    assert same(first, second)
    resumed = json.loads((folder / "environment.json").read_bytes())["resumed"]
    assert [life["from_step"] for life in resumed] == lives
    assert len(lives) >= 5


def test_a_checkpoint_at_an_evaluation_holds_no_record(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    list(train_run(prepare(tiny_config(steps=5), digits), tmp_path / "run"))
    [path] = (tmp_path / "run" / "checkpoints").glob("*.safetensors")
    assert not any(name.startswith("record.") for name in load_file(path))


def test_checkpoints_by_time(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))  # a second for every look at the clock
    monkeypatch.setattr("daso.train.run.time.monotonic", lambda: float(next(clock)))
    config = tiny_config("supervised", steps=20, evaluate_every=20, save_minutes=4 / 60)
    saved: list[int] = []

    def watched() -> Iterator[Row]:
        for row in train_run(prepare(config, digits), tmp_path / "run"):
            saved.extend(
                int(path.stem[5:]) for path in (tmp_path / "run" / "checkpoints").glob("*.json")
            )
            yield row

    rows = list(watched())
    assert [(row["event"], row["step"]) for row in rows] == [("train", 20), ("evaluate", 20)]
    assert sorted(set(saved)) == [12, 16, 20]  # every fourth step; the last two are kept
    names = {path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert names == {"step-000000016", "step-000000020"}
