"""A campaign: one folder with the runs that fill tables, shared by any number of processes."""

from __future__ import annotations

import fcntl
import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from daso.data.open import USUAL_PLACES, open_source
from daso.data.places import absolute_place
from daso.data.source import Source
from daso.errors import DasoError, DataError, InUseError, OptionError, RunError, explained
from daso.files import Row, make_folder, read_json, remove_leftovers, save_json
from daso.presets.benchmarks import PRESETS
from daso.report.results import append_row, has_row, result_row
from daso.report.runs import read_run
from daso.reproduce.cells import Cell, Outcome
from daso.reproduce.paper_tables import Variant
from daso.reproduce.same_run import check_same, differing_data, is_complete, saved_config
from daso.reproduce.scales import SCALES, Scale
from daso.track import tracked
from daso.train.config import RunConfig
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import lock_run
from daso.train.loop import never
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from daso.train.run_data import describe_data
from daso.train.step.state import choose_device

DESCRIPTION = "campaign.json"
BEFORE_CONFIG = ("environment.json", "data.json")
"""Files that a run writes before its configuration. Killed in between, it has not started."""
NOT_STARTED = "not started"

State = Literal["complete", "running", "started", "missing", "of another configuration", "damaged"]
Watch = Callable[[Cell, Prepared, Iterator[Row]], object]


