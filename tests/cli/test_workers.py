"""The processes of a campaign: one that dies costs its cell only, all are told to stop, and none outlives it."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import stub_campaign
from forked import PROCESSES, finish, start
from stub_campaign import StubCampaign

from daso.cli.processes.workers import Workers
from daso.reproduce.campaign import Campaign

CAMPAIGN = cast(Campaign, StubCampaign())


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the processes from one that has imported torch."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: PROCESSES)


@pytest.mark.usefixtures("forked")
def test_a_process_that_dies_costs_its_cell_only() -> None:
    cells: Any = ["a", "killed", "b"]
    with Workers(CAMPAIGN, 1) as pool:
        outcomes: Any = dict(pool.attempts(cells))
    assert outcomes["killed"].state == "failed"
    assert "was killed" in outcomes["killed"].message
    assert [outcomes[cell].message for cell in "ab"] == ["a: 1 thread", "b: 1 thread"]
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("forked")
def test_a_process_that_dies_while_it_has_nothing_to_do_costs_nothing() -> None:
    first, second = cast("list[Any]", ["a"]), cast("list[Any]", ["b", "c"])
    with Workers(CAMPAIGN, 1) as pool:
        assert len(list(pool.attempts(first))) == 1
        [process] = multiprocessing.active_children()
        process.kill()
        process.join()
        outcomes: Any = dict(pool.attempts(second))
    assert {cell: outcome.state for cell, outcome in outcomes.items()} == {
        "b": "complete",
        "c": "complete",
    }


@pytest.mark.usefixtures("forked")
def test_leaving_stops_processes_wherever_they_are() -> None:
    cells: Any = ["long", "short"]
    with Workers(CAMPAIGN, 2) as pool:
        cell: Any = next(pool.attempts(cells))[0]
        assert cell == "short"
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("forked")
def test_a_request_to_stop_reaches_every_process_and_nothing_else_is_begun(tmp_path: Path) -> None:
    cells: Any = ["until-1", "until-2", "until-3"]
    campaign = cast(Campaign, StubCampaign(tmp_path))

    def both_work() -> bool:
        return len(list(tmp_path.glob("until-*"))) == 2

    with Workers(campaign, 2, both_work) as pool:
        outcomes: Any = dict(pool.attempts(cells))
    assert {cell: outcome.state for cell, outcome in outcomes.items()} == {
        "until-1": "stopped",
        "until-2": "stopped",
    }
    assert len(list(tmp_path.glob("*.saved"))) == 2


def test_processes_that_are_told_before_they_listen_stop_too(tmp_path: Path) -> None:
    cells: Any = ["until-1", "until-2"]
    with Workers(
        cast(Campaign, StubCampaign(tmp_path)), 2, lambda: len(pool._processes) == 2
    ) as pool:
        outcomes: Any = dict(pool.attempts(cells))
    # Whichever is over first; and none was killed.
    assert sorted(outcome.message for outcome in outcomes.values()) == ["until-1", "until-2"]


def test_processes_whose_campaign_was_killed_save_and_leave(tmp_path: Path) -> None:
    campaign = start(stub_campaign.run, tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("until-*"))) == 2)
    campaign.kill()
    finish(campaign)
    processes = [int(path.suffix[1:]) for path in tmp_path.glob("until-?.[0-9]*")]
    assert os.getpid() not in processes
    wait_for(lambda: not any(map(is_alive, processes)))
    assert sorted(path.name for path in tmp_path.glob("*.saved")) == [
        "until-1.saved",
        "until-2.saved",
    ]
