"""Campaigns at every scale: what a run of a setting is, and that a campaign keeps its scale and its weights."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from campaigns import PRESET, cell_of, rows_of

from daso.compose import Recipe
from daso.errors import OptionError, RunError
from daso.files import read_json
from daso.presets.benchmarks import PRESETS
from daso.reproduce import scales
from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import Cell, table_cells
from daso.reproduce.compare import compare
from daso.reproduce.paper_tables import paper_tables, variant
from daso.reproduce.scales import SCALES


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
    comparison, problems = compare(campaign, table.part([row], table.columns))
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


def test_networks_of_table_4_start_from_given_weights_as_the_papers_do(tmp_path: Path) -> None:
    weights = tmp_path / "resnet34.safetensors"
    table = paper_tables()[4]
    cells, _ = table_cells([table.part(table.rows, table.columns[:1])], [0])
    plain = Campaign.open(tmp_path / "out", "full")
    plain.begin()
    assert {plain.configure(cell).train.weights for cell in cells} == {None}
    assert "start from ImageNet weights" in " ".join(
        compare(plain, table.part([], table.columns))[0].notes
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
        compare(again, table.part([], table.columns))[0].notes
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
