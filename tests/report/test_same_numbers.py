"""One number has one definition: in the terminal, the report and the files of a run."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_page import report
from rich.console import Console

from daso.cli.terminal.tables import summary_table
from daso.evaluate.metrics import calibration_error, class_groups
from daso.export.loading import load
from daso.report.runs import read_run
from daso.train.config import RunConfig
from daso.train.prepare import prepare


def test_the_calibration_is_that_of_what_daso_predict_answers(finished_run: Path) -> None:
    model = load(finished_run, "cpu")
    run = read_run(finished_run)
    answered = json.loads((finished_run / "calibration.json").read_text())["answered"]
    data = prepare(RunConfig.read(finished_run)).data.test
    assert data is not None
    probs = model.probabilities(data.images.numpy())
    error = calibration_error(np.asarray(probs, float), data.labels.numpy())
    assert answered["error"] == pytest.approx(error, abs=1e-5)
    assert error != pytest.approx(run.summary["last"]["calibration_error"], abs=1e-4)
    text = report(finished_run).text
    assert (
        f"of the model in use, daso predict {100 * error:.1f}" in text
    )  # beside a median, as trained
    assert "as daso predict answers" in text
    (finished_run / "calibration.json").unlink()
    assert "as daso predict answers" not in report(finished_run).text


def test_the_most_frequent_class_is_named_as_one_only_if_it_is_one(finished_run: Path) -> None:
    run = read_run(finished_run)
    many = len(run.groups["many"])
    mean = 100 * run.summary["median_of_last"]["recall_many"]
    assert many > 1
    assert f"{many} most frequent classes: {mean:.1f}" in report(finished_run).text


def test_thirds_of_the_classes_are_the_same_everywhere(finished_run: Path) -> None:
    run = read_run(finished_run)
    assert run.labeled_counts is not None
    assert run.groups == class_groups(run.labeled_counts)
    for classes in (1, 2, 3, 4, 5, 7):
        metrics = {"recall": [0.5] * classes}
        numbers = ("accuracy", "balanced_accuracy", "geometric_mean", "calibration_error")
        metrics |= dict.fromkeys((*numbers, "recall_many", "recall_medium", "recall_few"), 0.5)
        summary = {"evaluations": 1, "measured_on": "test", "last": metrics}
        console = Console(file=io.StringIO(), width=100)
        summary |= {"median_of_last": metrics}
        for labeled in (list(range(classes, 0, -1)), [5] * classes):
            console.file = io.StringIO()
            console.print(summary_table(summary, ("la",), [9] * classes, labeled))
            said = re.findall(r"\((\d) class", console.file.getvalue())
            sizes = [len(group) for group in class_groups(np.array(labeled)).values()]
            assert list(map(int, said)) == [size for size in sizes if size]


def test_the_interval_is_the_same_in_terminal_and_report(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(finished_run)
    console = Console(width=100)
    counts = (run.data[name] for name in ("test_counts", "labeled_counts"))
    console.print(summary_table(run.summary, run.balanced_by, *counts))
    (half,) = re.findall(r"± ([\d.]+) points", capsys.readouterr().out)
    assert f"± {half}" in report(finished_run).text
