"""Campaigns on CIFAR-10's files of noise: one that has ended, one that has begun."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import COLUMN, rows_of, run

from daso.reproduce.campaign import Campaign
from daso.reproduce.cells import table_cells
from daso.reproduce.compare import write_tables
from daso.reproduce.paper_tables import paper_tables


@pytest.fixture(scope="session")
def finished(cifar10_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """Return a campaign with two methods of Table 1 on two seeds."""
    campaign = Campaign.open(tmp_path_factory.mktemp("campaign"), "smoke", cifar10_folder, "cpu")
    campaign.begin()
    table = paper_tables()[1]
    cells, _ = table_cells(
        [table.part(rows_of(1, "supervised", "fixmatch+daso"), [COLUMN])], [0, 1]
    )
    assert run(campaign, cells) == []
    write_tables(campaign, [table])
    return campaign


@pytest.fixture
def campaign(cifar10_folder: Path, tmp_path: Path) -> Campaign:
    campaign = Campaign.open(tmp_path / "campaign", "smoke", cifar10_folder, "cpu")
    campaign.begin()
    return campaign
