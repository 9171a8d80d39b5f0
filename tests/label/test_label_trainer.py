"""Trainings that the page starts: followed, canceled, resumed, failed, and taken up by a later start."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daso.errors import RunError
from daso.label.training import Trainer

ARGUMENTS = (
    "digits --network small-4 --method supervised+la --device cpu --evaluate-every 5 --steps"
)


def make(
    folder: Path, steps: int, known: tuple[str, ...] = (), *more: str
) -> tuple[Trainer, list[Any]]:
    """Return a trainer on the digits, and the list of what it has finished."""
    finished: list[Any] = []
    words = [*ARGUMENTS.split(), str(steps), *more]
    return Trainer(words, folder, lambda run, told: finished.append((run, told)), known), finished


def until(trainer: Trainer, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first state that is wanted; the test's timeout ends the wait."""
    while not wanted(state := trainer.state()):
        time.sleep(0.02)
    return state


def ended(state: dict[str, Any]) -> bool:
    return state["state"] not in ("training", "taking")


def test_a_training_is_followed_and_its_numbers_are_told(tmp_path: Path) -> None:
    trainer, finished = make(tmp_path, 20)
    assert trainer.state()["state"] == "idle"
    assert "round-1" in trainer.state()["command"]
    trainer.start()
    with pytest.raises(RunError, match="running"):
        trainer.start()
    state = until(trainer, ended)
    assert state["state"] == "done", state
    assert (state["step"], state["total"]) == (20, 20)
    assert state["losses"][-1][0] == 20
    assert len(state["balanced_accuracy"]) >= 4
    ((run, told),) = finished
    assert run == tmp_path / "round-1"
    assert told["labels"] == sorted(told["labels"], reverse=True)
    assert len(told["labels"]) == len(told["classes"]) == 10
    measured = [r for r in told["recall"] if r is not None]
    assert told["balanced_accuracy"] == pytest.approx(sum(measured) / 10, abs=0.02)
    assert told["recall_few"] == pytest.approx(sum(told["recall"][-3:]) / 3)
    assert 0 < told["interval"] < 0.2
    assert "round-2" in trainer.state()["command"]

    later, again = make(tmp_path, 20)  # the journal does not know the round: its model is taken
    assert until(later, ended)["state"] == "done"
    assert again == finished
    assert make(tmp_path, 20, (str(run.resolve()),))[0].state()["state"] == "idle"


def test_a_training_is_canceled_and_resumed(tmp_path: Path) -> None:
    trainer, finished = make(tmp_path, 150)
    with pytest.raises(RunError, match="no training"):
        trainer.cancel()
    trainer.start()
    until(trainer, lambda state: state.get("step", 0) > 5)
    trainer.cancel()
    state = until(trainer, ended)
    assert state["state"] == "stopped"
    assert 0 < state["step"] < 150
    assert finished == []
    later, finished = make(tmp_path, 150)  # after a restart, too
    assert later.state()["state"] == "stopped"
    later.start()
    assert until(later, ended)["state"] == "done"
    assert [run.name for run, _ in finished] == ["round-1"]


def test_a_failed_training_says_why(tmp_path: Path) -> None:
    trainer, finished = make(tmp_path, 5, (), "--batch", "0")
    trainer.start()
    state = until(trainer, ended)
    assert state["state"] == "failed"
    assert "batch" in state["error"]
    assert finished == []
    broken = Trainer(
        [*ARGUMENTS.split(), "5"], tmp_path / "other", lambda run, told: 1 / 0  # type: ignore[arg-type,return-value]
    )  # fmt: skip
    broken.start()
    state = until(broken, ended)
    assert state["state"] == "failed"
    assert "division" in state["error"]
