"""A run before and one after labeling more images, compared: two rows, differences, intervals."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_files import edit

from daso.cli import main
from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.data.training_data import prepare_data
from daso.files import read_rows, to_line
from daso.report.compare import tables
from daso.report.compare.groups import group_runs, read_runs
from daso.report.compare.shared_classes import limit_run
from daso.report.compare.tables import Compared, choose_baseline
from daso.report.data_changes import describe_changes
from daso.report.uncertainty import interval

Row = dict[str, Any]
Capture = pytest.CaptureFixture[str]


def more_labels(data: Row) -> None:
    data["labeled_counts"][-1] += 3
    data["unlabeled"] -= 3
    data["split_fingerprint"] = "of more labels"
    data["images_fingerprints"] |= {"labeled": "more", "unlabeled": "fewer"}


def better(summary: Row) -> None:
    recall = [min(1.0, value + 0.1) for value in summary["per_class_recall"]]
    summary["per_class_recall"] = summary["median_of_last"]["recall"] = recall
    summary["median_of_last"]["balanced_accuracy"] = float(np.mean(recall))


@pytest.fixture
def both(finished_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    before, after = (Path(shutil.copytree(finished_run, tmp_path / n)) for n in ("one", "two"))
    edit(after / "data.json", more_labels)
    edit(after / "summary.json", better)
    return before, after


def compared(*paths: Path) -> Compared:
    (setting,) = group_runs(read_runs(paths)[0])
    return Compared(setting, choose_baseline(setting, None))


def test_two_rows_named_by_their_labels_and_the_first_run_is_the_baseline(
    both: tuple[Path, Path],
) -> None:
    for first, second, sign in ((0, 1, 1), (1, 0, -1)):
        found = compared(both[first], both[second])
        labels = [sum(g.first.data["labeled_counts"]) for g in found.setting.groups]
        names = [group.name for group in found.setting.groups]
        assert names == [f"fixmatch+daso ({number} labels)" for number in labels]
        assert labels[1] - labels[0] == 3 * sign
        assert found.baseline is found.setting.groups[0]
        difference = found.difference(found.others[0], lambda run: float(run.recall()[0]))
        assert len(difference.values) == 1
        assert any(f"{labels[0]} -> {labels[1]} labels" in note for note in found.notes())
        assert not any("twice" in note for note in found.notes())


def test_the_difference_has_the_interval_of_both_runs_class_by_class(
    both: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    found = compared(*both)
    runs = [group.first for group in found.setting.groups]
    counts = np.array(runs[0].data["test_counts"], float)
    halves = [100 * (interval(run.recall(), counts) or 0) for run in runs]
    head, row, *_ = found.difference_table()
    cells = dict(zip(head, row, strict=True))
    gain = 100 * (np.mean(runs[1].recall()) - np.mean(runs[0].recall()))
    low, high = (gain + sign * float(np.hypot(*halves)) for sign in (-1, 1))
    assert cells["95% interval"] == f"{low:+.1f} to {high:+.1f}"
    intervals = {line[0]: line[head.index("95% interval")] for line in found.difference_table()}
    assert intervals["logit-adjusted"] != tables.MISSING
    k = runs[0].order[0]
    one = [100 * (interval(r.recall()[[k]], counts[[k]]) or 0) for r in runs]
    gain = 100 * float(runs[1].recall()[k] - runs[0].recall()[k])
    text = f"{gain:+.1f} ({gain - np.hypot(*one):+.1f} to {gain + np.hypot(*one):+.1f})"
    assert found.class_table()[1][-1] == text
    assert found.class_table()[-1][1].count(" / ") == 1  # its labels before and after

    assert main(["compare", *map(str, both), "--out", str(tmp_path / "out")]) == 0
    assert f"{low:+.1f} to" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    (line,) = (r for r in rows if r["interval_low"] and r["number"] == "balanced accuracy")
    assert float(line["interval_low"]) == pytest.approx(low)
    assert text in (tmp_path / "out" / "comparison.html").read_text()


def test_no_difference_is_beyond_100_points(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "interval", lambda *_: 1.5)
    found = compared(*both)
    head, row, *_ = found.difference_table()
    assert dict(zip(head, row, strict=True))["95% interval"] == "-100.0 to +100.0"
    assert "(-100.0 to +100.0)" in found.class_table()[1][-1]
    assert main(["compare", *map(str, both), "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    ends = {(r["interval_low"], r["interval_high"]) for r in rows if r["interval_low"]}
    assert ends == {("-100.0", "100.0")}


def test_seeds_go_to_the_row_of_their_data(both: tuple[Path, Path], tmp_path: Path) -> None:
    others = [Path(shutil.copytree(run, tmp_path / f"{run.name}-1")) for run in both]
    for number, run in enumerate(others):
        edit(run / "config.json", lambda config: config["train"].update(seed=1))
        edit(run / "data.json", lambda d, n=number: d.update(split_fingerprint=f"other {n}"))
    groups = compared(both[0], *others, both[1]).setting.groups
    assert [sorted(r.path.name for r in g.runs.values()) for g in groups] == [
        ["one", "one-1"],
        ["two", "two-1"],
    ]


def test_as_many_labels_but_others_are_two_rows_named_by_their_folders(
    both: tuple[Path, Path],
) -> None:
    shutil.copy(both[0] / "data.json", both[1] / "data.json")
    edit(both[1] / "data.json", lambda data: data.update(split_fingerprint="relabeled"))
    names = [group.name for group in compared(*both).setting.groups]
    assert [name.rpartition(", ")[2] for name in names] == ["one)", "two)"]


def test_a_mean_over_other_rare_classes_has_no_difference(both: tuple[Path, Path]) -> None:
    edit(both[1] / "data.json", lambda data: data["labeled_counts"].reverse())
    found = compared(*both)
    measures = [row[0] for row in found.difference_table()]
    assert "balanced accuracy" in measures
    assert "recall, few labels" not in measures
    assert any("different classes" in note for note in found.notes())


def test_a_run_that_measured_nothing_is_not_called_incomplete(
    finished_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    edit(finished_run / "summary.json", lambda summary: summary.pop("median_of_last"))
    assert main(["compare", str(finished_run)]) == 1
    said = capsys.readouterr().err
    assert "is complete" in said
    assert "nothing was measured" in said
    assert "not complete" not in said


def test_changes_of_data_in_words() -> None:
    before = {
        "class_names": ["cat", "dog"],
        "labeled_counts": [4, 2],
        "unlabeled": 30,
        "unlabeled_counts": None,
        "test": 8,
        "test_counts": [4, 4],
        "split_fingerprint": "a",
        "images_fingerprints": {"labeled": "1", "unlabeled": "2", "holdout": None, "test": "3"},
    }
    assert describe_changes(before, before) == []
    labeled = before | {"labeled_counts": [4, 5], "unlabeled": 27, "split_fingerprint": "b"}
    assert describe_changes(before, labeled) == [
        "6 -> 9 labels (dog 2 -> 5)",
        "30 -> 27 unlabeled images",
    ]
    moved = before | {"labeled_counts": [3, 3], "split_fingerprint": "b"}
    assert describe_changes(before, moved) == ["6 labels (cat 4 -> 3, dog 2 -> 3)"]
    others = before | {"images_fingerprints": before["images_fingerprints"] | {"test": "4"}}  # type: ignore[operator]
    (text,) = describe_changes(before, others)
    assert "8 test images as before, but other images" in text
    assert describe_changes(before, before | {"split_fingerprint": "b"}) == ["another split"]
    renamed = before | {"class_names": ["cat", "emu"]}
    assert "without dog; with emu" in describe_changes(before, renamed)[0]


def rename(run: Path, names: list[str]) -> None:
    edit(run / "data.json", lambda data: data.update(class_names=names))


def add_class(run: Path, place: int) -> None:
    """Turn a run into one with a class more, which was added while labeling."""

    def widened(value: Any, classes: int) -> Any:
        if isinstance(value, dict):
            return {name: widened(one, classes) for name, one in value.items()}
        if isinstance(value, list) and len(value) == classes:
            return [*value[:place], 0.5, *value[place:]]
        return value

    def more(data: Row) -> None:
        count = len(data["class_names"])
        for name in {"labeled_counts", "unlabeled_counts", "holdout_counts", "test_counts"}:
            if data[name]:
                data[name].insert(place, 7)
        data["class_names"] = [*data["class_names"][:place], "emu", *data["class_names"][place:]]
        data["images_fingerprints"] |= {"labeled": "more", "test": "renumbered"}
        for images in data["class_fingerprints"].values():
            if images:
                images.insert(place, "of emus")
        data["test"] += 7
        classes.append(count)

    classes: list[int] = []
    edit(run / "data.json", more)
    edit(run / "summary.json", lambda row: row.update(widened(row, *classes)))
    rows = read_rows(run / "metrics.jsonl")
    lines = [to_line(widened(row, *classes)) for row in rows]
    (run / "metrics.jsonl").write_text("".join(lines))


def test_a_class_that_was_added_is_named_and_the_others_are_compared(
    both: tuple[Path, Path], tmp_path: Path, capsys: Capture
) -> None:
    shutil.copy(both[0] / "data.json", both[1] / "data.json")
    alone = compared(both[0])
    add_class(both[1], 2)
    for paths in (both, both[::-1]):
        found = compared(*paths)
        names = [group.name for group in found.setting.groups]
        assert len(names) == 2
        counts = [json.loads((p / "data.json").read_text())["labeled_counts"] for p in paths]
        assert all(f"{sum(n)} labels" in name for n, name in zip(counts, names, strict=True))
        assert any("not all runs have the class emu" in note for note in found.notes())
        sign = "with emu" if paths == both else "without emu"
        (note,) = (note for note in found.notes() if sign in note)
        assert "emu 0 -> 7" in note or "emu 7 -> 0" in note
        assert "other images" not in note
        # All other classes were answered alike.
        assert [row[0] for row in found.class_table()] == [row[0] for row in alone.class_table()]
        for measure in ("balanced accuracy", "accuracy", "logit-adjusted", "recall, few labels"):
            before = tables.value_of(alone.baseline.first, measure)
            after = [tables.value_of(group.first, measure) for group in found.setting.groups]
            assert after == pytest.approx([before, before]), measure
    assert main(["compare", *map(str, both), "--out", str(tmp_path / "out")]) == 0
    assert "class emu" in capsys.readouterr().out
    assert "emu" in (tmp_path / "out" / "comparison.html").read_text()


def test_images_of_a_class_have_a_fingerprint_without_its_number(
    make_image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    first = make_image_folder()
    other = Path(shutil.copytree(first, tmp_path / "copy"))
    for part in ("labeled", "val", "test"):
        shutil.copytree(other / part / "red", other / part / "amber")
        for image in (other / part / "amber").iterdir():
            Image.open(image).rotate(90).save(image)
    two = [
        prepare_data(open_source(str(folder)), SplitOptions(), 0, torch.device("cpu"))
        for folder in (first, other)
    ]
    for pool in ("holdout", "test"):
        assert two[0].images_fingerprints[pool] != two[1].images_fingerprints[pool]
        one, more = (data.class_fingerprints[pool] for data in two)
        assert one is not None
        assert more is not None
        assert more[1:] == one
        assert len(set(more)) == 4


def test_a_copy_elsewhere_is_known_by_the_images_of_its_classes(both: tuple[Path, Path]) -> None:
    shutil.copy(both[0] / "data.json", both[1] / "data.json")
    add_class(both[1], 2)
    edit(both[1] / "config.json", lambda config: config.update(source="/elsewhere/photos"))
    for paths in (both, both[::-1]):
        assert any("not all runs have the class emu" in text for text in compared(*paths).notes())

    def other_images(data: Row) -> None:
        data["class_fingerprints"]["test"][0] = "of other images"

    edit(both[1] / "data.json", other_images)
    assert len(group_runs(read_runs(both)[0])) == 2
    # A copy of all classes is known by the whole, also where the run is older.
    shutil.copy(both[0] / "data.json", both[1] / "data.json")
    edit(both[1] / "data.json", lambda data: data.pop("class_fingerprints"))
    shutil.copy(both[0] / "summary.json", both[1] / "summary.json")
    shutil.copy(both[0] / "metrics.jsonl", both[1] / "metrics.jsonl")
    assert len(compared(*both).setting.groups[0].runs) == 1


def test_all_classes_in_another_order_are_compared_by_name(both: tuple[Path, Path]) -> None:
    names = json.loads((both[0] / "data.json").read_text())["class_names"]
    rename(both[1], names[::-1])
    found = compared(*both)
    first, second = (group.first for group in found.setting.groups)
    assert first.class_names == second.class_names == names
    assert second.recall().tolist() != first.recall().tolist()
    assert any("in another order" in note for note in found.notes())


def test_runs_without_common_classes_are_not_compared_and_told_so(both: tuple[Path, Path]) -> None:
    names = json.loads((both[0] / "data.json").read_text())["class_names"]
    rename(both[1], [names[0], *(f"new {k}" for k in range(1, len(names)))])
    first, second = group_runs(read_runs(both)[0])
    assert first.title != second.title
    assert any(f"not compared with {first.title}" in n and "with new" in n for n in second.notes)
    (note,) = (n for n in Compared(second, second.groups[0]).notes() if "Nothing" in n)
    assert "data" in note


def test_a_run_limited_to_all_of_its_classes_says_what_it_said(finished_run: Path) -> None:
    (run,) = read_runs([finished_run])[0]
    limited = limit_run(run, run.data["class_names"])
    depend_on_others = ("calibration error", "accuracy of pseudo-labels")
    for measure in tables.MEASURES.keys() - {*depend_on_others, "accuracy of those over threshold"}:
        before, after = (tables.value_of(one, measure) for one in (run, limited))
        assert after == pytest.approx(before, nan_ok=True), measure
