"""``daso calibrate``: fit the temperature of a trained model on labels that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daso.cli.terminal.arguments import RunArgument
from daso.cli.terminal.counters import notice, tell
from daso.cli.terminal.parse import Argument
from daso.errors import DataError, how_many, typed
from daso.files import check_writable


@dataclass(frozen=True)
class CalibrateCommand:
    """Calibrate the probabilities of a run on labeled images that its training has not seen.

    A temperature is fitted; predict, export and report use it from then on. Predicted classes do
    not change. Images that the run was trained on, with or without their labels, are refused.
    """

    folder: RunArgument
    """The run folder."""
    images: Annotated[Path | None, Argument("IMAGES", positional=True)] = None
    """Labeled images: a folder with a folder for each class, a manifest, shards, or another source
    of daso train (default: the run's own hold-out)."""
    data: Path | None = None
    """Where the run's images are now, if they have moved."""
    device: str = "auto"
    """cpu, cuda or mps; auto takes the first available accelerator."""


def run(command: CalibrateCommand) -> None:
    """Calibrate a run."""
    check_writable(command.folder)
    from daso.evaluate.calibration import FEWEST_IMAGES
    from daso.report.wording import percent
    from daso.train.calibration import calibrate_again, read_labeled
    from daso.train.cross_validation import require_data_of_run
    from daso.train.folder.lock import lock_folder
    from daso.train.model import load_model
    from daso.train.run_data import open_configured, read_config
    from daso.train.step.state import choose_device

    device = choose_device(command.device)
    with lock_folder(command.folder):
        model = load_model(command.folder, device, notice)
        given = None if command.images is None else read_labeled(command.images, model, tell)
        config = read_config(command.folder, command.data)
        source = open_configured(config)
        require_data_of_run(command.folder, config, source)
        calibration = calibrate_again(command.folder, model, source, given, command.images)
    if calibration.note is not None:
        why = calibration.note
        if given is not None:
            why = f"{command.images} has {how_many(calibration.images, 'labeled image')}"
        raise DataError(
            f"{command.folder} is not calibrated: {why}; give {FEWEST_IMAGES} or more labeled "
            "images that its training has not seen: "
            f"'daso calibrate {typed(command.folder)} IMAGES'"
        )
    assert calibration.error_before is not None
    assert calibration.error_after is not None
    print(
        f"temperature {calibration.temperature:.3f}, fitted on {calibration.images:,} labeled "
        f"images: their calibration error changes from {percent(calibration.error_before)}% to "
        f"{percent(calibration.error_after)}%"
    )
