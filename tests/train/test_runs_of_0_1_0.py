"""A run folder that daso 0.1.0 wrote, stopped after step 4 of 8, stays of use.

It was made at commit bf4af7c by

    daso train digits --labeled-head 8 --gamma-labeled 4 --unlabeled-head 10 --unlabeled-shape uniform \
        --holdout 0 --steps 8 --batch 8 --evaluate-every 4 --device cpu --network small-4 \
        --method fixmatch+la+daso --queue-length 4 --warmup-steps 2 --seed 1

and what followed step 4 was removed.
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from daso.cli import main
from daso.files import read_json, read_rows
from daso.train.model import load_model

ARCHIVE = Path(__file__).parents[1] / "reference" / "run-0.1.0.zip"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    zipfile.ZipFile(ARCHIVE).extractall(folder)
    return folder


def test_it_is_resumed_evaluated_and_reported(run: Path) -> None:
    for command in (["resume", str(run), "--quiet"], ["evaluate", str(run)], ["report", str(run)]):
        assert main(command) == 0, command
    assert read_rows(run / "metrics.jsonl")[-1]["step"] == 8
    assert read_json(run / "summary.json")["steps"] == 8
    assert "balanced accuracy" in (run / "report.html").read_text().lower()
    model = load_model(run, torch.device("cpu"), pytest.fail)
    assert model.step == 8
    assert all(bool(t.isfinite().all()) for t in model.network.state_dict().values())


def test_its_model_predicts(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 120, np.uint8)).save(tmp_path / "image.png")
    out = tmp_path / "out.csv"
    assert main(["predict", str(run), str(tmp_path / "image.png"), "--out", str(out)]) == 0
    [row] = csv.DictReader(out.open())
    assert row["class"] in read_json(run / "data.json")["class_names"]


def test_it_is_repeated(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--like", str(run), "--steps", "2", "--out", str(again), "--quiet"]) == 0
    old, new = read_json(run / "config.json"), read_json(again / "config.json")
    assert new["train"]["steps"] == 2
    for name in ("method", "method_options", "split"):
        assert new[name] == old[name]
