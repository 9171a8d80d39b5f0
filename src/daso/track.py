"""Trackers: the rows of a run for TensorBoard, Weights & Biases and MLflow, beside ``metrics.jsonl``.

A tracker never stops or delays a training: each works in a thread of its own, and one that fails is left off.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import logging
import math
import os
import queue
import re
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from daso.errors import DasoError, MissingDependencyError
from daso.files import Row, flatten, read_json, save_json

Kind = Literal["tensorboard", "wandb", "mlflow"]
Numbers = dict[str, float]

STATE = "trackers.json"
"""Names the tracker's run, so that a resumed run goes on in it."""
PER_CLASS = ("recall", "distribution")
MOST_CLASSES = 50
"""With more classes numbers per class stay in ``metrics.jsonl``."""
PATIENCE = 60.0
"""Seconds to wait, at the end of a run, for a tracker that is still busy."""
SILENCE = 2.0
"""Of them, those without a word."""
THREAD = "track-"
"""How the names of the trackers' threads begin."""


def numbers_of(row: Row, class_names: Sequence[str]) -> Numbers:
    """Return the finite numbers of a row by path, e.g. ``"test/balanced_accuracy"``, ``"train/losses/labeled"``.

    Of the lists per class recall and distribution are kept, as ``"test/recall/CLASS"``, for up to 50 classes.
    """
    top = "train/" if row["event"] == "train" else ""
    content = {
        name: value for name, value in row.items() if name not in ("event", "step", "warnings")
    }
    return dict(_walk(content, top, class_names))


def _walk(value: Any, path: str, class_names: Sequence[str]) -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            deeper = isinstance(item, dict | list)
            yield from _walk(item, f"{path}{name}/" if deeper else f"{path}{name}", class_names)
    elif isinstance(value, list):
        named = path.rstrip("/").rpartition("/")[2] in PER_CLASS and len(value) == len(class_names)
        if named and len(value) <= MOST_CLASSES:
            for name, item in zip(class_names, value, strict=True):
                yield from _walk(item, f"{path}{name}", class_names)
    elif isinstance(value, int | float) and math.isfinite(value):
        yield path, float(value)


class Tracker(Protocol):
    """Where rows go.

    Attributes:
        state: names the tracker's run for the next process, as JSON values.
        place: where to look at it.
    """

    state: dict[str, Any]
    place: str

    def write(self, step: int, numbers: Numbers) -> None:
        """Add numbers."""

    def note(self, step: int, text: str) -> None:
        """Add a warning."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Writes event files into the run folder: ``tensorboard --logdir RUN``."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.place = str(folder / "tensorboard")
        self.state: dict[str, Any] = {}
        # Of what a killed process wrote after its last checkpoint TensorBoard shows only what comes now.
        self._writer: Any = SummaryWriter(self.place, purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```", 0)

    def write(self, step: int, numbers: Numbers) -> None:
        """Add a scalar for each."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def note(self, step: int, text: str) -> None:
        """Add a text."""
        self._writer.add_text("warnings", text, step)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """Logs to Weights & Biases: project ``daso`` or ``WANDB_PROJECT``; ``WANDB_MODE=offline`` needs no network."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
        if not offline and not wandb.login(prompt=False):
            raise RuntimeError(
                "there is no API key; 'wandb login' asks for it, WANDB_MODE=offline needs none"
            )
        self._run: Any = wandb.init(
            project=state.get("project") or os.environ.get("WANDB_PROJECT", "daso"),
            id=state.get("id"),
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=config,
            settings=wandb.Settings(init_timeout=60, console="off", silent=True),
        )
        # A resumed run comes to steps that were logged before, which W&B's own counter does not allow.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.state = {"id": self._run.id, "project": self._run.project}
        self.place = str(self._run.dir if offline else self._run.url)

    def write(self, step: int, numbers: Numbers) -> None:
        """Log them together."""
        self._run.log({"step": step, **numbers})

    def note(self, step: int, text: str) -> None:
        """Put a warning into the run's summary."""
        self._run.summary[f"warning, step {step}"] = text

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """Logs to MLflow: experiment ``daso`` or ``MLFLOW_EXPERIMENT_NAME``, at ``MLFLOW_TRACKING_URI`` or its default."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        import mlflow
        from mlflow.entities import Metric, Param

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            logging.getLogger("mlflow").setLevel(
                logging.WARNING
            )  # the making of its tables is no news
        self._metric = Metric
        uri = state.get("tracking_uri") or mlflow.get_tracking_uri()
        with _one_at_a_time() if uri.startswith("sqlite") else contextlib.nullcontext():
            try:
                self._client = mlflow.MlflowClient(tracking_uri=uri)
                self._run: str = state.get("run_id") or self._begin(folder)
                self._client.update_run(self._run, status="RUNNING")
            except mlflow.MlflowException as error:
                if (allowed := "MLFLOW_ALLOW_FILE_STORE") in str(error):
                    raise RuntimeError(
                        f"MLflow writes into a folder ({uri}) only with {allowed}=true; a file such as "
                        f"MLFLOW_TRACKING_URI=sqlite:///mlflow.db, its own default, needs no permission"
                    ) from error
                raise
        if "run_id" not in state:
            params = [
                Param(_key(name), str(value)[:500]) for name, value in flatten(config).items()
            ]
            for start in range(0, len(params), 100):
                self._client.log_batch(self._run, params=params[start : start + 100])
        self.state = {"run_id": self._run, "tracking_uri": uri}
        self.place = f"{uri}, run {self._run}"

    def _begin(self, folder: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "daso")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        return str(self._client.create_run(experiment, run_name=folder.name).info.run_id)

    def write(self, step: int, numbers: Numbers) -> None:
        """Log them together, a thousand at a time."""
        now = int(1000 * time.time())
        metrics = [self._metric(_key(name), value, now, step) for name, value in numbers.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def note(self, step: int, text: str) -> None:
        """Put a warning into a tag of the run."""
        self._client.set_tag(self._run, f"warning, step {step}".replace(",", ""), text[:5000])

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep the processes of this user from making MLflow's tables all at once, which breaks its database."""
    path = Path(tempfile.gettempdir()) / f"daso-mlflow-{os.getuid()}.lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _key(name: str) -> str:
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII)


