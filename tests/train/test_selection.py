"""Which network is deployed, and early stopping, by the hold-out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from daso.data.source import Source
from daso.evaluate.predict import predict_logits
from daso.files import read_json
from daso.train.folder.best import exhausted, improves
from daso.train.model import load_model
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig


def rows_of(*scores: float, stage: int | None = None) -> list[dict[str, Any]]:
    extra = {} if stage is None else {"stage": stage}
    return [
        {"event": "evaluate", "step": n, "holdout": {"balanced_accuracy": score}, **extra}
        for n, score in enumerate(scores)
    ]


def test_of_equal_ones_the_later_is_the_best() -> None:
    rows = rows_of(0.3, 0.5, 0.5, 0.4)
    assert [improves(rows[:n], row, 0) for n, row in enumerate(rows)] == [True, True, True, False]
    assert not improves([], {"event": "evaluate", "step": 1}, 0)
    assert improves(rows_of(0.9, stage=0), rows_of(0.2, stage=1)[0], 1)


def test_patience_counts_evaluations_without_a_better_one() -> None:
    scores = rows_of(0.3, 0.5, 0.5, 0.4, 0.6)
    assert [exhausted(scores[:n], 0, 2) for n in range(6)] == [
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert not exhausted(scores, 0, None)


def made(tiny_config: MakeConfig, digits: Source, **train: Any) -> Prepared:
    return prepare(
        tiny_config(
            "supervised",
            steps=60,
            evaluate_every=5,
            learning_rate=0.5,
            ema_decay=0.0,
            schedule="constant",
            **train,
        ),
        digits,
    )


def test_the_best_network_on_the_hold_out_is_deployed(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    prepared = made(tiny_config, digits, deploy="best")
    rows = [row for row in train_run(prepared, tmp_path / "run") if row["event"] == "evaluate"]
    best = max(rows, key=lambda row: (row["holdout"]["balanced_accuracy"], row["step"]))
    assert best["step"] < 60, "choose a training whose last network is not its best"
    model = load_model(tmp_path / "run", torch.device("cpu"), pytest.fail)
    assert model.step == best["step"]
    test = prepared.data.test
    assert test is not None
    right = predict_logits(model.network, test.images).argmax(1) == test.labels
    assert float(right.double().mean()) == pytest.approx(best["test"]["accuracy"])
    summary = read_json(tmp_path / "run" / "summary.json")
    assert (summary["deployed_step"], summary["stopped_early"]) == (best["step"], False)
    assert read_json(tmp_path / "run" / "calibration.json")["step"] == best["step"]
    counts = torch.tensor(json.loads((tmp_path / "run" / "confusion.json").read_text())["counts"])
    assert int(counts.diagonal().sum()) == int(right.sum())
    kept = list((tmp_path / "run" / "checkpoints" / "best").glob("*.json"))
    assert 1 <= len(kept) <= 2


def test_patience_ends_a_run_and_a_resumed_one_ends_there_too(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    prepared = made(tiny_config, digits, deploy="best", patience=2)
    rows = [row for row in train_run(prepared, folder) if row["event"] == "evaluate"]
    scores = [row["holdout"]["balanced_accuracy"] for row in rows]
    assert len(scores) < 12
    assert max(scores[-2:]) <= max(scores[:-2])
    summary = read_json(folder / "summary.json")
    assert summary["stopped_early"]
    assert summary["deployed_step"] == 5 * (len(scores) - scores[::-1].index(max(scores)))

    # Killed before its summary, or between two evaluations, it ends at the same step with the same network.
    before = load_model(folder, torch.device("cpu"), pytest.fail).network.state_dict()
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    for newest_too in (False, True):
        (folder / "summary.json").unlink()
        if newest_too:
            for path in (folder / "checkpoints").glob(f"step-*{rows[-1]['step']}.*"):
                path.unlink()
        list(resume_run(folder)[1])
        again = read_json(folder / "summary.json")
        assert {k: v for k, v in again.items() if k != "seconds"} == {
            k: v for k, v in summary.items() if k != "seconds"
        }
        after = load_model(folder, torch.device("cpu"), pytest.fail).network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_a_hold_out_the_last_network_is_deployed(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = tiny_config("supervised", deploy="best", patience=1)
    config = dataclasses.replace(config, split=dataclasses.replace(config.split, holdout=0))
    list(train_run(prepare(config, digits), tmp_path / "run"))
    assert load_model(tmp_path / "run", torch.device("cpu"), pytest.fail).step == 20
    assert not (tmp_path / "run" / "checkpoints" / "best").exists()
