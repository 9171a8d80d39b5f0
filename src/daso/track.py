"""Send the rows of a run to TensorBoard, Weights & Biases and MLflow.

A tracker that fails is dropped; the training continues. The trackers' own libraries send the
numbers in the background and decide how long to wait for a server.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import tempfile
import textwrap
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from daso.errors import DasoError, MissingDependencyError
from daso.files import Row, flatten, printable, read_json, save_json

Kind = Literal["tensorboard", "wandb", "mlflow"]
Numbers = dict[str, float]

STATE = "trackers.json"
"""Names the tracker's run, so that a resumed run continues it."""
PER_CLASS = ("recall", "distribution")
MOST_CLASSES = 50
"""With more classes, numbers per class stay in ``metrics.jsonl``."""
TIMEOUT_SECONDS = 60
"""Time that W&B has to start a run and to finish it."""
LONGEST_KEY = 250
"""Characters of a name that MLflow accepts."""
REQUEST_TIMEOUT_SECONDS = 10
"""Default time of a request to an MLflow server, which is repeated twice."""


def numbers_of(row: Row, class_names: Sequence[str]) -> Numbers:
    """Return the finite numbers of a row by path, e.g. ``"test/balanced_accuracy"``.

    Recall and distribution per class are kept for up to 50 classes, as ``"test/recall/CLASS"``.
    Numbers of a training row begin with ``"train/"``.
    """
    skipped = ("event", "step", "warnings")
    content = {name: value for name, value in row.items() if name not in skipped}
    return dict(_walk(content, "train" if row["event"] == "train" else "", class_names))


def _walk(value: Any, path: str, class_names: Sequence[str]) -> Iterator[tuple[str, float]]:
    if isinstance(value, list):
        name = path.rpartition("/")[2]
        if name not in PER_CLASS or not len(value) == len(class_names) <= MOST_CLASSES:
            return
        value = dict(zip(class_names, value, strict=True))
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, f"{path}/{name}" if path else name, class_names)
    elif isinstance(value, int | float) and math.isfinite(value):
        yield path, float(value)


class TensorBoard:
    """Writes event files into the run folder: ``tensorboard --logdir RUN``."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.place = str(folder / "tensorboard")
        self.state: dict[str, Any] = {}
        # Hides what a killed process wrote after its last checkpoint.
        self._writer: Any = SummaryWriter(self.place, purge_step=step + 1 if step else None)
        if not step:
            self._writer.add_text("config", f"```\n{json.dumps(config, indent=1)}\n```", 0)

    def write(self, step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def note(self, step: int, text: str) -> None:
        self._writer.add_text("warnings", text, step)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Logs to Weights & Biases: project ``daso`` or ``WANDB_PROJECT``."""

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        import wandb

        offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
        if not offline and not wandb.login(prompt=False):
            raise RuntimeError("no API key; run 'wandb login', or set WANDB_MODE=offline")
        settings = wandb.Settings(init_timeout=TIMEOUT_SECONDS, console="off", silent=True)
        if "finish_timeout" in wandb.Settings.model_fields:  # older releases wait without a limit
            settings.finish_timeout = TIMEOUT_SECONDS
        self._run: Any = wandb.init(
            project=state.get("project") or os.environ.get("WANDB_PROJECT", "daso"),
            id=state.get("id"),
            resume="allow",
            name=printable(folder.name),
            dir=str(folder),
            config=config,
            settings=settings,
        )
        # A resumed run repeats logged steps, which W&B's own counter forbids.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.state = {"id": self._run.id, "project": self._run.project}
        self.place = str(self._run.dir if offline else self._run.url)

    def write(self, step: int, numbers: Numbers) -> None:
        self._run.log({"step": step, **numbers})

    def note(self, step: int, text: str) -> None:
        self._run.summary[f"warning, step {step}"] = text

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """Logs to MLflow: experiment ``daso`` or ``MLFLOW_EXPERIMENT_NAME``.

    The server is ``MLFLOW_TRACKING_URI``, or MLflow's default.
    """

    def __init__(self, folder: Path, config: Row, state: Row, step: int) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_TIMEOUT_SECONDS))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        import mlflow
        from mlflow.entities import Metric, Param

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            logging.getLogger("mlflow").setLevel(logging.WARNING)  # silences the table setup
        self._metric = Metric
        uri = state.get("tracking_uri") or mlflow.get_tracking_uri()
        with _one_at_a_time() if uri.startswith("sqlite") else contextlib.nullcontext():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._run: str = state.get("run_id") or self._begin(folder)
            self._client.update_run(self._run, status="RUNNING")
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
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        return str(self._client.create_run(number, run_name=printable(folder.name)).info.run_id)

    def write(self, step: int, numbers: Numbers) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(_key(name), value, now, step) for name, value in numbers.items()]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def note(self, step: int, text: str) -> None:
        self._client.set_tag(self._run, f"warning, step {step}", text[:5000])

    def close(self) -> None:
        self._client.set_terminated(self._run)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep this user's processes from creating MLflow's tables at once, which breaks them."""
    path = Path(tempfile.gettempdir()) / f"daso-mlflow-{os.getuid()}.lock"
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _key(name: str) -> str:
    """Return a name that MLflow accepts; different names stay different."""
    parts = (re.sub(r"[^\w\-. ]", lambda c: f"_{ord(c[0]):x}", part) for part in name.split("/"))
    key = "/".join(part if part.strip(".") else f"_{part}" for part in parts)
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return f"{key[: LONGEST_KEY - len(digest) - 1]}_{digest}"


TRACKERS: dict[str, Callable[[Path, Row, Row, int], Any]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}
"""Called with the run folder, configuration, state and the step at which a resumed run continues.

