"""Warnings about a training, from its rows: while it writes them, and afterwards."""

from __future__ import annotations

from collections.abc import Iterable

from daso.files import Row
from daso.report.warnings.checks import CHECKS
from daso.report.warnings.run_facts import RunFacts, watch_facts


class Watch:
    """Sees the rows of a run, in order, and warns of each thing once.

    Of classes that starve it warns again when there are twice as many.

    Args:
        facts: about the run.
        rows: that it has written before, of which nothing is said any more.
    """

    def __init__(self, facts: RunFacts, rows: Iterable[Row] = ()) -> None:
        self.facts = facts
        self._evaluations: list[Row] = []
        self._said: dict[str, int] = {}
        for row in rows:
            self.see(row)

    def see(self, row: Row) -> list[Row]:
        """Return what is new: ``kind``, ``message``, ``advice`` and the indices of the ``classes`` it is about."""
        if row["event"] != "evaluate":
            return []
        while self._evaluations and self._evaluations[-1]["step"] >= row["step"]:
            self._evaluations.pop()  # the run was rolled back
        self._evaluations.append(row)
        new = []
        for check in CHECKS:
            warning = check(self.facts, self._evaluations)
            if warning is None:
                continue
            size = max(1, len(warning["classes"]))
            if size >= 2 * self._said.get(warning["kind"], 0):
                self._said[warning["kind"]] = size
                new.append(warning)
        return new


def find_warnings(config: Row, data: Row, rows: Iterable[Row]) -> list[Row]:
    """Return what a run's rows give reason to warn of, each with the ``step`` at which it could first be seen."""
    watch = Watch(watch_facts(config, data))
    return [{"step": row["step"], **warning} for row in rows for warning in watch.see(row)]
