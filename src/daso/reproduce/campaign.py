"""A campaign: a folder with the runs that fill tables, which any number of processes can work on together."""

from __future__ import annotations

import fcntl
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from daso.data.open import USUAL_PLACES, open_source
from daso.data.source import Source
from daso.errors import DasoError, DataError, InUseError, OptionError, RunError
from daso.files import Row, read_json, remove_leftovers, save_json
from daso.presets.benchmarks import PRESETS
from daso.report.results import append_row, has_row, result_row
from daso.report.runs import read_run
from daso.reproduce.cells import Cell
from daso.reproduce.paper_tables import Variant
from daso.reproduce.same_run import check_same, differing_data, is_complete, saved_config
from daso.reproduce.scales import SCALES, Scale
from daso.track import tracked
from daso.train.config import RunConfig
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import lock_file
from daso.train.loop import never
from daso.train.prepare import Prepared, describe_data, prepare
from daso.train.run import resume_run, train_run
from daso.train.step.state import choose_device

DESCRIPTION = "campaign.json"
BEFORE_CONFIG = ("environment.json", "data.json")
"""What a run writes before its configuration; killed there, it has not begun."""

NOT_BEGUN = "not begun"

State = Literal["complete", "running", "started", "missing", "of another configuration", "damaged"]
Watch = Callable[[Cell, Prepared, Iterator[Row]], object]


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: its accuracy in %, or why it is not complete.

    ``"in use"``: another process is at it; ``"stopped"``: it was asked to stop, and can go on.
    """

    state: Literal["complete", "in use", "stopped", "failed"]
    message: str


class Campaign:
    """The runs of one scale, in one folder.

    Args:
        folder: of the campaign.
        scale: of its runs.
        data: folder of the data sets' files, or None.
        device: to train on.
        track: trackers that the numbers of a run are sent to.
        weights: safetensors file that networks start from in settings where the paper's do; None: from random ones.
    """

    def __init__(
        self,
        folder: Path,
        scale: Scale,
        data: Path | None = None,
        device: str = "auto",
        track: Sequence[str] = (),
        weights: Path | None = None,
    ) -> None:
        self.folder = folder
        self.scale = scale
        self.data = data
        self.device = device
        self.track = track
        self.weights = weights

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
        """Return the campaign of a folder as it began, or a new one, of which nothing is written yet.

        Raises:
            OptionError: the folder's campaign is of another scale, or starts from other weights.
            RunError: its description is damaged.
        """
        if not (folder / DESCRIPTION).exists():
            return cls(folder, SCALES[scale or "full"], data, device, track, weights)
        saved = read_json(folder / DESCRIPTION)
        try:
            definition = Scale(**saved["scale"])
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{folder / DESCRIPTION} does not say what the scale is: {error}"
            ) from error
        if scale is not None and scale != definition.name:
            raise OptionError(
                f"{folder} holds a campaign of --scale {definition.name}; give another folder with --out"
            )
        place, start = saved.get("data"), saved.get("weights")
        if weights is not None and start not in (None, str(weights.resolve())):
            raise OptionError(
                f"{folder} holds a campaign that starts from {start}; give another folder with --out"
            )
        if start is not None:
            weights = Path(start)
        return cls(
            folder,
            definition,
            data or (None if place is None else Path(place)),
            device,
            track,
            weights,
        )

    def begin(self) -> None:
        """Make the folder and write down what the campaign is, unless that was done before.

        Raises:
            OptionError: another process has just begun one of another scale, or from other weights, there.
            RunError: nothing can be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {self.folder}: {error.strerror}") from error
        with self.alone():
            place = None if self.data is None else str(self.data.resolve())
            known: Row = {}
            if (self.folder / DESCRIPTION).exists():
                Campaign.open(self.folder, self.scale.name, weights=self.weights)
                known = read_json(self.folder / DESCRIPTION)
            description = known or {"scale": self.scale.to_dict(), "data": place}
            if self.weights is not None:
                description = {**description, "weights": str(self.weights.resolve())}
            if description != known:
                save_json(self.folder / DESCRIPTION, description)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is in such a block of this campaign, and keep others waiting.

        Raises:
            RunError: the file system has no locks.
        """
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise RunError(
                    f"cannot lock {self.folder}: {error.strerror}. Processes share a campaign by locks, which this "
                    f"file system does not have (NFS without lockd, Lustre without -o flock); put --out elsewhere"
                ) from error
            yield

    def configure(self, cell: Cell) -> RunConfig:
        """Return the configuration of a cell."""
        preset, variant = PRESETS[cell.preset], cell.variant
        config = self.scale.configure(
            preset, variant.method, variant.options, seed=cell.seed, device=self.device
        )
        if (
            self.weights is None
            or not preset.pretrained
            or config.train.network != preset.defaults.network
        ):
            return config
        return replace(config, train=replace(config.train, weights=str(self.weights.resolve())))

    def folder_of(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.folder / "runs" / cell.preset / cell.variant.name / f"seed-{cell.seed}"

    def _lock_of(self, cell: Cell) -> Path:
        return self.folder_of(cell).with_name(f".seed-{cell.seed}.lock")

    def state(self, cell: Cell) -> State:
        """Return how far a cell is."""
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
                lock_file(self._lock_of(cell)).close()
            except InUseError:
                return "running"
        return "started" if begun else "missing"

    def attempt(self, cell: Cell, watch: Watch, stop: Callable[[], bool] = never) -> Outcome:
        """Run a cell, or the rest of it, unless it is complete or another process is at it.

        Args:
            cell: the cell.
            watch: consumes the rows of the training.
            stop: is asked after every step whether to save a checkpoint and end here.
        """
        if stop():
            return Outcome("stopped", NOT_BEGUN)
        try:
            self._lock_of(cell).parent.mkdir(parents=True, exist_ok=True)
            with lock_file(self._lock_of(cell)):
                return self._run(cell, watch, stop)
        except InUseError as error:
            return Outcome("in use", str(error))
        except DasoError as error:
            return Outcome("failed", str(error))
        except (
            Exception
        ) as error:  # what one cell meets, such as too little memory, must not stop the others
            return Outcome("failed", f"{type(error).__name__}: {error}")

    def _run(self, cell: Cell, watch: Watch, stop: Callable[[], bool]) -> Outcome:
        config, folder = self.configure(cell), self.folder_of(cell)
        if (folder / "config.json").exists():
            check_same(config, saved_config(folder), folder)
        if not is_complete(folder):
            source = _open(config.source, self.data)
            if (folder / "config.json").exists():
                data = None if source.place is None else Path(source.place)
                device = str(choose_device(self.device))
                prepared, rows = resume_run(folder, data=data, device=device, stop=stop)
            else:
                if folder.exists():
                    remove_leftovers(folder)
                    for name in BEFORE_CONFIG:
                        (folder / name).unlink(missing_ok=True)
                prepared = prepare(config, source)
                found = describe_data(prepared.data)
                for other in sorted(self.folder.glob(f"runs/{cell.preset}/*/{folder.name}")):
                    if differences := differing_data(other, found):
                        raise RunError(
                            f"its data is not that of {other}: {differences} here. Runs of a setting and a seed are "
                            f"compared, so they must share it: see to the files of {config.source}"
                        )
                rows = train_run(prepared, folder, stop)

            def say(text: str) -> None:
                print(f"{cell}: {text}", file=sys.stderr)

            watch(cell, prepared, tracked(rows, self.track, folder, say, prepared.step))
            if stop() and not is_complete(folder):
                step = newest_step(folder / "checkpoints")
                return Outcome("stopped", NOT_BEGUN if step is None else f"saved at step {step:,}")
        self.record(cell)
        return Outcome("complete", f"{100 * read_json(folder / 'summary.json')['accuracy']:.1f}%")

    def record(self, cell: Cell) -> None:
        """Append the row of a complete cell to ``results.csv``, unless it is there."""
        path = self.folder / "results.csv"
        key = {"setting": cell.preset, "variant": cell.variant.name, "seed": str(cell.seed)}
        if not has_row(path, key):
            append_row(path, {**key, **result_row(read_run(self.folder_of(cell)))}, key)

    def complete_runs(self, preset: str, variant: Variant) -> tuple[dict[int, Path], list[str]]:
        """Return the folders of the complete runs of a variant in a setting, by seed, and what is wrong with others."""
        found, problems = {}, []
        for folder in (self.folder / "runs" / preset / variant.name).glob("seed-*"):
            if re.fullmatch(r"seed-\d+", folder.name) and is_complete(folder):
                seed = int(folder.name.removeprefix("seed-"))
                try:
                    check_same(
                        self.configure(Cell(preset, variant, seed)), saved_config(folder), folder
                    )
                    found[seed] = folder
                except RunError as error:
                    problems.append(str(error))
        return dict(sorted(found.items())), problems


def run_cells(
    cells: Sequence[Cell],
    attempts: Callable[[Sequence[Cell]], Iterator[tuple[Cell, Outcome]]],
    report: Callable[[Cell, Outcome], None],
) -> list[tuple[Cell, Outcome]]:
    """Run cells; those that another process is at are passed over and looked at again at the end.

    Once a cell was stopped, what *attempts* has not run stays so.

    Args:
        cells: the cells.
        attempts: runs cells, in any order, and yields what came of each.
        report: is told of each cell that is over.

    Returns:
        The cells that are not complete, and why.
    """
    left: list[tuple[Cell, Outcome]] = []
    waiting = list(cells)
    while waiting:
        passed: list[tuple[Cell, Outcome]] = []
        for cell, outcome in attempts(waiting):
            if outcome.state == "in use":
                passed.append((cell, outcome))
                continue
            if outcome.state != "stopped":
                report(cell, outcome)
            if outcome.state != "complete":
                left.append((cell, outcome))
        if len(passed) == len(waiting) or any(outcome.state == "stopped" for _, outcome in left):
            left += passed
            break
        waiting = [cell for cell, _ in passed]
    return left


@lru_cache(maxsize=2)
def _open(name: str, data: Path | None) -> Source:
    """Open a source: in a folder of DATA called as it or its usual folder, in DATA, or where its files usually are."""
    places: list[Path | None] = [None]
    if data is not None:
        usual = (place.name for place in USUAL_PLACES.get(name, ()))
        places = [data / name, *(data / folder for folder in usual), data, None]
    error: DataError | None = None
    for place in places:
        try:
            return open_source(name, data=place)
        except DataError as found:
            error = found if error is None or place == data else error
    assert error is not None
    raise error
