"""Campaigns: what is run, what is not run again, and what comes out, on a few images and steps."""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import campaign_process
import numpy as np
import pytest
from campaigns import COLUMN, PRESET, cell_of, consume, rows_of, run, train_nothing
from forked import PROCESSES

from daso.files import Row, read_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, table_cells
from daso.reproduce.compare import accuracies, compare
from daso.reproduce.paper_tables import TableRow, paper_tables
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import lock_run
from daso.train.prepare import Prepared


def test_mean_and_deviation_of_the_runs(finished: Campaign) -> None:
    row = rows_of(1, "fixmatch+daso")[0]
    folder = finished.folder / "runs" / PRESET / "fixmatch+daso"
    summaries = [read_json(folder / f"seed-{seed}" / "summary.json") for seed in (0, 1)]
    values = [100 * summary["median_of_last"]["accuracy"] for summary in summaries]
    comparison, problems = compare(finished, paper_tables()[1].part([row], [COLUMN]))
    entry = comparison.rows[0][2][0]
    assert problems == []
    assert entry.values == {0: values[0], 1: values[1]}
    assert entry.mean == pytest.approx(sum(values) / 2)
    assert entry.std == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert entry.paper == (76.0, 0.37)
    last = dataclasses.replace(COLUMN, measure="last")
    assert accuracies(finished, row, last)[0][0] == 100 * summaries[0]["last"]["accuracy"]
    adjusted = dataclasses.replace(row, logit_adjusted=True)
    expected = 100 * summaries[1]["median_of_last"]["logit_adjusted"]["accuracy"]
    assert accuracies(finished, adjusted, COLUMN)[0][1] == expected


