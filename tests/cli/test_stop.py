"""Signals that ask a training to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daso.cli import main
from daso.cli.processes.signals import SIGNALS, Stop


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Whatever a test does, signals are taken as before when it ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_asks_and_the_second_leaves_at_once(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daso.cli.processes.signals.REPEAT_SECONDS", 0.0)
    for number in SIGNALS:
        stop = Stop()
        with stop.listening():
            assert not stop()
            os.kill(os.getpid(), number)
            assert stop()
            assert stop.status == 128 + number
            assert "stopping" in capfd.readouterr().err
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == number


def test_what_a_scheduler_and_torchrun_send_one_after_the_other_is_one_request(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stop = Stop()
    with stop.listening():
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            now[0] += 0.5
        assert stop.signal == signal.SIGTERM
        assert capfd.readouterr().err.count("stopping") == 1
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_signals_are_taken_as_before_afterwards() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    stop = Stop()
    with pytest.raises(ZeroDivisionError), stop.listening():
        raise ZeroDivisionError
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    assert not stop()


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = Stop()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop()


def test_in_another_thread_nothing_is_listened_to() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    found: list[bool] = []

    def listen() -> None:
        stop = Stop()
        with stop.listening():
            found.append([signal.getsignal(number) for number in SIGNALS] == before and not stop())

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [True]


def test_a_stopped_training_tells_one_number_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class AfterAWhile(Stop):
        asked = 0

        def __call__(self) -> bool:
            self.asked += 1
            if self.asked == 7:
                self.signal = signal.SIGTERM
            return self.signal is not None

    monkeypatch.setattr("daso.cli.training.session.Stop", AfterAWhile)
    run = tmp_path / "run"
    options = (
        "--network small-4 --batch 4 --steps 60 --evaluate-every 40 --device cpu --log-every 5"
    )
    assert main(["train", "digits", *options.split(), "--out", str(run)]) == 128 + signal.SIGTERM
    (saved,) = (
        json.loads(path.read_text())["step"] for path in (run / "checkpoints").glob("step-*.json")
    )
    assert 0 < saved < 60
    said = capsys.readouterr().err
    assert f"step {saved} of 60" in said
    assert f"daso resume {run}" in said
    assert " steps in " not in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_outside_a_training_ends_a_verb_with_a_word(
    number: int,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from daso.cli.verbs.listings import methods

    def work(argv: list[str]) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as interrupt:
            interrupt.args = ("what is done is kept",)
            raise

    monkeypatch.setattr(methods, "run", work)
    assert main(["methods"]) == status
    assert capsys.readouterr().err == "daso: stopped; what is done is kept\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
