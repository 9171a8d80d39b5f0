"""Runs grouped by data, method and options; tables, Markdown, CSV and the page of a comparison."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_page import Parsed
from run_files import edit
from test_html_damaged import mutate

from daso.cli import main
from daso.errors import RunError
from daso.report.compare.groups import find_run_folders, group_runs, read_runs
from daso.report.compare.page import to_html
from daso.report.compare.tables import (
    Compared,
    choose_baseline,
    class_recall,
    to_csv,
    to_markdown,
    value_of,
)
from daso.report.runs import RunFolder
from tests.conftest import Say

Row = dict[str, Any]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def campaign(finished_run: Path, finished_supervised_run: Path, tmp_path: Path) -> Path:
    """Return a folder of runs of two methods with three seeds each, whose numbers differ."""
    folder = tmp_path / "campaign"
    for method, original in (("supervised", finished_supervised_run), ("daso", finished_run)):
        for seed in (0, 1, 10):
            run = Path(shutil.copytree(original, folder / "runs" / method / f"seed-{seed}"))
            edit(run / "config.json", lambda config, seed=seed: config["train"].update(seed=seed))
            edit(
                run / "data.json",
                lambda data, seed=seed: data.update(split_fingerprint=f"split {seed}"),
            )

            def score(summary: Row, seed: int = seed, method: str = method) -> None:
                value = 0.5 + 0.01 * seed + (0.02 + 0.001 * seed if method == "daso" else 0)
                summary["median_of_last"]["balanced_accuracy"] = value
                summary["per_class_recall"][3] = value

            edit(run / "summary.json", score)
    return folder


def accuracy(run: RunFolder) -> float:
    return value_of(run, "balanced accuracy")


def only(folder: Path) -> Compared:
    runs, problems = read_runs([folder])
    assert not problems
    (setting,) = group_runs(runs)
    return Compared(setting, choose_baseline(setting, None))


def test_runs_are_found_anywhere_once_and_in_natural_order(campaign: Path) -> None:
    found = find_run_folders([campaign / "runs" / "daso" / "seed-1", campaign])
    assert [int(path.name.removeprefix("seed-")) for path in found] == [1, 0, 10, 0, 1, 10]
    with pytest.raises(RunError, match="does not exist"):
        find_run_folders([campaign.parent / "nothing"])


def test_differences_are_paired_by_seed(campaign: Path) -> None:
    compared = only(campaign)
    assert compared.baseline.name == "supervised"
    (daso,) = compared.others
    # 2, 2.1 and 3 points.
    difference = compared.difference(daso, accuracy)
    np.testing.assert_allclose(difference.values, [2, 2.1, 3])
    assert compared.difference(daso, lambda run: class_recall(run, 3)).values == difference.values
    row = dict(zip(*compared.table()[:2], strict=True))
    assert (row["method"], row["runs"]) == ("fixmatch+daso", "3")
    assert row["balanced accuracy"] == "56.0 ± 6.1"  # 52, 53.1, 63
    row = dict(zip(*compared.difference_table()[:2], strict=True))
    assert (row["pairs"], row["difference"], row["better in"]) == ("3", "+2.4 ± 0.6", "3 of 3")
    assert row["p (sign flips)"] == "0.250"
    assert any("cannot go below 0.25" in note for note in compared.notes())


def test_runs_without_a_common_seed_have_no_differences(campaign: Path) -> None:
    for number, folder in enumerate(find_run_folders([campaign])):
        config = json.loads((folder / "config.json").read_text())
        config["train"]["seed"] = 100 + number
        (folder / "config.json").write_text(json.dumps(config))
    notes = only(campaign).notes()
    assert any(note.startswith("No differences: no other run has the seed") for note in notes)
    assert not any("t test" in note or "interval is that of" in note for note in notes)


BALANCED = {"method": {"balanced_by": ["la"]}}


def test_a_method_that_training_balanced_has_no_logit_adjusted_numbers(campaign: Path) -> None:
    def adjusted(compared: Compared) -> list[str]:
        rows = [dict(zip(compared.table()[0], row, strict=True)) for row in compared.table()[1:]]
        return [row.get("logit-adjusted", "no column") for row in rows]

    compared = only(campaign)
    assert "-" not in adjusted(compared)
    assert "logit-adjusted" in [row[0] for row in compared.difference_table()]
    for path in (campaign / "runs" / "daso").glob("*/config.json"):
        edit(path, lambda config: config.update(method="fixmatch+la+daso"))
        edit(path.with_name("data.json"), lambda data: data.update(BALANCED))
    compared = only(campaign)
    assert (adjusted(compared)[0], adjusted(compared)[1] == "-") == ("-", False)
    assert "logit-adjusted" not in [row[0] for row in compared.difference_table()]
    assert any(
        note.startswith("No logit-adjusted numbers of fixmatch+la+daso:")
        for note in compared.notes()
    )
    rows = list(csv.DictReader(io.StringIO(to_csv([compared]))))
    counts = {row["method"]: row["runs"] for row in rows if row["number"] == "logit-adjusted"}
    assert counts == {"fixmatch+la+daso": "0", "supervised": "3"}
    for path in (campaign / "runs" / "supervised").glob("*/config.json"):
        edit(path, lambda config: config["train"].update(labeled_sampling="class-balanced"))
    assert adjusted(only(campaign)) == ["no column"] * 2


def test_classes_come_by_falling_number_of_labels_with_all_methods(campaign: Path) -> None:
    compared = only(campaign)
    head, *rows = compared.class_table()
    assert head == ["class", "labeled", "fixmatch+daso", "supervised", "fixmatch+daso: difference"]
    counts = [int(row[1]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    row = next(row for row in rows if row[0] == "3")
    assert row[2:] == ["56.0 ± 6.1", "53.7 ± 5.5", "+2.4 ± 0.6"]


def test_runs_on_other_splits_are_not_paired_and_it_is_said(campaign: Path) -> None:
    edit(
        campaign / "runs/daso/seed-1/data.json",
        lambda data: data.update(split_fingerprint="another"),
    )
    compared = only(campaign)
    np.testing.assert_allclose(compared.difference(compared.others[0], accuracy).values, [2, 3])
    assert any(note.startswith("seed 1: different splits or images") for note in compared.notes())
    assert any("is not tested" in note for note in compared.notes())


def test_other_images_under_the_same_split_are_not_paired(campaign: Path) -> None:
    edit(
        campaign / "runs/daso/seed-1/data.json",
        lambda data: data.update(images_fingerprints={"train": "x"}),
    )
    compared = only(campaign)
    assert len(compared.difference(compared.others[0], accuracy).values) == 2


def test_options_make_groups_and_data_makes_settings(campaign: Path) -> None:
    hot = campaign / "runs" / "daso" / "seed-1"
    edit(hot / "config.json", lambda config: config["method_options"].update(dist_temperature=0.3))
    names = [group.name for group in only(campaign).setting.groups]
    assert names == [
        "fixmatch+daso (dist-temperature 1.5)",
        "fixmatch+daso (dist-temperature 0.3)",
        "supervised",
    ]
    for method in ("daso", "supervised"):
        run = campaign / "runs" / method / "seed-10"
        edit(run / "config.json", lambda config: config["split"].update(unlabeled_shape="reversed"))
    settings = group_runs(read_runs([campaign])[0])
    titles = [setting.title for setting in settings]
    assert len(titles) == 2
    assert "unlabeled-shape reversed" in titles[1] or "unlabeled-shape reversed" in titles[0]
    sizes = sorted(sum(len(group.runs) for group in setting.groups) for setting in settings)
    assert sizes == [2, 4]


def test_a_training_option_in_which_methods_differ_is_said(campaign: Path) -> None:
    for seed in (0, 1, 10):
        path = campaign / f"runs/daso/seed-{seed}/config.json"
        edit(path, lambda config: config["train"].update(steps=40))
    assert "--steps differs: fixmatch+daso 40; supervised 20" in only(campaign).notes()


def test_a_seed_that_is_there_twice_counts_once(campaign: Path) -> None:
    shutil.copytree(campaign / "runs/daso/seed-1", campaign / "runs/daso/seed-20")
    compared = only(campaign)
    assert len(compared.others[0].runs) == 3
    assert any("occurs twice" in note and "seed-20 counts" in note for note in compared.notes())


def test_incomplete_and_damaged_runs_are_left_out_and_named(campaign: Path) -> None:
    (campaign / "runs/daso/seed-0/summary.json").unlink()
    (campaign / "runs/daso/seed-1/data.json").write_text("{")
    runs, problems = read_runs([campaign])
    assert len(runs) == 4
    assert sorted("not complete" in problem for problem in problems) == [False, True]
    assert all("left out" in problem for problem in problems)


def test_csv_has_all_digits(campaign: Path) -> None:
    compared = only(campaign)
    rows = list(csv.DictReader(io.StringIO(to_csv([compared]))))
    run = compared.others[0].runs[10]
    named = {(row["method"], row["number"], row["class"]): row for row in rows}
    assert len(named) == len(rows)
    for measure in compared.measures():
        row = named["fixmatch+daso", measure, ""]
        values = dict(zip(row["seeds"].split(), map(float, row["values"].split()), strict=True))
        assert values["10"] == value_of(run, measure)
    row = named["fixmatch+daso", "recall", "3"]
    assert float(row["mean"]) == pytest.approx(np.mean([52, 53.1, 63]))
    assert float(row["difference"]) == pytest.approx(7.1 / 3)
    assert row["p_sign_flips"] == "0.25"
    row = named["supervised", "recall", "3"]
    assert (row["pairs"], row["difference"]) == ("0", "")


def test_markdown_has_as_many_cells_in_every_line(campaign: Path) -> None:
    for path in campaign.glob("runs/*/*/data.json"):
        edit(path, lambda data: data["class_names"].__setitem__(3, "a|b <b>*c* $d$\ne"))
    text = to_markdown([only(campaign)], ["left out: a_b_c"])
    assert r"a\|b &lt;b>\*c\* &#36;d&#36; e |" in text
    assert r"a\_b\_c" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_file_in_the_place_of_the_tables_is_named(campaign: Path, say: Say) -> None:
    file = campaign / "taken"
    file.touch()
    status, said = say("compare", campaign, "--out", file)
    assert (status, f"{file} is a file; name a folder" in said) == (1, True)


def parsed(*args: Any) -> tuple[Parsed, list[str], int]:
    """Return a page, its tags, and how many charts it has."""
    page = Parsed(to_html(*args))
    charts = sum(attributes.get("class") == "chart" for _, attributes in page.elements)
    return page, [tag for tag, _ in page.elements], charts


def test_the_page_needs_no_network_and_escapes_names(campaign: Path) -> None:
    nasty = "<script>alert(1)</script>"
    for path in campaign.glob("runs/*/*/data.json"):
        edit(path, lambda data: data["class_names"].__setitem__(3, nasty))
    page, tags, charts = parsed([only(campaign)], ["left out: <b>this</b>"])
    assert (tags.count("script"), tags.count("b"), tags.count("table")) == (2, 0, 3)
    assert nasty in page.text
    assert charts == 7
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_a_campaign_of_supervised_runs_alone_has_a_page(finished_supervised_run: Path) -> None:
    compared = only(finished_supervised_run)
    assert len(compared.difference_table()) == 1
    _, tags, charts = parsed([compared])
    assert (tags.count("table"), charts) == (2, 3)


def test_a_damaged_run_is_left_out_and_the_others_are_compared(
    campaign: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Each file of a run in turn is cut off, garbled, empty, or has unexpected contents."""
    run, out = campaign / "runs" / "daso" / "seed-1", tmp_path / "out"

    def otherwise(content: bytes, seed: int) -> bytes:
        lines = content.splitlines() if content.count(b"\n{") else [content]
        changed = (mutate(json.loads(line), random.Random(seed), 0.1) for line in lines)
        return b"".join(json.dumps(line).encode() + b"\n" for line in changed)

    hurt: list[Callable[[bytes, int], bytes]] = [
        lambda content, _: content[: len(content) // 2],
        lambda content, seed: random.Random(seed).randbytes(len(content)),
        lambda content, _: b"{}",
        otherwise,
        otherwise,
    ]
    for name in ("config.json", "data.json", "summary.json", "metrics.jsonl"):
        content = (run / name).read_bytes()
        for seed, damage in enumerate(hurt):
            (run / name).write_bytes(damage(content, seed))
            assert main(["compare", str(campaign), "--out", str(out)]) == 0, (name, seed)
            said = capsys.readouterr()
            table = (out / "comparison.md").read_text(encoding="utf-8")
            assert "| supervised | 3 |" in table, (name, seed)
            if seed < 2 and name != "metrics.jsonl":
                assert f"left out: {run / name} " in said.err
                assert "| fixmatch+daso | 2 |" in table
        (run / name).write_bytes(content)


def test_the_command(campaign: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(campaign), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        f"comparison.{end}" for end in ("csv", "html", "md")
    }
    printed = capsys.readouterr().out
    assert "differences from supervised" in printed
    assert "+2.4 ± 0.6" in printed
    assert main(["compare", str(campaign), "--out", str(out), "--baseline", "fixmatch+daso"]) == 0
    assert "-2.4 ± 0.6" in capsys.readouterr().out
    assert main(["compare", str(campaign), "--baseline", "fixmach+daso"]) == 2
    assert "Did you mean 'fixmatch+daso'?" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "nothing")]) == 1
    assert main(["compare"]) == 2


def test_nothing_is_shown_of_differences_without_a_pair(
    finished_run: Path, finished_supervised_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    edit(finished_supervised_run / "config.json", lambda config: config["train"].update(seed=5))
    runs = [str(finished_run), str(finished_supervised_run)]
    assert main(["compare", *runs, "--out", str(tmp_path / "out")]) == 0
    assert "differences from" not in capsys.readouterr().out
