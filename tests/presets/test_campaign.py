"""Campaigns: what is run, what is not run again, and what comes out, on a few images and steps."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import pickle
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import campaign_process
import numpy as np
import pytest
from forked import PROCESSES

from daso.compose import Recipe
from daso.errors import OptionError, RunError
from daso.files import Row, read_json
from daso.presets.benchmarks import PRESETS
from daso.reproduce import scales
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, Outcome, run_cells, table_cells
from daso.reproduce.compare import accuracies, compare, figure_groups, write_tables
from daso.reproduce.paper_tables import TableColumn, TableRow, paper_tables, variant
from daso.reproduce.scales import SCALES
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import lock_run
from daso.train.prepare import Prepared

PRESET = "cifar10-n500-g100"
COLUMN = TableColumn(PRESET, PRESET, "median_of_last")


def rows_of(number: int, *methods: str) -> list[TableRow]:
    return [row for row in paper_tables()[number].rows if row.text in methods]


def consume(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
    for _ in rows:
        pass


def train_nothing(cell: Cell, prepared: object, rows: Iterator[Row]) -> None:
    pytest.fail(f"{cell} was trained")


def in_turn(campaign: Campaign, watch: Any = consume) -> Any:
    def attempts(cells: Sequence[Cell]) -> Iterator[tuple[Cell, Outcome]]:
        return ((cell, campaign.attempt(cell, watch)) for cell in cells)

    return attempts


def run(
    campaign: Campaign, cells: Sequence[Cell], watch: Any = consume
) -> list[tuple[Cell, Outcome]]:
    return run_cells(cells, in_turn(campaign, watch), lambda cell, outcome: None)


def cell_of(method: str, seed: int = 0, **options: object) -> Cell:
    row = TableRow(method, method, method, options, False)
    return Cell(PRESET, variant(row, PRESETS[PRESET]), seed)


@pytest.fixture(scope="module")
def finished(cifar10_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Return a campaign with two methods of Table 1 on two seeds."""
    campaign = Campaign.open(tmp_path_factory.mktemp("campaign"), "smoke", cifar10_folder, "cpu")
    campaign.begin()
    cells, _ = table_cells([(rows_of(1, "supervised", "fixmatch+daso"), [COLUMN])], [0, 1])
    assert run(campaign, cells) == []
    write_tables(campaign, [paper_tables()[1]])
    return campaign


@pytest.fixture
def campaign(cifar10_folder: Path, tmp_path: Path) -> Campaign:
    campaign = Campaign.open(tmp_path / "campaign", "smoke", cifar10_folder, "cpu")
    campaign.begin()
    return campaign


def test_mean_and_deviation_of_the_runs(finished: Campaign) -> None:
    row = rows_of(1, "fixmatch+daso")[0]
    folder = finished.folder / "runs" / PRESET / "fixmatch+daso"
    summaries = [read_json(folder / f"seed-{seed}" / "summary.json") for seed in (0, 1)]
    values = [100 * summary["median_of_last"]["accuracy"] for summary in summaries]
    comparison, problems = compare(finished, paper_tables()[1], [row], [COLUMN])
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
    parts = [(rows_of(n, "fixmatch+daso"), [COLUMN]) for n in (1, 5, 6)]
    parts.append((rows_of(8, "fixmatch+daso dist_temperature=1.5"), [COLUMN]))
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


def test_a_folder_of_another_configuration_is_an_error_that_says_so(
    finished: Campaign, tmp_path: Path
) -> None:
    longer = dataclasses.replace(finished.scale, train={**finished.scale.train, "steps": 17})
    other = Campaign(finished.folder, longer, finished.data, "cpu")
    cell = cell_of("fixmatch+daso")
    assert other.state(cell) == "of another configuration"
    [(_, outcome)] = run(other, [cell], train_nothing)
    assert outcome.state == "failed"
    assert "train.steps is 16 there and 17 here" in outcome.message
    values, wrong = accuracies(other, rows_of(1, "fixmatch+daso")[0], COLUMN)
    assert values == {}
    assert all("train.steps" in reason for reason in wrong)
    comparison, problems = compare(other, paper_tables()[1], rows_of(1, "fixmatch+daso"), [COLUMN])
    assert comparison.rows[0][2][0].values == {}
    assert "train.steps" in problems[0]


