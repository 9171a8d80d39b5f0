"""From the runs of a campaign to tables beside the paper's, and to the groups of runs that figures compare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from daso.errors import OptionError, RunError
from daso.files import read_json
from daso.presets.benchmarks import PRESETS
from daso.presets.campaign import Campaign
from daso.presets.tables import PaperTable, TableColumn, TableRow, variant
from daso.report.comparison import Comparison, Entry
from daso.report.runs import RunFolder, read_run

MEASURES = {"median_of_last": "median of the last evaluations", "last": "last evaluation"}
NOT_COMPARABLE = "The scale is not the paper's: these numbers are not comparable with the paper's."


def runs_of(campaign: Campaign, row: TableRow, column: TableColumn) -> dict[int, Path]:
    """Return the folders of the complete runs of a cell, by seed.

    Raises:
        RunError: one holds a run of another configuration, or is damaged.
    """
    if row.method is None:
        return {}
    try:
        found = variant(row, PRESETS[column.preset])
    except OptionError:
        return {}
    return campaign.complete_runs(column.preset, found)


def accuracies(campaign: Campaign, row: TableRow, column: TableColumn) -> dict[int, float]:
    """Return the accuracies, in %, of the complete runs of a cell, by seed; for errors see ``runs_of``."""
    values = {}
    for seed, folder in runs_of(campaign, row, column).items():
        metrics = read_json(folder / "summary.json")[column.measure]
        values[seed] = 100 * (metrics["logit_adjusted"] if row.logit_adjusted else metrics)["accuracy"]
    return values


def compare(
    campaign: Campaign, table: PaperTable, rows: Iterable[TableRow], columns: Iterable[TableColumn]
) -> tuple[Comparison, list[str]]:
    """Return rows and columns of a table with the campaign's numbers beside the paper's, and what was wrong."""
    columns, problems = tuple(columns), []
    compared = []
    for row in rows:
        entries = []
        for column in columns:
            try:
                values = accuracies(campaign, row, column)
            except RunError as error:
                problems.append(str(error))
                values = {}
            number = table.numbers.get((row.label, column.text))
            entries.append(Entry(values, None if number is None else (number.mean, number.std)))
        compared.append((row.label, row.text, tuple(entries)))
    measures = " and ".join(dict.fromkeys(MEASURES[column.measure] for column in columns))
    notes = [
        f"Top-1 accuracy in %, {measures}: mean ± standard deviation (seeds) / the paper's.",
        f"Scale {campaign.scale.name}: {campaign.scale.title}.",
    ]
    if not campaign.scale.comparable:
        notes.append(NOT_COMPARABLE)
    texts = tuple(column.text for column in columns)
    return Comparison(f"Table {table.number}: {table.title}", tuple(notes), texts, tuple(compared)), problems


def write_tables(campaign: Campaign, tables: Iterable[PaperTable]) -> list[Path]:
    """Write whole tables, whatever is in them so far, as Markdown, CSV and LaTeX; return the Markdown files."""
    paths = []
    with campaign.alone():
        for table in tables:
            stem = campaign.folder / f"table-{table.number}"
            compare(campaign, table, table.rows, table.columns)[0].write(stem)
            paths.append(stem.with_suffix(".md"))
    return paths


def figure_groups(campaign: Campaign, preset: str, methods: dict[str, str]) -> dict[str, list[RunFolder]]:
    """Return, by label, the complete runs in a setting of methods (label to name) that have any.

    Raises:
        RunError: a folder holds a run of another configuration, or is damaged.
    """
    groups = {}
    for label, method in methods.items():
        folders = campaign.complete_runs(
            preset, variant(TableRow(label, method, method, {}, False), PRESETS[preset])
        )
        if folders:
            groups[label] = [read_run(folder) for folder in folders.values()]
    return groups
