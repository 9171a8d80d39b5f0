"""The live view fits terminals of any size, and says what the rows say."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest
from rich.cells import cell_len

from daso.cli.terminal.live_view import View, bar, columns
from daso.report.wording import duration

Row = dict[str, Any]


def rows_of(classes: int) -> list[Row]:
    """Return a training row and an evaluation of a run with so many classes."""
    draw = random.Random(classes)
    shares = [draw.random() for _ in range(classes)]
    distribution = [share / sum(shares) for share in shares]
    part = {"distribution": distribution, "truth": distribution[::-1]}
    confident = {"distribution": [0.0] + [1 / (classes - 1)] * (classes - 1)}
    recall: list[float | None] = [draw.random() for _ in range(classes)]
    recall[-1] = None
    losses = {"labeled": 0.25, "unlabeled": 0.5, "align": 0.125}
    train = {"event": "train", "step": 100, "loss": 0.875, "losses": losses, "share_confident": 0.3}
    return [
        {**train, "steps_per_second": 10.0, "seconds": 10.0},
        {
            "event": "evaluate",
            "step": 100,
            "seconds": 11.0,
            "holdout": {"balanced_accuracy": 0.5, "recall": recall},
            "pseudo_labels": {"share_confident": 0.3, "final": part, "confident": confident},
        },
    ]


def view_of(classes: int, seen: int = 2, **more: Any) -> View:
    names = [f"Klasse {k} 猫" * (1 + k % 3) for k in range(classes)]
    labeled = [max(1, 500 - 7 * k) for k in range(classes)]
    view = View("fixmatch+daso on photos", 400, class_names=names, labeled=labeled, **more)
    for row in rows_of(classes)[:seen]:
        view.see(row)
    return view


def test_it_fits_any_terminal() -> None:
    for classes, plain, seen in product((2, 10, 200), (False, True), (0, 1, 2)):
        view = view_of(classes, seen, plain=plain, stages=3)
        for width in (1, 10, 30, 40, 60, 79, 80, 120, 250):
            for height in (1, 2, 5, 9, 14, 23, 50, 300):
                lines = view.lines(width, height)
                assert 0 < len(lines) <= height
                for line in lines:
                    assert "\n" not in line.plain
                    assert cell_len(line.plain) <= width, (width, height, line.plain)
                    if plain:
                        assert line.plain.replace("猫", "").isascii()


def text_of(view: View, width: int = 100, height: int = 40) -> str:
    return "\n".join(line.plain for line in view.lines(width, height))


def test_what_it_says() -> None:
    text = text_of(view_of(10, stages=3))
    for part in (
        "fixmatch+daso on photos",
        "stage 1 of 3",
        "100/400",
        "10.0 steps/s",
        "30 s left",
        "loss 0.875  labeled 0.250  unlabeled 0.500  align 0.125",
        "over threshold 30%",
        "balanced accuracy 50.0% on held-out images",
        "hidden from the training",
    ):
        assert part in text


def test_the_worst_classes_are_those_of_lowest_recall_that_were_measured() -> None:
    view = view_of(10)
    recall = rows_of(10)[1]["holdout"]["recall"]
    lowest = sorted((value, k) for k, value in enumerate(recall[:-1]))[:3]
    assert view.worst() == [(view.class_names[k], value) for value, k in lowest]
    assert view_of(10, seen=1).worst() == []


def test_a_line_for_each_class_with_the_numbers_of_the_rows() -> None:
    view = view_of(10)
    evaluation = rows_of(10)[1]
    final = evaluation["pseudo_labels"]["final"]
    lines = [line.plain for line in view.lines(140, 40) if line.plain.startswith("Klasse")]
    assert len(lines) == 10
    for k, line in enumerate(lines):
        values = [word for word in line.split() if word.endswith("%")]
        assert values[0] == f"{view.labeled[k] / sum(view.labeled):.1%}"
        assert values[1] == f"{final['distribution'][k]:.1%}"
        assert values[2] == f"{final['truth'][k]:.1%}"
        sure = 0 if k == 0 else 0.3 / 9 / final["distribution"][k]
        assert values[3] == f"{sure:.1%}"
    assert lines[-1].rstrip().endswith("-")  # no image of it was measured


def test_without_truth_and_without_a_measure_there_are_no_such_columns() -> None:
    view = view_of(10)
    del view.evaluation["holdout"], view.evaluation["pseudo_labels"]["final"]["truth"]
    text = text_of(view)
    assert "truth" not in text
    assert "recall" not in text
    assert "pseudo-labels" in text


def test_many_classes_or_few_lines_give_columns() -> None:
    for view, height in ((view_of(200), 40), (view_of(10), 12)):
        text = text_of(view, 80, height)
        assert "height: square root" in text
        assert not any(line.startswith("Klasse") for line in text.splitlines())
    assert "4 per column" in text_of(view_of(200), 80)


def test_a_best_step_is_kept() -> None:
    view = view_of(10)
    worse = {
        "event": "evaluate",
        "step": 200,
        "seconds": 22.0,
        "holdout": {"balanced_accuracy": 0.4, "recall": [0.4] * 10},
    }
    view.see(worse)
    assert view.best == (0.5, 100)
    assert "40.0% on held-out images, best 50.0% at 100" in text_of(view)


def test_time_left_counts_evaluations_in() -> None:
    view = View("run", 1000)
    for step in (100, 200, 300):
        view.see(
            {
                "event": "train",
                "step": step,
                "loss": 1.0,
                "steps_per_second": 50.0,
                "seconds": step / 10,
            }
        )
    # 10 steps a second with evaluations, 50 without.
    assert view.seconds_left() == pytest.approx(70)
    assert duration(view.seconds_left()) == "70 s"


def test_durations() -> None:
    texts = {0.4: "0 s", 89: "89 s", 300: "5 min", 7300: "2.0 h", float("inf"): "?"}
    assert {seconds: duration(seconds) for seconds in texts} == texts


def test_bars_grow_by_eighths() -> None:
    assert bar(0.5, 4, False) == "██"
    assert bar(1 / 32, 4, False) == "▏"
    assert (bar(0.0, 4, False), bar(2.0, 4, False), bar(0.5, 4, True)) == ("", "████", "##")
    lengths = [
        sum(8 if c == "█" else " ▏▎▍▌▋▊▉".index(c) for c in bar(n / 100, 9, False))
        for n in range(101)
    ]
    assert lengths == sorted(lengths)


def test_columns_show_roots_and_means_of_neighbors() -> None:
    assert columns([1.0, 0.25, 1e-9, 0.0], 1.0, 10, False) == "█▄▁ "
    assert columns([1.0, 0.0, 0.25, 0.25], 1.0, 2, False) == "▆▄"
    assert len(columns([0.1] * 200, 0.1, 64, False)) == 50
