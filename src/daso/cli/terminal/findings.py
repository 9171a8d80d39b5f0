"""The report of ``daso data check``, printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from daso.cli.terminal.tables import make_table
from daso.data.check.findings import CALLED, Finding
from daso.data.check.report import Report
from daso.errors import how_many

COLORS = {"refused": "red", "warning": "yellow", "note": "dim"}


def show_report(report: Report, console: Console, shown: int | None) -> None:
    """Print a report, with the first *shown* images of each finding; None: with all."""

    def show(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    for note in report.notes:
        show(escape(note))
    table = make_table(("class", *(CALLED[part] for part in report.class_counts)))
    for name, *counts in zip(report.class_names, *report.class_counts.values(), strict=True):
        table.add_row(escape(name), *(f"{count:,}" for count in counts))
    console.print(table)
    show(escape(_summary(report)))
    for finding in report.findings:
        show(f"\n[{COLORS[finding.level]}]{finding.level}[/] {escape(finding.text)}")
        if finding.cure:
            show(f"  {escape(finding.cure)}")
        for name, detail in finding.images[:shown]:
            show(f"    {escape(name)}: {escape(detail)}")
        if shown is not None and len(finding.images) > shown:
            show(f"    and {len(finding.images) - shown:,} more (--all lists them)")
    show(f"\n{escape(_verdict(report.findings))}")


def _summary(report: Report) -> str:
    counts = ", ".join(f"{count:,} {CALLED[part]}" for part, count in report.counts.items())
    lines = [f"{counts} images of {how_many(len(report.class_names), 'class', 'classes')}"]
    if report.imbalance is not None and report.imbalance > 1:
        ratio = f"{report.imbalance:.3g}"
        lines[0] += f"; the largest class has {ratio} times the labels of the smallest"
    if report.widths and report.heights and report.shape:
        sizes = f"all are {report.widths[0]} x {report.heights[0]} pixels"
        if report.sizes > 1:
            (low, median, high), (lowest, middle, highest) = report.widths, report.heights
            sizes = (
                f"{low} to {high} pixels wide (median {median:g}), {lowest} to {highest} high "
                f"(median {middle:g})"
            )
        channels, height, width = report.shape
        color = "gray" if channels == 1 else "color"
        why = ", few because this machine has no accelerator" if report.shrunk else ""
        lines.append(
            f"{sizes}; training uses {width} x {height} pixels in {color}{why} (--size changes it)"
        )
    return "\n".join(lines)


def _verdict(findings: Sequence[Finding]) -> str:
    levels = {finding.level for finding in findings}
    if "refused" in levels:
        fatal = any(finding.code in ("empty-class", "one-class") for finding in findings)
        cure = "" if fatal else ", or leave it out with --skip-bad"
        return f"Training refuses this data: correct what is refused{cure}."
    if "warning" in levels:
        return "Training will run, but the warnings above may affect its results."
    return "No problems found."
