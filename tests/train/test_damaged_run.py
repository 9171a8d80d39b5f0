"""A fault in each file of a run folder ends in resumption, a clear refusal or a warning."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from run_files import comparable, rewind
from safetensors.numpy import load_file

from daso.cli import main
from daso.data.source import Source
from daso.files import read_json

pytestmark = pytest.mark.slow
FLIPS = int(os.environ.get("DASO_FLIPS", "1"))
"""Flipped bits of each file, one at a time. More: DASO_FLIPS=30 pytest -s FILE"""
NOT_READ = ("plots", ".lock", "report.html", "images")
Fault = Callable[[bytes], bytes | None]
Outcome = tuple[int, str, str]


def flip(place: float) -> Fault:
    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(place * len(changed))] ^= 1  # a digit becomes another digit
        return bytes(changed)

    return change


def faults(seed: str) -> Iterator[tuple[str, Fault]]:
    draw = random.Random(seed)
    yield "missing", lambda content: None
    yield "empty", lambda content: b""
    yield "truncated", lambda content: content[: len(content) // 2]
    for _ in range(FLIPS):
        place = draw.random()
        yield f"bit at {place:.3f}", flip(place)


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


def test_predict(
    finished_run: Path, tmp_path: Path, digits: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert digits.test is not None
    np.save(tmp_path / "some.npy", digits.test.images[:20])
    words = ("predict", finished_run, tmp_path / "some.npy", "--probabilities", "--device", "cpu")
    expected = run_verb(capsys, *words)
    assert expected[0] == 0
    counts = {"same answers": 0, "refused": 0, "warned": 0}
    for file, name in each_fault(finished_run):
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
    for file, name in each_fault(finished_run):
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
    for file, name in each_fault(stopped):
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
            lost = file.name == "metrics.jsonl" or file.parts[0] == "checkpoints"
            if file.name == "metrics.jsonl":
                assert is_told(outcome, file), (file, name)
            if not lost:
                assert comparable(trial) == rows, (file, name)
                assert {**read_json(trial / "summary.json"), "seconds": 0} == summary
            counts["the same end"] += 1
        shutil.rmtree(trial)
    print("resume:", counts)
    assert all(counts.values())


def each_fault(run: Path) -> Iterator[tuple[Path, str]]:
    """Damage one file after the other, in each way, and restore it."""
    for file in files_of(run):
        content = (run / file).read_bytes()
        for name, fault in faults(str(file)):
            changed = fault(content)
            if changed is None:
                (run / file).unlink()
            else:
                (run / file).write_bytes(changed)
            yield file, name
        (run / file).write_bytes(content)
