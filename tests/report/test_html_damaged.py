"""The report of run folders that are incomplete or damaged: what is there, and what is missing."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import ALL_SECTIONS, change_beliefs, report

from daso.cli import main
from daso.errors import RunError
from daso.report.html.overview import confusion_counts
from daso.report.html.page import write_report
from daso.report.html.run import load_run


def test_a_running_training(finished_run: Path) -> None:
    for name in ("summary.json", "confusion.json", "beliefs.safetensors"):
        (finished_run / name).unlink()
    lines = (finished_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (finished_run / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    page = report(finished_run)
    assert page.sections == ["overview", "classes", "pseudo_labels", "training", "about"]
    assert "cut off" in page.text
    assert f"daso report {finished_run} --refresh" in page.text
    assert "at most 2% of its time" in page.text
    assert re.search(r"up to step \d+ of 20", page.text)
    assert "the latest" in page.text


def test_a_running_training_shows_what_it_believed_when_it_last_wrote_it(
    finished_run: Path,
) -> None:
    counted = json.loads((finished_run / "confusion.json").read_text())["counts"]
    for name in ("summary.json", "confusion.json"):
        (finished_run / name).unlink()
    change_beliefs(finished_run, {"step": 15})
    page = report(finished_run)
    assert page.sections == ALL_SECTIONS
    assert "single images are those of step 15" in page.text
    for said in (
        "test images, at step 15. Rows:",
        "unlabeled images at step 15",
        "Agreement at step 15",
    ):
        assert said in page.text
    assert "at the end" not in page.text
    run = load_run(finished_run)
    assert run.measured_on == "test"
    counts = confusion_counts(run)
    assert counts is not None
    assert counts.tolist() == counted


def test_before_the_first_row(finished_run: Path) -> None:
    for name in ("summary.json", "confusion.json", "beliefs.safetensors", "metrics.jsonl"):
        (finished_run / name).unlink()
    page = report(finished_run)
    assert page.sections == ["overview", "classes", "about"]
    assert "Nothing has been measured yet" in page.text


def test_a_complete_run_without_beliefs_says_how_to_get_them(finished_run: Path) -> None:
    (finished_run / "beliefs.safetensors").unlink()
    page = report(finished_run)
    assert f"daso report {finished_run} --refresh" in page.text
    assert "at most 2% of its time" not in page.text
    assert "galleries" not in page.sections
    assert "confusion" in page.sections


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


FILES = (
    "config.json",
    "data.json",
    "environment.json",
    "summary.json",
    "confusion.json",
    "calibration.json",
)


DAMAGE = (
    b"",
    b"[]",
    b"{}",
    b'{"class_names": 3, "counts": 1}',
    b'{"a": ',
    b"\xff\xfe\x00",
    b"[" * 100_000,
)


@pytest.mark.parametrize("name", [*FILES, "metrics.jsonl", "beliefs.safetensors"])
def test_a_damaged_file_costs_what_depends_on_it(finished_run: Path, name: str) -> None:
    path = finished_run / name
    for content in (*DAMAGE, None):
        path.unlink() if content is None else path.write_bytes(content)
        page = report(finished_run)
        assert {"overview", "about"} <= set(page.sections), content
        readable = content in (b"{}", DAMAGE[3]) and name != "beliefs.safetensors"
        optional = ("confusion.json", "calibration.json")
        if not readable and not (content is None and name in optional):
            assert name in page.text[page.text.index("What is missing") :][:1500], content
        if name != "beliefs.safetensors" and name != "data.json":
            assert "galleries" in page.sections, content


def test_a_damaged_line_in_the_middle(finished_run: Path) -> None:
    path = finished_run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"event": "train"\n', b"null\n", *lines[2:]]))
    page = report(finished_run)
    assert f"2 of {len(lines) + 2} lines of metrics.jsonl are damaged (line 3, 4)" in page.text
    assert "training" in page.sections


def mutate(value: Any, chance: random.Random, rate: float) -> Any:
    """Return a JSON value of which some parts are replaced by something else."""
    if chance.random() < rate:
        return chance.choice([None, -1, 0, 1e30, "x", [], {}, [1, "a"], True, "1", {"a": []}])
    if isinstance(value, dict):
        return {
            key: mutate(item, chance, rate)
            for key, item in value.items()
            if chance.random() > rate / 2
        }
    if isinstance(value, list):
        return [mutate(item, chance, rate) for item in value if chance.random() > rate / 2]
    return value


def test_json_with_unexpected_contents(finished_run: Path) -> None:
    texts = {name: (finished_run / name).read_text() for name in (*FILES, "metrics.jsonl")}
    for seed in range(12):
        chance = random.Random(seed)
        for name, text in texts.items():
            lines = text.splitlines() if name == "metrics.jsonl" else [text]
            changed = (mutate(json.loads(line), chance, 0.02) for line in lines)
            (finished_run / name).write_text("".join(json.dumps(one) + "\n" for one in changed))
        assert "about" in report(finished_run).sections, seed


def test_beliefs_that_do_not_fit_each_other(finished_run: Path) -> None:
    cases: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
        ("pool.linear", lambda v: v * 0 + 99, "Images"),
        ("pool.linear", lambda v: v[:3], "Images"),
        ("disagreeing", lambda v: v + 10_000, "Images"),
        ("thumbnails.offsets", lambda v: v[:5], "Images"),
        ("next", lambda v: v - 10_000, "What to label next"),
        ("map.place", lambda v: v[:7], "Map"),
        ("map.label", lambda v: v * 0 - 5, "Map"),
        ("test.confidence", lambda v: v * np.float16("nan"), "Calibration"),
        ("test.answer", lambda v: v[:7], "Calibration"),
    ]
    intact = load_run(finished_run).arrays
    for name, change, section in cases:
        change_beliefs(finished_run, {}, **{name: change(intact[name])})
        page = report(finished_run)
        assert f"The section '{section}' is left out" in page.text, name
        assert {"overview", "classes", "confusion", "about"} <= set(page.sections), name
        change_beliefs(finished_run, {}, **{name: intact[name]})


def test_beliefs_of_another_version(finished_run: Path) -> None:
    change_beliefs(finished_run, {"version": 99})
    assert "this version of daso" in report(finished_run).text
