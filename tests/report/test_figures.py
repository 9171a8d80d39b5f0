"""The figures of the paper, from run folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from daso.errors import RunError
from daso.report.figures.paper import (
    confusion_shares,
    draw_figures,
    plot_confusion,
    plot_pseudo_labels,
    pseudo_label_quality,
)
from daso.report.runs import RunFolder, read_run

pytestmark = pytest.mark.usefixtures("without_warnings")


def measured(run: RunFolder, recalls: list[list[float | None]], quoted: int = 2) -> RunFolder:
    """Return a run of three classes with these recalls of pseudo-labels in its evaluations."""
    rows = [
        {
            "event": "evaluate",
            "step": step,
            "pseudo_labels": {"final": {"recall": r, "precision": r}},
        }
        for step, r in enumerate(recalls)
    ]
    data = {"class_names": ["a", "b", "c"], "labeled_counts": [2, 9, 5]}
    return dataclasses.replace(run, data=data, rows=rows, summary={"evaluations": quoted})


def test_quality_is_the_mean_of_the_quoted_evaluations(finished_run: Path) -> None:
    run = measured(read_run(finished_run), [[0.9, 0.9, 0.9], [0.2, None, None], [0.4, 0.5, None]])
    quality = pseudo_label_quality(run, "recall")
    assert quality is not None
    np.testing.assert_allclose(quality, [0.3, 0.5, np.nan])


def test_quality_of_a_real_run(finished_run: Path) -> None:
    run = read_run(finished_run)
    quality = pseudo_label_quality(run, "precision")
    assert run.summary["evaluations"] == 1
    expected = run.evaluations()[-1]["pseudo_labels"]["final"]["precision"]
    np.testing.assert_array_equal(quality, np.array(expected, dtype=float))
    unknown = dataclasses.replace(run, rows=[{"event": "evaluate", "step": 1}])
    assert pseudo_label_quality(unknown, "precision") is None


def test_bars_are_means_over_runs_most_labelled_class_first(finished_run: Path, axis: Axes) -> None:
    run = read_run(finished_run)
    groups = {
        "two": [measured(run, [[0.2, 0.4, None]]), measured(run, [[0.4, 0.6, 0.9]])],
        "one": [measured(run, [[1, 1, 1]])],
    }
    plot_pseudo_labels(axis, groups, "recall")
    heights = [bar.get_height() for bar in axis.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [50, 90, 30, 100, 100, 100])
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["two: 56.7", "one: 100.0"]


def test_a_mean_says_over_how_many_classes_it_is(finished_run: Path, axis: Axes) -> None:
    run = read_run(finished_run)
    plot_pseudo_labels(axis, {"two": [measured(run, [[0.2, 0.4, None]])] * 2}, "precision")
    legend = axis.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "two: 30.0 (2 of 3 classes)"


def test_confusions_are_shares_of_the_true_class(finished_run: Path, axis: Axes) -> None:
    run = read_run(finished_run)
    shares = confusion_shares(run)
    assert shares is not None
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(np.diag(shares), run.summary["last"]["recall"])
    plot_confusion(axis, "DASO", [run, run])
    assert f"{100 * np.diag(shares).mean():.1f}%" in axis.get_title(loc="left")
    (finished_run / "confusion.json").unlink()
    assert confusion_shares(run) is None


def test_all_figures(finished_run: Path, finished_supervised_run: Path, tmp_path: Path) -> None:
    daso, supervised = read_run(finished_run), read_run(finished_supervised_run)
    groups = {"supervised": [supervised], "DASO": [daso, daso]}
    paths = draw_figures(groups, groups, tmp_path / "figures" / "setting")
    assert [path.name for path in paths] == [
        "setting-pseudo-labels.png",
        "setting-confusion.png",
        "setting-accuracy.png",
    ]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 400
            assert (np.asarray(image.convert("L")) < 200).mean() > 0.005


def test_what_is_not_there_is_not_drawn(finished_supervised_run: Path, tmp_path: Path) -> None:
    groups = {"supervised": [read_run(finished_supervised_run)]}
    (finished_supervised_run / "confusion.json").unlink()
    assert [p.name for p in draw_figures(groups, groups, tmp_path / "x")] == ["x-accuracy.png"]
    assert draw_figures({}, {}, tmp_path / "x") == []


def test_many_classes(finished_run: Path, axis: Axes, tmp_path: Path) -> None:
    run = read_run(finished_run)
    data = {"class_names": [f"class {k}" for k in range(30)], "labeled_counts": list(range(1, 31))}
    many = dataclasses.replace(run, data=data, rows=measured(run, [[0.5] * 30]).rows, path=tmp_path)
    plot_pseudo_labels(axis, {"many": [many]}, "recall")
    assert len(axis.lines) == 1
    counts = np.eye(30, dtype=int).tolist()
    (tmp_path / "confusion.json").write_text(json.dumps({"counts": counts}))
    plot_confusion(axis, "many", [many])
    assert not axis.texts


def test_a_folder_that_cannot_be_written(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file stands in the way")
    groups = {"DASO": [read_run(finished_run)]}
    with pytest.raises(RunError, match="figures"):
        draw_figures(groups, groups, tmp_path / "figures" / "setting")
