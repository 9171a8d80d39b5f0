"""The numbers of the charts, and the figures of the paper, from run folders."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daso.errors import RunError
from daso.report import charts, figures
from daso.report.charts import pseudo_label_quality
from daso.report.figures.draw import draw, draw_figures
from daso.report.html import svg
from daso.report.runs import RunFolder, read_run

Row = dict[str, Any]

pytestmark = pytest.mark.usefixtures("without_warnings")


def evaluated(run: RunFolder, parts: list[Row], quoted: int = 2) -> RunFolder:
    """Return a run of classes a, b and c with these final pseudo-labels in its evaluations."""
    rows = [
        {"event": "evaluate", "step": 5 * number, "pseudo_labels": {"final": part}}
        for number, part in enumerate(parts, 1)
    ]
    data = {"class_names": ["a", "b", "c"], "labeled_counts": [2, 9, 5]}
    return dataclasses.replace(run, data=data, rows=rows, summary={"evaluations": quoted})


def recalled(run: RunFolder, recalls: list[list[float | None]], quoted: int = 2) -> RunFolder:
    return evaluated(run, [{"recall": recall, "precision": recall} for recall in recalls], quoted)


def test_quality_is_the_mean_of_the_quoted_evaluations(finished_run: Path) -> None:
    real = read_run(finished_run)
    run = recalled(real, [[0.9, 0.9, 0.9], [0.2, None, None], [0.4, 0.5, None]])
    np.testing.assert_allclose(pseudo_label_quality(run, "recall"), [0.3, 0.5, np.nan])
    assert real.summary["evaluations"] == 1
    expected = real.evaluations()[-1]["pseudo_labels"]["final"]["precision"]
    quality = pseudo_label_quality(real, "precision")
    np.testing.assert_array_equal(quality, np.array(expected, dtype=float))
    unknown = dataclasses.replace(real, rows=[{"event": "evaluate", "step": 1}])
    assert pseudo_label_quality(unknown, "precision") is None


def test_classes_come_by_falling_labels_with_means_over_the_runs(finished_run: Path) -> None:
    run = read_run(finished_run)
    two = [recalled(run, [[0.2, 0.4, None]]), recalled(run, [[0.4, 0.6, 0.9]])]
    chart = charts.pseudo_labels_by_class(
        {"two": two, "one": [recalled(run, [[1, 1, 1]])]}, "recall"
    )
    assert chart.names == ("b", "c", "a")
    np.testing.assert_allclose([one.y for one in chart.series], [[0.5, 0.9, 0.3], [1, 1, 1]])
    assert [one.name for one in chart.series] == ["two: 56.7", "one: 100.0"]
    chart = charts.pseudo_labels_by_class({"two": [recalled(run, [[0.2, 0.4, None]])]}, "precision")
    assert chart.series[0].name == "two: 30.0 (2 of 3 classes)"
    figure = draw(charts.pseudo_labels_by_class({"two": two}, "recall"))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [50, 90, 30])


def test_curves_are_mean_and_deviation_over_the_runs_at_common_steps(finished_run: Path) -> None:
    run = read_run(finished_run)

    def measured(values: dict[int, float]) -> RunFolder:
        rows = [
            {"event": "evaluate", "step": step, "test": {"balanced_accuracy": value}}
            for step, value in values.items()
        ]
        return dataclasses.replace(run, rows=rows)

    runs = [measured({5: 0.2, 10: 0.4, 15: 0.5}), measured({5: 0.4, 10: 0.4})]
    (series,) = charts.accuracy({"two": runs}).series
    np.testing.assert_allclose((series.x, series.y), [[5, 10], [0.3, 0.4]])
    np.testing.assert_allclose(series.spread, [0.02**0.5, 0])
    drawn = str(svg.draw(charts.accuracy({"two": runs})))
    assert 'class="band method-0"' in drawn
    figure = draw(charts.accuracy({"two": runs}))
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [30, 40])


def test_bias_is_the_share_of_the_rare_relative_to_the_truth(finished_run: Path) -> None:
    run = read_run(finished_run)

    def bias(*truths: list[float] | None) -> charts.Chart:
        shares: Row = {"distribution": [0.1, 0.6, 0.3]}
        parts = [shares | ({} if truth is None else {"truth": truth}) for truth in truths]
        return charts.pseudo_label_bias([evaluated(run, parts)])

    cases: list[tuple[list[list[float] | None], dict[int, float]]] = [
        ([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], {5: 0.5, 10: 0.25}),
        ([None, None], {5: 0.1, 10: 0.1}),  # the share itself
        ([None, [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], {10: 0.5, 15: 0.25}),
        ([[0.0, 0.7, 0.3], [0.4, 0.4, 0.2]], {10: 0.25}),  # no rare image came by at step 5
    ]
    for truths, expected in cases:
        chart = bias(*truths)
        (series,) = chart.series
        assert series.name == "final"
        assert dict(zip(series.x, series.y, strict=True)) == pytest.approx(expected)
        assert ("truth" in chart.y_label) == (any(truths) and chart.reference == 1)
    assert "rarest class" in bias(None).title


def test_confusions_are_shares_of_the_true_class(finished_run: Path) -> None:
    run = read_run(finished_run)
    shares = charts.confusion_shares(run)
    assert shares is not None
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(np.diag(shares), run.summary["last"]["recall"])
    title = figures.confusion([run, run]).axes[0].get_title(loc="left")
    assert f"{100 * np.diag(shares).mean():.1f}%" in title
    (finished_run / "confusion.json").unlink()
    assert charts.confusion_shares(run) is None


def test_all_figures(finished_run: Path, finished_supervised_run: Path, tmp_path: Path) -> None:
    daso, supervised = read_run(finished_run), read_run(finished_supervised_run)
    groups = {"supervised": [supervised], "DASO": [daso, daso]}
    paths = draw_figures(groups, groups, tmp_path / "figures" / "setting")
    kinds = ("pseudo-labels", "confusion", "accuracy")
    assert [path.name for path in paths] == [f"setting-{kind}.png" for kind in kinds]
    for path in paths:
        with Image.open(path) as image:
            assert min(image.size) > 400
            assert (np.asarray(image.convert("L")) < 200).mean() > 0.005


def test_what_is_missing_is_not_drawn(finished_supervised_run: Path, tmp_path: Path) -> None:
    groups = {"supervised": [read_run(finished_supervised_run)]}
    (finished_supervised_run / "confusion.json").unlink()
    assert [p.name for p in draw_figures(groups, groups, tmp_path / "x")] == ["x-accuracy.png"]
    assert draw_figures({}, {}, tmp_path / "x") == []


def test_many_classes_are_lines_and_a_matrix_without_numbers(
    finished_run: Path, tmp_path: Path
) -> None:
    run = read_run(finished_run)
    data = {"class_names": [f"class {k}" for k in range(30)], "labeled_counts": list(range(1, 31))}
    rows = recalled(run, [[0.5] * 30]).rows
    many = dataclasses.replace(run, data=data, rows=rows, path=tmp_path)
    chart = charts.pseudo_labels_by_class({"many": [many]}, "recall")
    assert len(draw(chart).axes[0].lines) == 1
    counts = np.eye(30, dtype=int).tolist()
    (tmp_path / "confusion.json").write_text(json.dumps({"counts": counts}))
    assert not figures.confusion(many).axes[0].texts


def test_a_folder_that_cannot_be_written(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("a file stands in the way")
    groups = {"DASO": [read_run(finished_run)]}
    with pytest.raises(RunError, match="figures"):
        draw_figures(groups, groups, tmp_path / "figures" / "setting")
