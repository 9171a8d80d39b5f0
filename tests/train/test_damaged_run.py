"""A fault in each file of a run folder ends in resumption, a clear refusal or a warning."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from damage import faults, with_fault
from run_files import comparable, rewind
from safetensors.numpy import load_file

from daso.cli import main
from daso.data.source import Source
from daso.errors import RunError
from daso.files import read_json, save_sealed

pytestmark = pytest.mark.slow
FLIPS = int(os.environ.get("DASO_FLIPS", "0"))
"""Further flipped bits of each file, one at a time. More: DASO_FLIPS=30 pytest -s FILE"""
FEW = () if FLIPS else ("missing", "half", "bit at 0.500", "bit at 1.000")
"""For what takes long."""
NOT_READ = ("plots", ".lock", "report.html", "images")
Outcome = tuple[int, str, str]


def files_of(run: Path) -> list[Path]:
    paths = (path.relative_to(run) for path in run.rglob("*") if path.is_file())
    return sorted(path for path in paths if path.parts[0] not in NOT_READ)


def run_verb(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    capsys.readouterr()
    status = main([*map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def is_told(outcome: Outcome, file: Path) -> bool:
    """Whether an error, or a warning, names what is damaged."""
    names = {str(file), file.name, file.stem, "checkpoint"}
    return "Traceback" not in outcome[2] and any(name in outcome[2] for name in names)


def test_every_flipped_bit_of_a_sealed_file_is_told_or_changes_nothing(tmp_path: Path) -> None:
    file, values = tmp_path / "data.json", {"a": [1, None], "b": "x", "c": {"d": 0.5}}
    save_sealed(file, values)
    whole = file.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert read_json(file) == values, damaged
        except RunError:
            refused += 1
    assert refused > 4 * len(whole)


def test_predict(
    finished_run: Path, tmp_path: Path, digits: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert digits.test is not None
    np.save(tmp_path / "some.npy", digits.test.images[:20])
    words = ("predict", finished_run, tmp_path / "some.npy", "--probabilities", "--device", "cpu")
    expected = run_verb(capsys, *words)
    assert expected[0] == 0
    counts = {"same answers": 0, "refused": 0, "warned": 0}
    unread = ("beliefs.safetensors", "confusion.json", "metrics.jsonl", "summary.json")
    read = [file for file in files_of(finished_run) if file.name not in unread]
    for file, name in each_fault(finished_run, read):
        outcome = run_verb(capsys, *words)
        kind = "refused" if outcome[0] else "warned" if outcome[2] != expected[2] else ""
        kind = kind or "same answers"
        assert kind != "same answers" or outcome[1] == expected[1], (file, name, outcome)
        assert kind == "same answers" or is_told(outcome, file), (file, name, outcome)
        counts[kind] += 1
    print("predict:", counts)
    assert all(counts.values())


def test_report(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def page() -> str:
        text = (finished_run / "report.html").read_text()
        return re.sub(r"\d\d:\d\d|\d{4}-\d\d-\d\d", "", text)

    assert run_verb(capsys, "report", finished_run)[0] == 0
    expected = page()
    counts = {"same page": 0, "refused": 0, "told in the page": 0}
    read = [file for file in files_of(finished_run) if "checkpoints" not in file.parts]
    for file, name in each_fault(finished_run, read):
        outcome = run_verb(capsys, "report", finished_run)
        if outcome[0]:
            assert is_told(outcome, file), (file, name, outcome)
            counts["refused"] += 1
            continue
        same = page() == expected
        gone = file.name in ("calibration.json", "confusion.json") and name == "missing"
        assert same or gone or file.name in page(), (file, name)
        counts["same page" if same else "told in the page"] += 1
    print("report:", counts)
    assert counts["told in the page"]


def test_compare(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(finished_run, tmp_path / "other")
    words = ("compare", finished_run, other, "--out", tmp_path / "table")
    expected = run_verb(capsys, *words)
    assert expected[0] == 0
    counts = {"same table": 0, "left out": 0}
    read = ["config.json", "data.json", "environment.json", "metrics.jsonl", "summary.json"]
    for file, name in each_fault(finished_run, map(Path, read), FEW):
        outcome = run_verb(capsys, *words)
        assert outcome[0] == 0, (file, name, outcome)
        same = outcome[1] == expected[1]
        # A run without a summary is one that goes on.
        told = is_told(outcome, file) or "is not complete" in outcome[2]
        assert same or told, (file, name, outcome)
        counts["same table" if same else "left out"] += 1
    print("compare:", counts)
    assert all(counts.values())


def test_resume(
    finished_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(finished_run, stopped)
    rewind(stopped)
    last = max((finished_run / "checkpoints").glob("*.safetensors"))
    tensors, rows = load_file(last), comparable(finished_run)
    summary = {**read_json(finished_run / "summary.json"), "seconds": 0}
    counts = {"the same end": 0, "refused": 0}
    for file, name in each_fault(stopped, files_of(stopped), FEW):
        trial = tmp_path / "trial"
        shutil.copytree(stopped, trial)
        outcome = run_verb(capsys, "resume", trial, "--quiet")
        if outcome[0]:
            assert is_told(outcome, file), (file, name, outcome)
            counts["refused"] += 1
        else:
            found = load_file(trial / last.relative_to(finished_run))
            assert found.keys() == tensors.keys(), (file, name)
            for key, value in tensors.items():
                assert found[key].tobytes() == value.tobytes(), (file, name, key)
            if comparable(trial) != rows:
                assert file.name == "metrics.jsonl" or file.parts[0] == "checkpoints", (file, name)
                assert is_told(outcome, file), (file, name)
            else:
                assert {**read_json(trial / "summary.json"), "seconds": 0} == summary
            counts["the same end"] += 1
        shutil.rmtree(trial)
    print("resume:", counts)
    assert all(counts.values())


def each_fault(
    run: Path, files: Iterable[Path], wanted: Sequence[str] = ()
) -> Iterator[tuple[Path, str]]:
    """Damage one file after the other, in each way or in those wanted, and restore it."""
    for file in files:
        for name, fault in faults(str(file), FLIPS):
            if not wanted or name in wanted:
                with with_fault(run / file, fault):
                    yield file, name