@dataclass
class Campaign:
    """The runs of one scale, in one folder.

    Attributes:
        weights: safetensors file that networks start from in settings where the paper's do; None:
            from random ones.
    """

    folder: Path
    scale: Scale
    data: Path | None = None
    device: str = "auto"
    track: Sequence[str] = ()
    weights: Path | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        scale: str | None = None,
        data: Path | None = None,
        device: str = "auto",
        track: Sequence[str] = (),
        weights: Path | None = None,
    ) -> Campaign:
        """Return the campaign of a folder, or a new one, which writes nothing yet.

        Raises:
            OptionError: the folder's campaign has another scale, or starts from other weights.
            RunError: its description is damaged.
        """
        if not (folder / DESCRIPTION).exists():
            return cls(folder, SCALES[scale or "full"], data, device, track, weights)
        saved = read_json(folder / DESCRIPTION)
        try:
            definition = Scale(**saved["scale"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{folder / DESCRIPTION} has no valid scale: {error}") from error
        if scale is not None and scale != definition.name:
            raise OptionError(
                f"{folder} holds a campaign of --scale {definition.name}; use another --out"
            )
        saved_data, saved_weights = (
            None if saved.get(name) is None else Path(saved[name]) for name in ("data", "weights")
        )
        if weights and saved_weights and weights.resolve() != saved_weights:
            raise OptionError(
                f"{folder} holds a campaign that starts from {saved_weights}; use another --out"
            )
        return cls(folder, definition, data or saved_data, device, track, saved_weights or weights)

    def begin(self) -> None:
        """Create the folder and describe the campaign in it, unless it is there.

        What the scale leaves to the machine is decided here, once for all runs.

        Raises:
            OptionError: another process has just started one of another scale, or from other
                weights.
            RunError: the folder cannot be written.
        """
        make_folder(self.folder)
        with self.alone():
            absolute, saved = self.with_absolute_paths(), Row()
            if (self.folder / DESCRIPTION).exists():
                there = Campaign.open(self.folder, self.scale.name, weights=self.weights)
                self.scale, saved = there.scale, read_json(self.folder / DESCRIPTION)
            else:
                self.scale = self.scale.on(choose_device(self.device))
            data = None if absolute.data is None else str(absolute.data)
            description = saved or {"scale": self.scale.to_dict(), "data": data}
            if absolute.weights is not None:
                checksum = _checksum(absolute.weights)
                if checksum != saved.get("weights_sha256", checksum):
                    raise OptionError(
                        f"{absolute.weights} has changed since the campaign began; restore it, or "
                        "use another --out"
                    )
                weights = {"weights": str(absolute.weights), "weights_sha256": checksum}
                description = {**description, **weights}
            if description != saved:
                save_json(self.folder / DESCRIPTION, description)

    def with_absolute_paths(self) -> Campaign:
        """Return the same campaign for a process in another folder."""
        data, weights = (
            None if path is None else Path(absolute_place(path))
            for path in (self.data, self.weights)
        )
        return replace(self, folder=self.folder.resolve(), data=data, weights=weights)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock of the campaign: one process at a time runs such a block."""
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise RunError(
                    f"cannot lock {self.folder}: {error.strerror}. Processes share a campaign by "
                    "locks, which this file system lacks (NFS without lockd, Lustre without -o "
                    "flock); use another --out"
                ) from error
            yield

    def configure(self, cell: Cell) -> RunConfig:
        preset, variant = PRESETS[cell.preset], cell.variant
        config = self.scale.configure(
            preset, variant.method, variant.options, seed=cell.seed, device=self.device
        )
        network = preset.defaults.options.get("network")
        if self.weights is None or not preset.pretrained or config.train.network != network:
            return config
        return replace(config, train=replace(config.train, weights=str(self.weights.resolve())))

    def folder_of(self, cell: Cell) -> Path:
        return self.folder / "runs" / cell.preset / cell.variant.name / f"seed-{cell.seed}"

    def _lock_of(self, cell: Cell) -> Path:
        return self.folder_of(cell).with_name(f".seed-{cell.seed}.lock")

    def state(self, cell: Cell) -> State:
        folder = self.folder_of(cell)
        begun = (folder / "config.json").exists()
        if begun:
            try:
                saved = saved_config(folder)
            except RunError:
                return "damaged"
            try:
                check_same(self.configure(cell), saved, folder)
            except RunError:
                return "of another configuration"
            if is_complete(folder):
                return "complete"
        if self._lock_of(cell).exists():
            try:
                lock_run(self._lock_of(cell)).close()
            except InUseError:
                return "running"
        return "started" if begun else "missing"

    def attempt(self, cell: Cell, watch: Watch, stop: Callable[[], bool] = never) -> Outcome:
        """Run or resume a cell, unless it is complete or another process runs it.

        *watch* consumes the rows of the training. *stop* is polled after every step; if true, the
        run is saved and ends.
        """
        if stop():
            return Outcome("stopped", NOT_STARTED)
        try:
            self._lock_of(cell).parent.mkdir(parents=True, exist_ok=True)
            with lock_run(self._lock_of(cell)):
                return self._run(cell, watch, stop)
        except InUseError as error:
            return Outcome("in use", str(error))
        except Exception as error:  # such as too little memory: the other cells go on
            return Outcome("failed", explained(error))

    def unreadable(self, cells: Sequence[Cell], *, keep: bool) -> dict[str, str]:
        """Open the sources of cells; return which cannot be opened, and why.

        With *keep*, what was read stays in memory for the cells that this process runs.
        """
        reasons = {}
        for name in dict.fromkeys(PRESETS[cell.preset].source for cell in cells):
            try:
                _open(name, self.data)
            except (DasoError, OSError) as error:
                reasons[name] = explained(error)
            if not keep:
                _open.cache_clear()
        return reasons

    def _run(self, cell: Cell, watch: Watch, stop: Callable[[], bool]) -> Outcome:
        config, folder = self.configure(cell), self.folder_of(cell)
        started = (folder / "config.json").exists()
        if started:
            check_same(config, saved_config(folder), folder)
        if not is_complete(folder):
            source = _open(config.source, self.data)
            if started:
                data = None if source.place is None else Path(source.place)
                device = str(choose_device(self.device))
                prepared, rows = resume_run(folder, data=data, device=device, stop=stop)
            else:
                if folder.exists():
                    remove_leftovers(folder)
                    for name in BEFORE_CONFIG:
                        (folder / name).unlink(missing_ok=True)
                prepared = prepare(config, source)
                self._check_data(cell, prepared)
                rows = train_run(prepared, folder, stop)
            warn = partial(print, f"{cell}:", file=sys.stderr)
            watch(cell, prepared, tracked(rows, self.track, folder, warn, prepared.step))
            if stop() and not is_complete(folder):
                step = newest_step(folder / "checkpoints")
                message = NOT_STARTED if step is None else f"saved at step {step:,}"
                return Outcome("stopped", message)
        self.record(cell)
        return Outcome("complete", f"{100 * read_json(folder / 'summary.json')['accuracy']:.1f}%")

    def _check_data(self, cell: Cell, prepared: Prepared) -> None:
        data = describe_data(prepared.data)
        tested = {"images_fingerprints": {"test": data["images_fingerprints"]["test"]}}
        for other in sorted(self.folder.glob(f"runs/{cell.preset}/*/seed-*")):
            here = data if other.name == f"seed-{cell.seed}" else tested
            if differences := differing_data(other, here):
                raise RunError(
                    f"its data is not that of {other}: {differences} here. Runs of one setting "
                    "must share their test images, and those of one seed all their data; check "
                    f"the files of {prepared.config.source}"
                )

    def record(self, cell: Cell) -> None:
        """Append the row of a complete cell to ``results.csv``, unless it is there."""
        path = self.folder / "results.csv"
        key = {"setting": cell.preset, "variant": cell.variant.name, "seed": str(cell.seed)}
        if not has_row(path, key):
            append_row(path, {**key, **result_row(read_run(self.folder_of(cell)))}, key)

    def complete_runs(self, preset: str, variant: Variant) -> tuple[dict[int, Path], list[str]]:
        """Return a variant's complete runs in a setting by seed, and what is wrong with others."""
        runs, problems = {}, []
        for folder in (self.folder / "runs" / preset / variant.name).glob("seed-*"):
            if re.fullmatch(r"seed-\d+", folder.name) and is_complete(folder):
                seed = int(folder.name.removeprefix("seed-"))
                try:
                    config = self.configure(Cell(preset, variant, seed))
                    check_same(config, saved_config(folder), folder)
                    runs[seed] = folder
                except RunError as error:
                    problems.append(str(error))
        return dict(sorted(runs.items())), problems


def _checksum(path: Path) -> str:
    """Return a file's SHA-256; "" for a missing file, which fails the runs that need it."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=2)
def _open(name: str, data: Path | None) -> Source:
    """Open a source in DATA/name, DATA/usual folder, DATA, or the usual places."""
    places: list[Path | None] = [None]
    if data is not None:
        usual = (data / place.name for place in USUAL_PLACES.get(name, ()))
        places = [data / name, *usual, data, None]
    errors: dict[Path | None, DataError] = {}
    for place in places:
        try:
            return open_source(name, data=place)
        except DataError as error:
            errors[place] = error
    raise errors[data]
