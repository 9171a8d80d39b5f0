"""Train again from the page: ``daso train`` in a process of its own, followed by its files."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daso.errors import DasoError, InUseError, RunError
from daso.files import Row, lock_holder
from daso.report.runs import RunFolder, as_array, at, number, read_run
from daso.report.uncertainty import interval
from daso.report.wording import duration
from daso.train.folder.lock import CONFIG, NAME, lock_folder

PERIOD_SECONDS = 0.5
"""Time between two looks at a training."""
MOST_POINTS = 200
"""Points of a curve that the page draws."""
LAST_LINES = 12
"""Lines of a failed training's output that are shown."""


class Trainer:
    """Trains round after round in *folder*/round-1, round-2, ...

    A training outlives this process: at the next start it is followed, or its result is taken.

    Args:
        arguments: of ``daso train``, without ``--out``.
        folder: of the rounds.
        finished: called with a finished run, in a thread; takes its model into use.
        known: run folders that were taken into use before, as the journal has them.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        finished: Callable[[Path, Row], None],
        known: Sequence[str] = (),
    ) -> None:
        self._arguments, self.folder, self._finished = arguments, folder, finished
        self._lock = threading.Lock()
        self._state: Row = {"state": "idle"}
        self._process: subprocess.Popen[bytes] | None = None
        self._canceled = False
        self._thread: threading.Thread | None = None
        newest = self.rounds()[-1] if self.rounds() else None
        if newest is None or str(newest.resolve()) in known:
            return
        if (newest / "summary.json").exists() or _in_use(newest):
            self._begin(newest)
        elif (newest / CONFIG).exists():
            self._state = {**_numbers(newest), "state": "stopped"}

    def rounds(self) -> list[Path]:
        """Return the folders of the rounds, the oldest first."""
        there = self.folder.glob("round-*")
        return sorted((path for path in there if path.is_dir() and _number(path)), key=_number)

    def state(self) -> Row:
        """Return what the page shows: ``state`` and, if a training was begun, its numbers.

        The state is idle, training, taking (its model into use), done, stopped, or failed.
        """
        with self._lock:
            told = dict(self._state)
            if told["state"] in ("idle", "done"):
                told["command"] = shlex.join(["daso", *self._words(self._next())])
            return told

    def _next(self) -> Path:
        rounds = self.rounds()
        return self.folder / f"round-{_number(rounds[-1]) + 1 if rounds else 1}"

    def _words(self, run: Path) -> list[str]:
        return ["train", *self._arguments, "--out", str(run)]

    def start(self) -> None:
        """Begin a training, or resume one that was stopped.

        Raises:
            RunError: one is running, or the process cannot be started.
        """
        with self._lock:
            if self._state["state"] in ("training", "taking"):
                raise RunError("a training is running; cancel it, or wait for it")
            rounds = self.rounds()
            if self._state["state"] == "stopped" and rounds:
                run = rounds[-1]
                words = ["resume", str(run), "--quiet"]
            else:
                run = self._next()
                words = [*self._words(run), "--quiet"]
            self._canceled = False
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with _log(run).open("wb") as log:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", "daso", *words],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
            except OSError as error:
                raise RunError(f"the training cannot be started: {error}") from error
            self._begin(run)

    def cancel(self) -> None:
        """Ask the training to stop after a checkpoint; it can be resumed."""
        with self._lock:
            if self._state["state"] != "training":
                raise RunError("no training is running")
            self._canceled = True
            self._state["canceling"] = True
            pid = self._process.pid if self._process else _holder(Path(self._state["run"]))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGINT)

    def close(self, seconds: float = 20.0) -> None:
        """Stop a training with a checkpoint, and wait some time for it."""
        with contextlib.suppress(RunError):
            self.cancel()
        if self._thread is not None:
            self._thread.join(seconds)

    def _begin(self, run: Path) -> None:
        """Follow a training that was started now, or by an earlier process."""
        self._state = {"state": "training", "run": str(run), "step": 0, "total": None}
        self._thread = threading.Thread(target=self._watch, args=(run,), daemon=True)
        self._thread.start()

    def _watch(self, run: Path) -> None:
        waiting = threading.Event()
        seen = None
        while self._runs(run):
            if (now := _changed(run)) != seen:
                seen = now
                self._update(**_numbers(run))
            waiting.wait(PERIOD_SECONDS)
        numbers = _numbers(run)
        if (run / "summary.json").exists():
            self._update(**numbers, state="taking")
            try:
                self._finished(run, result(run))
            except Exception as error:  # the page must tell, whatever it is
                self._update(state="failed", error=f"its model cannot be used: {error}")
                return
            self._update(state="done")
        elif self._canceled:
            state = "stopped" if (run / CONFIG).exists() else "idle"
            self._update(**numbers, state=state, canceling=False)
        else:
            self._update(**numbers, state="failed", error=_last_lines(run))

    def _runs(self, run: Path) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        return not (run / "summary.json").exists() and _in_use(run)

    def _update(self, **values: Any) -> None:
        with self._lock:
            self._state.update(values)


def _number(run: Path) -> int:
    match = re.fullmatch(r"round-(\d{1,9})", run.name)
    return int(match[1]) if match else 0


def result(run: Path) -> Row:
    """Return the numbers of a finished run for the journal."""
    read = read_run(run)
    told: Row = {
        "run": str(run.resolve()),
        "classes": read.class_names,
        "labels": [int(count) for count in read.data["labeled_counts"]],
        "measured_on": read.measured_on,
        "seconds": number(read.summary.get("seconds")),
    }
    if read.measured_on is None or read.labeled_counts is None:
        return told
    recall = read.recall()
    counts = read.data[f"{read.measured_on}_counts"]
    few = np.isin(np.arange(len(recall)), read.groups["few"]).astype(float)
    images = as_array(counts)
    return {
        **told,
        "balanced_accuracy": number(read.summary.get("balanced_accuracy")),
        "interval": interval(recall, images),
        "recall_few": number(at(read.summary, "median_of_last", "recall_few")),
        "recall_few_interval": interval(recall, images, few),
        "recall": [number(float(value)) for value in recall],
        "measured": [int(count) for count in counts],
    }


def _numbers(run: Path) -> Row:
    """Return step, length, time left and curves of a run, as far as its files have them."""
    try:
        read = read_run(run)
    except DasoError:  # not there yet
        return {"run": str(run)}
    total = int(read.config["train"]["steps"])
    step = max((int(row["step"]) for row in read.rows), default=0)
    train = [row for row in read.rows if row["event"] == "train"]
    rate = number(train[-1].get("steps_per_second")) if train else None
    left = duration((total - step) / rate) if rate and step < total else None
    return {
        "run": str(run),
        "method": read.method,
        "step": step,
        "total": max(total, step),
        "left": left,
        "losses": _curve(read, "loss", event="train"),
        "balanced_accuracy": _curve(read, read.measured_on or "", "balanced_accuracy"),
        "measured_on": read.measured_on,
    }


def _curve(read: RunFolder, *path: str, event: str = "evaluate") -> list[list[float]]:
    steps, values = read.over_time(*path, event=event)
    every = max(1, -(-len(steps) // MOST_POINTS))
    return [[int(s), float(v)] for s, v in zip(steps, values, strict=True)][::-every][::-1]


def _changed(run: Path) -> tuple[int, int] | None:
    try:
        status = (run / "metrics.jsonl").stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _log(run: Path) -> Path:
    return run.with_name(f"{run.name}.log")


def _last_lines(run: Path) -> str:
    try:
        lines = _log(run).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "the training ended without a word"
    return "\n".join(lines[-LAST_LINES:]).strip()


def _in_use(run: Path) -> bool:
    try:
        if (run / NAME).exists():
            lock_folder(run).close()
    except RunError as error:
        return isinstance(error, InUseError)
    return False


def _holder(run: Path) -> int | None:
    """Return the process of this computer that trains in a run folder."""
    try:
        with (run / NAME).open("rb", buffering=0) as lock:
            match = re.fullmatch(r"(\d+) on (.*)", lock_holder(lock))
    except OSError:
        return None
    return int(match[1]) if match and match[2] == platform.node() else None
