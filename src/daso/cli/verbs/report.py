"""``daso report``: one HTML file that shows the results of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daso.cli.terminal.arguments import RunArgument
from daso.errors import OptionError
from daso.files import check_writable


@dataclass(frozen=True)
class ReportCommand:
    """Write the report of a run, complete or not, as one self-contained HTML file."""

    folder: RunArgument
    """The run folder."""
    out: Path | None = None
    """HTML file to write (default: report.html in the run folder)."""
    refresh: bool = False
    """First predict the images again with the last checkpoint, to update galleries, map and what to
    label next. This needs the run's data. Otherwise they are as the training last wrote them."""
    data: Path | None = None
    """With --refresh: where the run's images are now, if they have moved."""
    device: str | None = None
    """With --refresh: cpu, cuda or mps (default: that of the run)."""


def run(command: ReportCommand) -> None:
    """Write the report."""
    from daso.cli.terminal.counters import notice
    from daso.report.html.page import write_report

    for name in ("data", "device"):
        if getattr(command, name) is not None and not command.refresh:
            raise OptionError(
                f"--{name} goes with --refresh; without it, a report reads only the run folder"
            )
    if command.refresh:
        for folder in (command.folder, *([command.out.parent] if command.out else [])):
            check_writable(folder)
        from daso.cli.terminal.counters import embedding_progress
        from daso.train.beliefs.schedule import refresh_beliefs

        step = refresh_beliefs(
            command.folder,
            notice,
            data=command.data,
            device=command.device,
            progress=embedding_progress(),
        )
        notice(f"predicted the images with the checkpoint of step {step:,}")
    for path in write_report(command.folder, command.out, notice):
        print(path)