def test_a_changed_default_of_a_method_is_noticed(finished: Campaign, campaign: Campaign) -> None:
    cell = cell_of("supervised")
    saved = read_json(finished.folder_of(cell_of("fixmatch+daso")) / "config.json")
    campaign.folder_of(cell).mkdir(parents=True)
    (campaign.folder_of(cell) / "config.json").write_text(json.dumps(saved))
    assert campaign.state(cell) == "of another configuration"


def test_rows_of_unknown_methods_are_named(campaign: Campaign) -> None:
    rows = [
        TableRow("Magic", "fixmatch+magic", "fixmatch+magic", {}, False),
        TableRow("Unknown", "-", None, {}, False),
    ]
    cells, refused = table_cells([([*rows, *rows_of(1, "supervised")], [COLUMN])], [0])
    assert [cell.variant.name for cell in cells] == ["supervised"]
    [reason] = refused
    assert reason.startswith("Magic: unknown part 'magic'")
    assert (
        accuracies(campaign, rows[0], COLUMN) == accuracies(campaign, rows[1], COLUMN) == ({}, [])
    )


def test_a_campaign_keeps_its_scale(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="--scale smoke"):
        Campaign.open(campaign.folder, "lite")
    shorter = dataclasses.replace(SCALES["smoke"], train={"steps": 1})
    monkeypatch.setitem(scales.SCALES, "smoke", shorter)
    again = Campaign.open(campaign.folder)
    assert again.scale == campaign.scale
    assert again.data == campaign.data
    (campaign.folder / "campaign.json").write_text('{"scale": {"speed": 1}}')
    with pytest.raises(RunError, match="speed"):
        Campaign.open(campaign.folder)


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


def test_scales() -> None:
    lite = SCALES["lite"].configure(
        PRESETS[PRESET], "fixmatch+daso", {"dist_temperature": 1.5}, seed=7
    )
    assert (lite.split.labeled_head, lite.split.unlabeled_head, lite.split.holdout) == (
        500,
        4000,
        1000,
    )
    assert (lite.train.network, lite.train.steps, lite.train.batch) == ("wrn-10-2", 4000, 32)
    assert (lite.train.precision, lite.train.evaluate_every, lite.train.seed) == (
        "auto",
        200,
        7,
    )
    assert SCALES["lite"].configure(PRESETS["stl10-n150-g10"], "fixmatch", {}).split.holdout == 500
    stl10 = SCALES["full"].configure(PRESETS["stl10-n450-g20"], "fixmatch", {})
    assert (stl10.train.steps, stl10.train.network, stl10.train.resolution) == (
        250_000,
        "wrn-28-2",
        32,
    )
    assert (stl10.augmentation.cutout, stl10.split.unlabeled_head) == (16, None)


def test_lengths_that_are_told_in_epochs_belong_to_the_full_scale() -> None:
    aves = PRESETS["semi-aves"]
    full = SCALES["full"].configure(aves, "fixmatch+daso", {}).method_options
    lite = SCALES["lite"].configure(aves, "fixmatch+daso", {}).method_options
    defaults = Recipe.parse("fixmatch+daso").hyperparameters()
    for name in ("warmup_steps", "histogram_period"):
        assert full[name] != defaults[name].default == lite[name]
    supervised = SCALES["full"].configure(aves, "supervised", {})
    assert supervised.train.steps == aves.defaults.supervised["steps"]
    assert supervised.train.learning_rate is None


def test_a_folder_set_aside_and_a_damaged_summary_are_no_complete_runs(
    finished: Campaign, tmp_path: Path
) -> None:
    campaign = Campaign.open(
        Path(shutil.copytree(finished.folder, tmp_path / "copy")), data=finished.data
    )
    cells, _ = table_cells([([rows_of(1, "fixmatch+daso")[0]], [COLUMN])], [0, 1])
    campaign.folder_of(cells[0]).rename(campaign.folder_of(cells[0]).with_name("seed-0.old"))
    (campaign.folder_of(cells[1]) / "summary.json").write_text("{")
    assert [campaign.state(cell) for cell in cells] == ["missing", "started"]
    assert campaign.complete_runs(PRESET, cells[0].variant) == ({}, [])


