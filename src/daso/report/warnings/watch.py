"""Watch a training's rows for warnings, during the run or afterwards."""

from __future__ import annotations

from collections.abc import Iterable

from daso.files import Row
from daso.report.warnings.checks import CHECKS
from daso.report.warnings.run_facts import WatchedRun, watched_run


class Watch:
    """Checks the rows of a run, in order, and gives each warning once.

    The warning about starved classes is repeated when their number has doubled. Warnings about the
    earlier *rows* are not repeated.
    """

    def __init__(self, run: WatchedRun, rows: Iterable[Row] = ()) -> None:
        self.run = run
        self._evaluations: list[Row] = []
        self._reported: dict[str, int] = {}
        for row in rows:
            self.see(row)

    def see(self, row: Row) -> list[Row]:
        """Return new warnings: ``kind``, ``message``, ``advice`` and indices of ``classes``."""
        if row["event"] != "evaluate":
            return []
        while self._evaluations and self._evaluations[-1]["step"] >= row["step"]:
            self._evaluations.pop()  # the run was rolled back
        self._evaluations.append(row)
        warnings = []
        for check in CHECKS:
            warning = check(self.run, self._evaluations)
            if warning is None:
                continue
            size = max(1, len(warning["classes"]))
            if size >= 2 * self._reported.get(warning["kind"], 0):
                self._reported[warning["kind"]] = size
                warnings.append(warning)
        return warnings


def find_warnings(config: Row, data: Row, rows: Iterable[Row]) -> list[Row]:
    """Return the warnings about a run's rows, each with the ``step`` at which it first applies."""
    watch = Watch(watched_run(config, data))
    return [{"step": row["step"], **warning} for row in rows for warning in watch.see(row)]
