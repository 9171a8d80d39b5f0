"""Tables of reproduced numbers beside published ones, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daso.files import csv_text, write_text
from daso.report.compare.statistics import MISSING, spread

COLUMNS = (
    *("row", "method", "column", "mean", "std", "seeds", "values", "paper_mean", "paper_std"),
)


@dataclass(frozen=True)
class Entry:
    """A cell.

    Attributes:
        values: reproduced numbers, in %, by seed.
        paper: published mean and standard deviation (None if not published); None without either.
    """

    values: Mapping[int, float]
    paper: tuple[float, float | None] | None

    @property
    def mean(self) -> float | None:
        return float(np.mean(list(self.values.values()))) if self.values else None

    @property
    def std(self) -> float | None:
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None

    @property
    def own_text(self) -> str:
        if not self.values:
            return MISSING
        return f"{spread(list(self.values.values()), 1, 2)} ({len(self.values)})"

    @property
    def paper_text(self) -> str:
        if self.paper is None:
            return MISSING
        mean, std = self.paper
        return f"{mean:.2f}" if std is None else f"{mean:.1f} ± {std:.2f}"


@dataclass(frozen=True)
class Comparison:
    """A table.

    Attributes:
        notes: sentences above it.
        rows: label, method and cells of each row.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[Entry, ...]], ...]

    def write(self, stem: Path) -> None:
        """Write ``stem.md``, ``stem.csv`` and ``stem.tex``.

        Raises:
            RunError: they cannot be written.
        """
        for suffix, text in (
            (".md", self.to_markdown()),
            (".csv", self.to_csv()),
            (".tex", self.to_latex()),
        ):
            write_text(stem.with_suffix(suffix), text)

    def to_markdown(self) -> str:
        """Return the table with reproduced / published numbers in each cell."""
        lines = [f"# {self.title}", "", *self.notes, ""]
        lines.append(f"| | {' | '.join(self.columns)} |")
        lines.append("|---" * (len(self.columns) + 1) + "|")
        for label, _, entries in self.rows:
            cells = (f"{entry.own_text} / {entry.paper_text}" for entry in entries)
            lines.append(f"| {label} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Return one line per cell, with all digits."""
        rows = []
        for label, method, entries in self.rows:
            for column, entry in zip(self.columns, entries, strict=True):
                seeds, values = (
                    " ".join(map(str, part)) for part in (entry.values, entry.values.values())
                )
                paper = entry.paper or (None, None)
                rows.append((label, method, column, entry.mean, entry.std, seeds, values, *paper))
        return csv_text(COLUMNS, rows)

    def to_latex(self) -> str:
        """Return a ``tabular`` with the published numbers in italics below each row."""
        lines = [f"% {line}" for line in (self.title, *self.notes)]
        lines += [rf"\begin{{tabular}}{{l{'c' * len(self.columns)}}}", r"\hline"]
        lines.append(" & ".join(["", *map(_escape, self.columns)]) + r" \\ \hline")
        for label, _, entries in self.rows:
            lines.append(
                " & ".join([_escape(label), *(_escape(e.own_text) for e in entries)]) + r" \\"
            )
            published = (rf"\textit{{{_escape(entry.paper_text)}}}" for entry in entries)
            lines.append(" & ".join([r"\quad paper", *published]) + r" \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("±", r"$\pm$")