def copied(finished: Campaign, where: Path) -> Campaign:
    """Return a copy of a campaign, to damage."""
    return Campaign.open(
        Path(shutil.copytree(finished.folder, where)), data=finished.data, device="cpu"
    )


def test_a_damaged_configuration_is_named_and_costs_its_cell_only(
    finished: Campaign, tmp_path: Path
) -> None:
    campaign = copied(finished, tmp_path / "copy")
    bad, good = cell_of("fixmatch+daso"), cell_of("fixmatch+daso", 1)
    path = campaign.folder_of(bad) / "config.json"
    row = rows_of(1, "fixmatch+daso")[0]
    for damage in ("{", "[]", '{"source": "cifar10"}', '{"method": 3, "source": ""}'):
        path.write_text(damage)
        assert [campaign.state(cell) for cell in (bad, good)] == ["damaged", "complete"]
        [(left, outcome)] = run(campaign, [bad, good], train_nothing)
        assert (left, outcome.state) == (bad, "failed")
        assert str(path) in outcome.message
        assert f"Move {path.parent} away" in outcome.message
        comparison, problems = compare(campaign, paper_tables()[1], [row], [COLUMN])
        assert comparison.rows[0][2][0].values.keys() == {1}
        assert str(path) in problems[0]
        groups, wrong = figure_groups(campaign, PRESET, {"DASO": "fixmatch+daso"})
        assert [found.path for found in groups["DASO"]] == [campaign.folder_of(good)]
        assert str(path) in wrong[0]
    path.parent.rename(path.parent.with_name("seed-0.damaged"))
    assert run(campaign, [bad, good]) == []


def test_a_summary_without_its_numbers_is_named(finished: Campaign, tmp_path: Path) -> None:
    campaign = copied(finished, tmp_path / "copy")
    path = campaign.folder_of(cell_of("supervised")) / "summary.json"
    path.write_text(json.dumps({"accuracy": 0.5}))
    values, problems = accuracies(campaign, rows_of(1, "supervised")[0], COLUMN)
    assert values.keys() == {1}
    assert problems[0].startswith(f"{path} is damaged")


def change_data(folder: Path, key: str, value: object) -> None:
    data = read_json(folder / "data.json")
    (folder / "data.json").write_text(json.dumps({**data, key: value}))


def test_runs_of_a_setting_and_a_seed_must_share_their_data(
    finished: Campaign, tmp_path: Path, cifar10_folder: Path
) -> None:
    campaign = copied(finished, tmp_path / "copy")
    table, rows = paper_tables()[1], rows_of(1, "supervised", "fixmatch+daso")
    assert compare(campaign, table, rows, [COLUMN])[1] == []
    here, there = (
        campaign.folder_of(cell_of("fixmatch+daso")),
        campaign.folder_of(cell_of("supervised")),
    )
    pools = read_json(here / "data.json")["images_fingerprints"]
    change_data(here, "images_fingerprints", {**pools, "test": "0" * 16})
    [problem] = compare(campaign, table, rows, [COLUMN])[1]
    assert (
        f"{here} and {there} cannot be compared: its test images are {pools['test']} there"
        in problem
    )
    # Another machine's files of the data set differ: its runs are not begun.
    shutil.copytree(cifar10_folder, tmp_path / "data")
    batch = next((tmp_path / "data").rglob("data_batch_1"))
    content = pickle.loads(batch.read_bytes(), encoding="bytes")
    content[b"data"] = 255 - content[b"data"]
    batch.write_bytes(pickle.dumps(content, 2))
    change_data(here, "images_fingerprints", pools)
    campaign.data = tmp_path / "data"
    cell = cell_of("fixmatch")
    [(_, outcome)] = run(campaign, [cell], train_nothing)
    assert outcome.state == "failed"
    assert f"its data is not that of {here}" in outcome.message
    assert "its labeled images are" in outcome.message
    change_data(here, "images_fingerprints", {**pools, "test": "0" * 16})
    other_seed = dataclasses.replace(cell, seed=cell.seed + 1)
    [(_, outcome)] = run(campaign, [other_seed], train_nothing)
    assert outcome.state == "failed"
    assert "its test images are" in outcome.message
    change_data(here, "images_fingerprints", pools)
    assert not (campaign.folder_of(cell) / "config.json").exists()
    campaign.data = cifar10_folder
    assert run(campaign, [cell]) == []


