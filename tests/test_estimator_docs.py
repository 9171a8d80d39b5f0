"""The example of docs/estimator.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parent.parent / "docs" / "estimator.md"


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert float(capsys.readouterr().out.split()[0]) > 0.8
    model, labels = names["model"], names["labels"]
    assert model.class_counts_.tolist() == [20 - 2 * k for k in range(10)]
    truth = names["y"][names["train"]][labels < 0]
    assert np.mean(model.pseudo_labels_ == truth) > 0.8


def test_the_arguments_and_defaults_that_it_names_are_there() -> None:
    import inspect

    from daso import DASOClassifier

    arguments = inspect.signature(DASOClassifier).parameters
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= arguments.keys()
    assert arguments["labeled_sampling"].default == "class-balanced"
