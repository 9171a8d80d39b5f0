"""The processes of a campaign: one that dies costs its cell only, and none outlives the campaign."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace
from typing import Any, cast

import pytest
from stub_campaign import StubCampaign

from daso.cli import workers
from daso.cli.workers import Workers
from daso.presets.campaign import Campaign

CAMPAIGN = cast(Campaign, StubCampaign())


def test_a_process_that_dies_costs_its_cell_only() -> None:
    cells: Any = ["a", "killed", "b"]
    with Workers(CAMPAIGN, 1) as pool:
        outcomes: Any = dict(pool.attempts(cells))
    assert outcomes["killed"].state == "failed"
    assert "was killed" in outcomes["killed"].message
    assert [outcomes[cell].message for cell in "ab"] == ["a: 1 thread", "b: 1 thread"]
    assert multiprocessing.active_children() == []


def test_leaving_stops_processes_wherever_they_are() -> None:
    cells: Any = ["long", "short"]
    with Workers(CAMPAIGN, 2) as pool:
        first: Any = next(pool.attempts(cells))
        assert first[0] == "short"
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("alive", "consumed"), [(True, 3), (False, 1)])
def test_a_process_whose_campaign_was_killed_stops(
    alive: bool, consumed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = SimpleNamespace(is_alive=lambda: alive)
    monkeypatch.setattr(workers.multiprocessing, "parent_process", lambda: parent)
    rows: Any = iter(range(3))
    nothing: Any = None
    if alive:
        workers._watch(nothing, nothing, rows)
    else:
        with pytest.raises(SystemExit):
            workers._watch(nothing, nothing, rows)
    assert len(list(rows)) == 3 - consumed