def test_the_written_table(finished: Campaign) -> None:
    text = (finished.folder / "table-1.md").read_text()
    assert "not comparable with the paper's" in text
    supervised, la = (
        next(line for line in text.splitlines() if line.startswith(f"| {label} |"))
        for label in ("Supervised", "Supervised + LA")
    )
    assert "(2) / 47.3 ± 0.95" in supervised
    assert "- / 53.3 ± 0.44" in la
    with (finished.folder / "table-1.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12 * 8
    assert [line["seeds"] for line in lines if line["mean"]] == ["0 1", "0 1"]
    assert r"\begin{tabular}{lcccccccc}" in (finished.folder / "table-1.tex").read_text()


def test_a_row_of_each_run_once(finished: Campaign) -> None:
    for cell in (cell_of("supervised"), cell_of("fixmatch+daso", 1)):
        finished.record(cell)
    with (finished.folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = sorted((row["setting"], row["variant"], row["seed"]) for row in rows)
    assert keys == [(PRESET, m, seed) for m in ("fixmatch+daso", "supervised") for seed in "01"]


def test_tables_share_their_runs(finished: Campaign) -> None:
    tables = paper_tables()
    parts = [tables[n].part(rows_of(n, "fixmatch+daso"), [COLUMN]) for n in (1, 5, 6)]
    parts.append(tables[8].part(rows_of(8, "fixmatch+daso dist_temperature=1.5"), [COLUMN]))
    cells, refused = table_cells(parts, [0, 1])
    assert [str(cell) for cell in cells] == [
        f"{PRESET} fixmatch+daso seed {seed}" for seed in (0, 1)
    ]
    assert refused == []
    assert run(finished, cells, train_nothing) == []
    assert [finished.state(cell) for cell in cells] == ["complete", "complete"]


def test_what_is_run_is_the_setting_at_the_scale(finished: Campaign) -> None:
    config = read_json(finished.folder_of(cell_of("fixmatch+daso", 1)) / "config.json")
    assert config["source"] == "cifar10"
    assert config["method_options"]["dist_temperature"] == 1.5
    assert config["train"]["seed"] == 1
    assert {"steps": 16, "batch": 8, "network": "small-4"}.items() <= config["train"].items()
    assert config["split"]["unlabeled_shape"] == "consistent"
    assert config["split"]["labeled_head"] == 10


def test_a_campaign_that_was_stopped_goes_on(finished: Campaign, campaign: Campaign) -> None:
    def stop_at_8(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
        for row in rows:
            if row["event"] == "evaluate" and row["step"] == 8:
                raise KeyboardInterrupt

    cell = cell_of("fixmatch+daso")
    with pytest.raises(KeyboardInterrupt):
        run(campaign, [cell], stop_at_8)
    assert campaign.state(cell) == "started"
    steps: list[int] = []
    assert (
        run(
            campaign, [cell], lambda cell, prepared, rows: steps.extend(row["step"] for row in rows)
        )
        == []
    )
    assert steps == [12, 12, 16, 16]
    ends = [read_json(c.folder_of(cell) / "summary.json") for c in (campaign, finished)]
    for end in ends:
        del end["seconds"]
    assert ends[0] == ends[1]


def test_a_run_that_was_killed_before_it_began_begins_anew(campaign: Campaign) -> None:
    cell = cell_of("supervised")
    campaign.folder_of(cell).mkdir(parents=True)
    for name in ("environment.json", "data.json", ".config.json.1.tmp"):
        (campaign.folder_of(cell) / name).write_text("{}")
    assert run(campaign, [cell]) == []
    assert campaign.state(cell) == "complete"


def test_the_numbers_of_a_run_go_to_a_tracker(cifar10_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    campaign = Campaign.open(tmp_path, "smoke", cifar10_folder, "cpu", ("tensorboard",))
    campaign.begin()
    assert campaign.attempt(cell_of("supervised"), consume).state == "complete"
    assert len(list(campaign.folder_of(cell_of("supervised")).glob("tensorboard/events*"))) == 1


def test_two_processes_at_once_do_no_cell_twice(campaign: Campaign, tmp_path: Path) -> None:
    cells = [cell_of(method, seed) for method in ("supervised", "fixmatch") for seed in (0, 1)]
    (tmp_path / "notes").mkdir()
    barrier = PROCESSES.Barrier(2)
    given = (campaign, cells, tmp_path / "notes", barrier)
    processes = [PROCESSES.Process(target=campaign_process.work, args=given) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    trained = sorted(note.name.partition("-")[2] for note in (tmp_path / "notes").iterdir())
    assert trained == sorted(map(str, cells))
    assert {campaign.state(cell) for cell in cells} == {"complete"}
    with (campaign.folder / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(cells)


def test_a_cell_of_another_process_is_looked_at_again_at_the_end(campaign: Campaign) -> None:
    first, second = cell_of("supervised"), cell_of("supervised", 1)
    path = campaign.folder_of(first).with_name(".seed-0.lock")
    path.parent.mkdir(parents=True)
    lock = lock_run(path)
    assert campaign.state(first) == "running"
    [(left, outcome)] = run(campaign, [first], train_nothing)
    assert (left, outcome.state) == (first, "in use")
    order: list[int] = []

    def other_ends_meanwhile(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
        lock.close()
        order.append(cell.seed)
        consume(cell, prepared, rows)

    assert run(campaign, [first, second], other_ends_meanwhile) == []
    assert order == [1, 0]


def test_a_cell_that_fails_does_not_stop_the_others(campaign: Campaign) -> None:
    bad, broken, good = (
        cell_of("fixmatch+daso", queue_length=0),
        cell_of("fixmatch"),
        cell_of("supervised"),
    )

    def watch(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
        if cell is broken:
            raise MemoryError("too little of it")
        consume(cell, prepared, rows)

    left = run(campaign, [bad, broken, good], watch)
    assert [(cell, outcome.state) for cell, outcome in left] == [
        (bad, "failed"),
        (broken, "failed"),
    ]
    assert "queue_length" in left[0][1].message
    assert left[1][1].message == "MemoryError: too little of it"
    assert campaign.state(good) == "complete"


def test_rows_of_unknown_methods_are_named(campaign: Campaign) -> None:
    rows = [
        TableRow("Magic", "fixmatch+magic", "fixmatch+magic", {}, False),
        TableRow("Unknown", "-", None, {}, False),
    ]
    cells, refused = table_cells(
        [paper_tables()[1].part([*rows, *rows_of(1, "supervised")], [COLUMN])], [0]
    )
    assert [cell.variant.name for cell in cells] == ["supervised"]
    [reason] = refused
    assert reason.startswith("Magic: unknown part 'magic'")
    assert (
        accuracies(campaign, rows[0], COLUMN) == accuracies(campaign, rows[1], COLUMN) == ({}, [])
    )


def test_data_is_found_in_a_folder_of_folders_or_itself(
    campaign: Campaign, cifar10_folder: Path
) -> None:
    cell = cell_of("supervised")
    campaign.data = cifar10_folder / "cifar10"
    found: list[Prepared] = []
    campaign.attempt(cell, lambda cell, prepared, rows: found.append(prepared))
    assert Path(str(found[0].config.data)).is_relative_to(cifar10_folder / "cifar10")
    campaign.data = cifar10_folder.parent / "nowhere"
    outcome = campaign.attempt(cell, train_nothing)
    assert outcome.state == "failed"
    assert "nowhere" in outcome.message


def test_the_cells_of_a_process_that_was_killed_are_taken_over(
    campaign: Campaign, tmp_path: Path
) -> None:
    cell = cell_of("supervised")
    (tmp_path / "notes").mkdir()
    endless = dataclasses.replace(campaign.scale, train={**campaign.scale.train, "steps": 10**6})
    there = Campaign(campaign.folder, endless, campaign.data, "cpu")
    barrier = PROCESSES.Barrier(1)  # kept until the process has it
    process = PROCESSES.Process(
        target=campaign_process.work, args=(there, [cell], tmp_path / "notes", barrier)
    )
    process.start()
    folder = campaign.folder_of(cell)
    while newest_step(folder / "checkpoints") is None:
        assert process.is_alive()
        time.sleep(0.02)
    assert there.state(cell) == "running"
    assert there.attempt(cell, train_nothing).state == "in use"
    process.kill()
    process.join()
    assert there.state(cell) == "started"
    steps: list[int] = []

    def first_row(cell: Cell, prepared: Prepared, rows: Iterator[Row]) -> None:
        steps.extend((prepared.step, next(rows)["step"]))

    there.attempt(cell, first_row)
    assert 0 < steps[0] < steps[1]