TRACKERS: dict[str, Callable[[Path, Row, Row, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def check_installed(kinds: Iterable[str]) -> None:
    """Check, before anything is trained, that the packages of trackers are there.

    Raises:
        MissingDependencyError: one is not.
    """
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise MissingDependencyError(
                f"--track {kind} needs the package {kind}, which is not installed: pip install {kind}, or "
                f"'daso[track]' for all trackers"
            )


def used_before(folder: Path) -> tuple[str, ...]:
    """Return the trackers that a run has used, to go on with."""
    try:
        return tuple(kind for kind in read_json(folder / STATE) if kind in TRACKERS)
    except DasoError:
        return ()


def tracked(
    rows: Iterable[Row],
    kinds: Sequence[str],
    folder: Path,
    say: Callable[[str], None],
    step: int = 0,
) -> Iterator[Row]:
    """Yield the rows of a run, and hand them to trackers on the way; see ``Tracking``."""
    tracking = Tracking(kinds, folder, say, step)
    try:
        for row in rows:
            tracking.write(row)
            yield row
    finally:
        tracking.close()


def unfinished() -> list[str]:
    """Return the trackers of this process that are still busy: it cannot be sure to end by itself."""
    names = [thread.name for thread in threading.enumerate()]
    return [name.removeprefix(THREAD) for name in names if name.startswith(THREAD)]


class Tracking:
    """Hands the rows of a run to trackers.

    Args:
        kinds: of trackers.
        folder: of the run, which holds its ``config.json`` and ``data.json`` once it yields rows.
        say: is told where to look, and once what is wrong with a tracker; from other threads too.
        step: at which a resumed run goes on.
    """

    def __init__(
        self, kinds: Iterable[str], folder: Path, say: Callable[[str], None], step: int = 0
    ) -> None:
        self.folder = folder
        self.say = say
        self.step = step
        self._lock = threading.Lock()
        self._queues: dict[str, queue.SimpleQueue[Row | None]] = {
            k: queue.SimpleQueue() for k in kinds
        }
        self._threads = {
            kind: threading.Thread(
                target=self._work, args=(kind, rows), name=THREAD + kind, daemon=True
            )
            for kind, rows in self._queues.items()
        }
        for thread in self._threads.values():
            thread.start()

    def write(self, row: Row) -> None:
        """Hand on a row; returns at once."""
        for rows in self._queues.values():
            rows.put(row)

    def close(self) -> None:
        """Wait until the trackers have written what they were given, or for a minute, or until Ctrl-C."""
        for rows in self._queues.values():
            rows.put(None)
        begun = time.monotonic()
        with contextlib.suppress(KeyboardInterrupt):
            if busy := self._busy(begun + min(SILENCE, PATIENCE)):
                self.say(
                    f"waiting up to {PATIENCE:.0f} s for tracker {' and '.join(busy)}; Ctrl-C: no longer"
                )
            self._busy(begun + PATIENCE)
        for kind in self._busy(begun):
            self.say(
                f"tracker {kind} is still busy after {time.monotonic() - begun:.0f} s and is left: what it has not "
                f"written yet will be missing there; {self._kept()}"
            )

    def _busy(self, end: float) -> list[str]:
        """Return the trackers that are not done, having waited for them up to a time of ``time.monotonic``."""
        for thread in self._threads.values():
            thread.join(max(0.0, end - time.monotonic()))
        return [kind for kind, thread in self._threads.items() if thread.is_alive()]

    def _kept(self) -> str:
        return f"all numbers are in {self.folder / 'metrics.jsonl'}"

    def _work(self, kind: str, rows: queue.SimpleQueue[Row | None]) -> None:
        row = rows.get()
        if row is None:
            return
        try:
            tracker = self._open(kind)
            class_names = read_json(self.folder / "data.json")["class_names"]
            while row is not None:
                tracker.write(row["step"], numbers_of(row, class_names))
                for warning in row.get("warnings", ()):
                    tracker.note(row["step"], f"{warning['message']}. {warning['advice']}")
                row = rows.get()
            tracker.close()
        except Exception as error:  # whatever goes wrong in a tracker must not stop the training
            reason = textwrap.shorten(str(error), 300) or type(error).__name__
            self.say(f"tracker {kind} failed and is left off: {reason}; {self._kept()}")

    def _open(self, kind: str) -> Tracker:
        state = self._states().get(kind, {})
        tracker = TRACKERS[kind](
            self.folder, read_json(self.folder / "config.json"), state, self.step
        )
        with self._lock:
            save_json(self.folder / STATE, {**self._states(), kind: tracker.state})
        self.say(f"tracker {kind}: {tracker.place}")
        return tracker

    def _states(self) -> Row:
        return read_json(self.folder / STATE) if (self.folder / STATE).exists() else {}