``state``, JSON values, identifies a tracker's run for a later process; ``place`` is its address.
"""


def check_installed(kinds: Iterable[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        MissingDependencyError: a package is missing.
    """
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise MissingDependencyError(
                f"--track {kind}: the package {kind} is not installed; pip install {kind}, or "
                f"'daso[track]' for all trackers"
            )


def used_before(folder: Path) -> tuple[str, ...]:
    """Return the trackers that a run has used."""
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
) -> Generator[Row, None, None]:
    """Yield the rows of a run and send them to trackers; see ``Tracking``."""
    tracking = Tracking(kinds, folder, say, step)
    try:
        for row in rows:
            tracking.write(row)
            yield row
    finally:
        tracking.close()


class Tracking:
    """Sends the rows of a run to trackers; one that fails is dropped.

    Args:
        folder: of the run; it holds ``config.json`` and ``data.json`` once there is a row.
        say: called with where to see the run, and with what is wrong with a tracker.
        step: at which a resumed run continues.
    """

    def __init__(
        self, kinds: Iterable[str], folder: Path, say: Callable[[str], None], step: int = 0
    ) -> None:
        self.folder = folder
        self.say = say
        self.step = step
        self._kinds = list(kinds)
        self._open: dict[str, Any] = {}

    def write(self, row: Row) -> None:
        """Send a row; the first one opens the trackers."""
        for kind in list(self._kinds):
            with self._dropped_if_it_fails(kind):
                tracker = self._open.get(kind) or self._start(kind)
                class_names = [*map(printable, read_json(self.folder / "data.json")["class_names"])]
                tracker.write(row["step"], numbers_of(row, class_names))
                for warning in row.get("warnings", ()):
                    tracker.note(row["step"], f"{warning['message']}. {warning['advice']}")

    def close(self) -> None:
        """Let the trackers finish; Ctrl-C ends their time."""
        for kind, tracker in list(self._open.items()):
            with self._dropped_if_it_fails(kind):
                try:
                    tracker.close()
                except KeyboardInterrupt:
                    raise RuntimeError("stopped by Ctrl-C before it was done") from None
        self._kinds, self._open = [], {}

    def _start(self, kind: str) -> Any:
        path = self.folder / STATE
        states = read_json(path) if path.exists() else {}
        config = read_json(self.folder / "config.json")
        tracker = TRACKERS[kind](self.folder, config, states.get(kind, {}), self.step)
        self._open[kind] = tracker
        save_json(path, {**states, kind: tracker.state})
        self.say(f"tracker {kind}: {tracker.place}")
        return tracker

    @contextlib.contextmanager
    def _dropped_if_it_fails(self, kind: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever fails in a tracker must not stop the training
            reason = textwrap.shorten(str(error), 500) or type(error).__name__
            self.say(
                f"tracker {kind} failed and is dropped: {reason}; "
                f"all numbers are in {self.folder / 'metrics.jsonl'}"
            )
            self._kinds.remove(kind)
            self._open.pop(kind, None)
