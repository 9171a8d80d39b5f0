"""Campaigns whose folders are damaged, of other data or of another configuration: what is named, and what that costs."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

from campaigns import COLUMN, PRESET, cell_of, rows_of, run, train_nothing
from rights import as_nobody

from daso.data.benchmarks.cifar import CIFAR10
from daso.files import read_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import table_cells
from daso.reproduce.compare import accuracies, compare, figure_groups
from daso.reproduce.paper_tables import paper_tables


def test_a_folder_of_another_configuration_is_an_error_that_says_so(
    finished: Campaign, tmp_path: Path
) -> None:
    longer = dataclasses.replace(finished.scale, train={**finished.scale.train, "steps": 17})
    other = Campaign(finished.folder, longer, finished.data, "cpu")
    cell = cell_of("fixmatch+daso")
    assert other.state(cell) == "of another configuration"
    [(_, outcome)] = run(other, [cell], train_nothing)
    assert outcome.state == "failed"
    assert "--steps is 16 there and 17 here" in outcome.message
    values, wrong = accuracies(other, rows_of(1, "fixmatch+daso")[0], COLUMN)
    assert values == {}
    assert all("--steps" in reason for reason in wrong)
    comparison, problems = compare(
        other, paper_tables()[1].part(rows_of(1, "fixmatch+daso"), [COLUMN])
    )
    assert comparison.rows[0][2][0].values == {}
    assert "--steps" in problems[0]


def test_a_changed_default_of_a_method_is_noticed(finished: Campaign, campaign: Campaign) -> None:
    cell = cell_of("supervised")
    saved = read_json(finished.folder_of(cell_of("fixmatch+daso")) / "config.json")
    campaign.folder_of(cell).mkdir(parents=True)
    (campaign.folder_of(cell) / "config.json").write_text(json.dumps(saved))
    assert campaign.state(cell) == "of another configuration"


def test_a_folder_set_aside_and_a_damaged_summary_are_no_complete_runs(
    finished: Campaign, tmp_path: Path
) -> None:
    campaign = Campaign.open(
        Path(shutil.copytree(finished.folder, tmp_path / "copy")), data=finished.data
    )
    cells, _ = table_cells(
        [paper_tables()[1].part(rows_of(1, "fixmatch+daso")[:1], [COLUMN])], [0, 1]
    )
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
        comparison, problems = compare(campaign, paper_tables()[1].part([row], [COLUMN]))
        assert comparison.rows[0][2][0].values.keys() == {1}
        assert str(path) in problems[0]
        groups, wrong = figure_groups(campaign, PRESET, {"DASO": "fixmatch+daso"})
        assert [found.path for found in groups["DASO"]] == [campaign.folder_of(good)]
        assert str(path) in wrong[0]
    path.parent.rename(path.parent.with_name("seed-0.damaged"))
    assert run(campaign, [bad, good]) == []


def test_sources_that_cannot_be_opened_are_named_once(tmp_path: Path) -> None:
    cells = [cell_of("supervised"), cell_of("supervised", 1), cell_of("fixmatch")]
    damaged = tmp_path / "cifar-10-batches-py"
    damaged.mkdir()
    for name in (*CIFAR10.batches, CIFAR10.meta):
        (damaged / name).write_bytes(b"damaged")
    [reason] = Campaign.open(tmp_path / "out", data=tmp_path).unreadable(cells, keep=False).values()
    assert "fetch the file again" in reason
    damaged.chmod(0)
    campaign = Campaign.open(tmp_path / "out", data=damaged)
    try:
        with as_nobody(tmp_path):
            reasons = campaign.unreadable(cells, keep=False)
    finally:
        damaged.chmod(0o755)
    assert list(reasons) == ["cifar10"]
    assert f"{damaged}" in reasons["cifar10"]
    assert "grant access" in reasons["cifar10"]


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
    table = paper_tables()[1].part(rows_of(1, "supervised", "fixmatch+daso"), [COLUMN])
    assert compare(campaign, table)[1] == []
    here, there = (
        campaign.folder_of(cell_of("fixmatch+daso")),
        campaign.folder_of(cell_of("supervised")),
    )
    pools = read_json(here / "data.json")["images_fingerprints"]
    change_data(here, "images_fingerprints", {**pools, "test": "0" * 16})
    [problem] = compare(campaign, table)[1]
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
