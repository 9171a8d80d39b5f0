"""Pictures of complete, incomplete, unmeasured and damaged run folders."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from daso.errors import RunError
from daso.files import read_json
from daso.report import charts
from daso.report.figures.draw import draw, draw_comparison, draw_confusions, draw_run
from daso.report.html import svg
from daso.report.runs import read_run

Row = dict[str, Any]
ALL = ["classes.png", "pseudo_labels.png", "recall.png", "training.png"]


pytestmark = pytest.mark.usefixtures("without_warnings")


def assert_pictures(folder: Path, names: list[str]) -> None:
    paths = draw_run(folder)
    assert sorted(path.name for path in paths) == names
    assert all(path.parent == folder / "plots" for path in paths)
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert min(image.size) >= 300
            pixels = np.asarray(image.convert("L"))
        # Lines, bars and letters: more than an empty frame, on a white ground.
        assert (pixels < 200).mean() > 0.005
        assert (pixels > 250).mean() > 0.3


def write_rows(folder: Path, rows: list[Row]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_complete_run(finished_run: Path) -> None:
    assert_pictures(finished_run, ALL)
    assert_pictures(finished_run, ALL)


def test_a_supervised_run_has_no_pseudo_labels(finished_supervised_run: Path) -> None:
    assert_pictures(finished_supervised_run, ["classes.png", "recall.png", "training.png"])


def test_an_incomplete_run(finished_run: Path) -> None:
    (finished_run / "summary.json").unlink()
    metrics = finished_run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-100])
    assert_pictures(finished_run, ["classes.png", "pseudo_labels.png", "training.png"])


def test_names_are_drawn_as_they_are_written(finished_run: Path) -> None:
    names = ["$", "$$", r"\$5-$6", "_x", "a\udce9", "{", "猫", "שלום", "cafe\u0301", "#"]
    data = read_json(finished_run / "data.json")
    (finished_run / "data.json").write_text(json.dumps(data | {"class_names": names}))
    assert_pictures(finished_run, ALL)
    run = read_run(finished_run)
    figure = draw_confusions({"$a$": [run]})
    figure.canvas.draw()
    (axis,) = figure.axes
    shown = [text._preprocess_math(text.get_text()) for text in axis.get_xticklabels()]
    assert sorted(label for label, _ in shown) == sorted(
        ["\N{HAIR SPACE}_x", r"a\xe9", *(name for name in names if name[0] not in "_a")]
    )
    assert not any(is_formula for _, is_formula in shown)


@pytest.mark.parametrize("remove", [True, False])
def test_a_run_that_has_just_begun(finished_run: Path, remove: bool) -> None:
    (finished_run / "summary.json").unlink()
    (finished_run / "metrics.jsonl").unlink() if remove else write_rows(finished_run, [])
    assert_pictures(finished_run, ["classes.png"])


def test_a_run_that_was_not_measured(finished_run: Path) -> None:
    rows = read_run(finished_run).rows
    write_rows(
        finished_run,
        [{k: v for k, v in row.items() if k not in ("test", "holdout")} for row in rows],
    )
    (finished_run / "summary.json").write_text(json.dumps({"steps": 20, "seconds": 1.0}))
    assert_pictures(finished_run, ["classes.png", "pseudo_labels.png"])


def test_many_classes_and_no_truth(finished_run: Path) -> None:
    data = read_json(finished_run / "data.json")
    data |= {
        "class_names": [f"class {k}" for k in range(30)],
        "labeled_counts": list(range(1, 31)),
        "unlabeled_counts": None,
    }
    (finished_run / "data.json").write_text(json.dumps(data))
    (finished_run / "summary.json").unlink()
    (finished_run / "metrics.jsonl").unlink()
    assert_pictures(finished_run, ["classes.png"])
    assert read_run(finished_run).order == list(range(29, -1, -1))


def test_numbers_over_time(finished_run: Path) -> None:
    run = read_run(finished_run)
    for part in ("linear", "semantic", "final", "confident"):
        steps, values = run.classes_over_time("pseudo_labels", part, "distribution")
        assert steps.tolist() == [5, 10, 15, 20]
        assert values.shape == (4, 10)
        np.testing.assert_allclose(values.sum(1), 1)
    written = [row["pseudo_labels"]["final"]["recall"] for row in run.evaluations()]
    _, recall = run.classes_over_time("pseudo_labels", "final", "recall")
    np.testing.assert_array_equal(recall, np.array(written, dtype=float))
    steps, accuracy = run.over_time("test", "accuracy")
    assert accuracy.tolist() == [row["test"]["accuracy"] for row in run.evaluations()]
    for steps, values in (run.classes_over_time("x", "recall"), run.over_time("x")):
        assert len(steps) == len(values) == 0


def test_comparison(finished_run: Path, finished_supervised_run: Path, tmp_path: Path) -> None:
    daso, supervised = read_run(finished_run), read_run(finished_supervised_run)
    path = tmp_path / "comparison.png"
    draw_comparison({"supervised": [supervised], "DASO": [daso, daso]}, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 600


def test_more_groups_than_colors_can_be_told_apart(finished_run: Path) -> None:
    groups = {f"method {n}": [read_run(finished_run)] for n in range(9)}
    lines = draw(charts.accuracy(groups)).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9
    bars = draw(charts.recall(groups)).axes[0].containers
    assert len(bars) == 9
    styles = [style for _, style in svg.figure(charts.accuracy(groups))["legend"]]
    assert len(set(styles)) == 9


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def _without_key(name: str, key: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        del value[key]
        (folder / name).write_text(json.dumps(value))

    return change


def _row_in_the_middle(content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_bytes(lines[0] + content + b"\n" + b"".join(lines[2:]))

    return change


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no data": lambda folder: (folder / "data.json").unlink(),
    "no folder": shutil.rmtree,
    "config cut off": _write("config.json", b"{"),
    "data binary": _write("data.json", b"\xff\xfe\x00"),
    "data a list": _write("data.json", b"[]"),
    "summary garbage": _write("summary.json", b"{]"),
    "summary a number": _write("summary.json", b"3"),
    "row garbage": _row_in_the_middle(b"no JSON"),
    "row binary": _row_in_the_middle(b"\xff\xfe"),
    "row a number": _row_in_the_middle(b"3"),
    "row without event": _row_in_the_middle(b"{}"),
    "no class names": _without_key("data.json", "class_names"),
    "no counts": _without_key("data.json", "labeled_counts"),
    "no method": _without_key("config.json", "method"),
}


def test_a_damaged_folder_is_a_run_error(finished_run: Path, tmp_path: Path) -> None:
    for name, damage in DAMAGES.items():
        folder = Path(shutil.copytree(finished_run, tmp_path / name))
        damage(folder)
        with pytest.raises(RunError, match=re.escape(str(folder))):
            draw_run(folder)
        assert not (folder / "plots").exists(), name


def test_plots_that_cannot_be_written_are_a_run_error(finished_run: Path) -> None:
    (finished_run / "plots").write_text("a file stands in the way")
    with pytest.raises(RunError, match="plots"):
        draw_run(finished_run)


def test_a_figure_laid_out_without_being_drawn_looks_the_same(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = {path.name: path.read_bytes() for path in draw_run(finished_run)}
    monkeypatch.setattr("daso.report.figures.draw.ConstrainedLayoutEngine", ())  # none is one
    assert {path.name: path.read_bytes() for path in draw_run(finished_run)} == saved
