"""The demonstration, end to end on a few steps."""

import csv
import multiprocessing
from importlib.util import find_spec
from pathlib import Path

import pytest
from forked import PROCESSES, demonstrate

from daso.cli import main
from daso.cli.verbs import demo


def test_what_cannot_be_run_is_refused_before_anything_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("--steps 0", "--jobs 0", "--jobs -2", "--seeds", "--seeds -1", "--seeds 3 0 3"):
        assert main(["demo", "--out", str(tmp_path / "demo"), *line.split()]) == 2
        assert line.split()[0] in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_demonstration_compares_its_methods_seed_by_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The demonstration of the wheel starts its processes anew, and draws the pictures of its runs.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: PROCESSES)
    monkeypatch.setattr(demo, "_one_run", demonstrate)
    folder = tmp_path / "demo"
    track = ["--track", "tensorboard"] if find_spec("tensorboard") else []
    short = ["--seeds", "0", "3", "--steps", "12", "--jobs", "2"]
    assert main(["demo", "--out", str(folder), *short, *track]) == 0
    printed = capsys.readouterr()
    assert "gain over" in printed.out
    assert "[8/8]" in printed.err
    assert (folder / "comparison.png").stat().st_size > 10_000
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["seed"]) for row in rows} == {
        (method, seed)
        for method in ("supervised", "supervised+la", "fixmatch+daso", "supervised+la+mixture")
        for seed in ("0", "3")
    }
    splits = {row["seed"]: row["split"] for row in rows}
    assert all(row["split"] == splits[row["seed"]] for row in rows)
    assert splits["0"] != splits["3"]
    written = sorted(path.parent.parent.name for path in folder.glob("*/tensorboard/events*"))
    assert written == (sorted(f"{row['method']}-{row['seed']}" for row in rows) if track else [])
    assert main(["demo", "--out", str(folder)]) == 1