def test_the_last_columns_of_table_4_are_the_last_evaluation_and_the_others_the_median(
    tmp_path: Path,
) -> None:
    campaign = Campaign.open(tmp_path / "campaign", "full")
    campaign.begin()
    row = rows_of(4, "fixmatch+daso")[0]
    for number, preset in enumerate(("semi-aves", "semi-aves-open")):
        cell = Cell(preset, variant(row, PRESETS[preset]), 0)
        folder = campaign.folder_of(cell)
        folder.mkdir(parents=True)
        config = campaign.configure(cell).to_dict()
        known = Recipe.parse(cell.variant.method).hyperparameters()
        config["method_options"] = {name: p.default for name, p in known.items()} | config[
            "method_options"
        ]
        (folder / "config.json").write_text(json.dumps(config))
        median, last = 0.5 + number / 10, 0.55 + number / 10
        summary = {
            "accuracy": median,
            "median_of_last": {"accuracy": median},
            "last": {"accuracy": last},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        (folder / "data.json").write_text("{}")
    table = paper_tables()[4]
    comparison, problems = compare(campaign, table, [row], table.columns)
    assert problems == []
    assert [entry.mean for entry in comparison.rows[0][2]] == pytest.approx([55, 50, 65, 60])
    assert "last evaluation and median of the last evaluations" in comparison.notes[0]


def test_a_campaign_that_another_process_has_just_begun_keeps_its_scale(tmp_path: Path) -> None:
    first, second, third = (
        Campaign.open(tmp_path / "out", scale) for scale in ("smoke", "lite", "smoke")
    )
    first.begin()
    with pytest.raises(OptionError, match="campaign of --scale smoke"):
        second.begin()
    third.begin()
    assert read_json(tmp_path / "out" / "campaign.json")["scale"]["name"] == "smoke"


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(RunError, match="NFS without lockd"):
        Campaign.open(tmp_path / "campaign", "smoke").begin()


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


def test_networks_of_table_4_start_from_given_weights_as_the_papers_do(tmp_path: Path) -> None:
    weights = tmp_path / "resnet34.safetensors"
    table = paper_tables()[4]
    cells, _ = table_cells([(table.rows, table.columns[:1])], [0])
    plain = Campaign.open(tmp_path / "out", "full")
    plain.begin()
    assert {plain.configure(cell).train.weights for cell in cells} == {None}
    assert "start from ImageNet weights" in " ".join(
        compare(plain, table, [], table.columns)[0].notes
    )
    Campaign.open(tmp_path / "out", weights=weights).begin()
    again = Campaign.open(tmp_path / "out")  # it is noted in the folder
    for cell in cells:
        train = again.configure(cell).train
        assert train.weights == str(weights)
        rate = 0.1 if cell.variant.method == "supervised" else 0.04
        assert (
            train.learning_rate or Recipe.parse(cell.variant.method).method.learning_rate
        ) == rate
        assert train.backbone_rate == rate  # the encoder does not learn slower than its head
    assert again.configure(cell_of("fixmatch")).train.weights is None
    assert "start from ImageNet weights" not in " ".join(
        compare(again, table, [], table.columns)[0].notes
    )
    with pytest.raises(OptionError, match=r"resnet34\.safetensors"):
        Campaign.open(tmp_path / "out", weights=tmp_path / "other.safetensors")
    weights.write_bytes(b"the first")
    Campaign.open(tmp_path / "other", weights=weights).begin()
    Campaign.open(tmp_path / "other").begin()
    weights.write_bytes(b"another")
    with pytest.raises(OptionError, match="has changed"):
        Campaign.open(tmp_path / "other").begin()
    smoke = Campaign.open(tmp_path / "smoke", "smoke", weights=weights)
    assert {smoke.configure(cell).train.weights for cell in cells} == {None}
