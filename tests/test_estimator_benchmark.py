"""The benchmark on vectors: what it fits on, measures on and chooses."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def benchmark(import_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return import_benchmark("embeddings")


def test_rows_that_are_measured_on_are_in_no_other_part(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    data = benchmark.read("digits", None, tmp_path)
    numbered = dataclasses.replace(  # a row's first feature is its number
        data,
        train=np.column_stack([np.arange(len(data.train)), data.train]),
        test=np.column_stack([-1 - np.arange(len(data.test)), data.test]),
    )
    for shape in ("consistent", "uniform", "reversed"):
        seen = {}
        for measured_on in ("development", "test"):
            parts = benchmark.split(numbered, benchmark.SETTINGS["digits"], shape, 100, measured_on)
            fitted, measured = parts.fit[:, 0], parts.measure[:, 0]
            assert not set(fitted.tolist()) & set(measured.tolist())
            assert len(set(fitted.tolist())) == len(fitted)
            assert (
                np.bincount(parts.fit_labels[parts.fit_labels >= 0]).tolist()
                == parts.counts.tolist()
            )
            seen[measured_on] = set(measured.tolist())
        assert not seen["development"] & seen["test"]


def test_the_best_candidate_on_the_development_splits_is_measured(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    grid = [{"C": c, "weight": "balanced"} for c in (1e-6, 0.1)]
    monkeypatch.setattr(
        benchmark, "candidates", lambda _: {"logistic, balanced": (benchmark.logistic, grid)}
    )
    results = tmp_path / "vectors.csv"
    options: dict[str, Any] = {
        "data": ("digits",),
        "shapes": ("uniform",),
        "methods": (),
        "results": results,
    }
    benchmark.run(benchmark.Embeddings(stage="develop", **options))
    for _ in range(2):  # what has its row is not computed again
        benchmark.run(benchmark.Embeddings(stage="test", seeds=(0, 1), **options))
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    developed = [row for row in rows if row["measured_on"] == "development"]
    assert len(developed) == 4
    tested = [row for row in rows if row["measured_on"] == "test"]
    assert [row["seed"] for row in tested] == ["0", "1"]
    means = {
        c: np.mean(
            [float(r["balanced_accuracy"]) for r in developed if json.loads(r["options"])["C"] == c]
        )
        for c in (1e-6, 0.1)
    }
    assert {json.loads(row["options"])["C"] for row in tested} == {
        max(means, key=lambda c: means[c])
    }
    recall = json.loads(tested[0]["recall"])
    assert float(tested[0]["balanced_accuracy"]) == pytest.approx(np.mean(recall), abs=0.02)
    capsys.readouterr()
    benchmark.table(
        benchmark.Embeddings(
            stage="table", **{**options, "methods": ("logistic, balanced",), "n_networks": 1}
        )
    )
    assert "| digits, uniform | logistic, balanced | 2 |" in capsys.readouterr().out


def test_rows_tell_how_many_networks_were_averaged(
    benchmark: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        benchmark,
        "candidates",
        lambda _: {"as it comes": (benchmark.self_training_as_it_comes, [{}])},
    )
    results = tmp_path / "vectors.csv"
    options: dict[str, Any] = {
        "data": ("digits",),
        "shapes": ("uniform",),
        "seeds": (0, 1),
        "results": results,
    }
    for networks in (1, 2):
        benchmark.run(benchmark.Embeddings(methods=("supervised",), n_networks=networks, **options))
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["options"] for row in rows if row["method"] == "supervised"] == ["{}", "{}"] + 2 * [
        '{"n_networks": 2}'
    ]
    assert len(rows) == 6  # what needs no choice is measured without a development stage, and once
    capsys.readouterr()
    benchmark.table(
        benchmark.Embeddings(stage="table", methods=("supervised",), n_networks=2, **options)
    )
    out = capsys.readouterr().out
    assert "| digits, uniform | supervised | 2 |" in out
    assert "| digits, uniform | supervised, 2 networks | 2 |" in out
