"""Compare the runs of a campaign with the paper's tables, and group them for figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from daso.errors import OptionError, RunError
from daso.files import read_json
from daso.presets.benchmarks import PRESETS
from daso.report.compare.with_paper import Comparison, Entry
from daso.report.runs import RunFolder, read_run
from daso.reproduce.campaign import Campaign
from daso.reproduce.paper_tables import (
    PaperTable,
    TableColumn,
    TableRow,
    paper_tables,
    variant,
)
from daso.reproduce.same_run import differing_data

MEASURES = {"median_of_last": "median of the last evaluations", "last": "last evaluation"}
NOT_COMPARABLE = "The scale is not the paper's: these numbers are not comparable with the paper's."
RANDOM_WEIGHTS = (
    "The paper's networks start from ImageNet weights here, these from random ones (--weights)."
)


def runs_of(
    campaign: Campaign, row: TableRow, column: TableColumn
) -> tuple[dict[int, Path], list[str]]:
    """Return the folders of the complete runs of a cell, by seed, and problems with others."""
    if row.method is None:
        return {}, []
    try:
        trained = variant(row, PRESETS[column.preset])
    except OptionError:
        return {}, []
    return campaign.complete_runs(column.preset, trained)


def accuracies(
    campaign: Campaign, row: TableRow, column: TableColumn
) -> tuple[dict[int, float], list[str]]:
    """Return the accuracies in % of a cell's complete runs, by seed, and problems with others."""
    runs, problems = runs_of(campaign, row, column)
    values = {}
    for seed, folder in runs.items():
        try:
            metrics = read_json(folder / "summary.json")[column.measure]
            chosen = metrics["logit_adjusted"] if row.logit_adjusted else metrics
            values[seed] = 100 * chosen["accuracy"]
        except (RunError, KeyError, TypeError) as error:
            problems.append(f"{folder / 'summary.json'} is damaged: {error!r}")
    return values, problems


def compare(campaign: Campaign, table: PaperTable) -> tuple[Comparison, list[str]]:
    """Return a table, or a part of one, beside the paper's numbers, and what was wrong."""
    columns, compared = table.columns, []
    problems: list[str] = []
    for row in table.rows:
        entries = []
        for column in columns:
            values, wrong = accuracies(campaign, row, column)
            problems += wrong
            entries.append(Entry(values, table.numbers.get((row.label, column.text))))
        compared.append((row.label, row.text, tuple(entries)))
    problems += _different_data(campaign, table)
    measures = " and ".join(dict.fromkeys(MEASURES[column.measure] for column in columns))
    notes = [
        f"Top-1 accuracy in %, {measures}: mean ± standard deviation (seeds) / the paper's.",
        f"Scale {campaign.scale.name}: {campaign.scale.title}.",
    ]
    if not campaign.scale.comparable:
        notes.append(NOT_COMPARABLE)
    if campaign.weights is None and any(PRESETS[column.preset].pretrained for column in columns):
        notes.append(RANDOM_WEIGHTS)
    texts, title = tuple(column.text for column in columns), f"Table {table.number}: {table.title}"
    return Comparison(title, tuple(notes), texts, tuple(compared)), problems


def _different_data(campaign: Campaign, table: PaperTable) -> Iterator[str]:
    first: dict[tuple[str, int], Path] = {}
    for column, row in itertools.product(table.columns, table.rows):
        for seed, folder in runs_of(campaign, row, column)[0].items():
            other = first.setdefault((column.preset, seed), folder)
            if other == folder:
                continue
            try:
                difference = differing_data(other, read_json(folder / "data.json"))
            except RunError as error:
                yield str(error)
                continue
            if difference:
                yield f"{folder} and {other} cannot be compared: {difference} here"


def write_tables(campaign: Campaign, parts: Iterable[PaperTable]) -> list[Path]:
    """Write the whole tables as Markdown, CSV and LaTeX; return the Markdown files."""
    paths = []
    with campaign.alone():
        for table in (paper_tables()[part.number] for part in parts):
            stem = campaign.folder / f"table-{table.number}"
            compare(campaign, table)[0].write(stem)
            paths.append(stem.with_suffix(".md"))
    return paths


def figure_groups(
    campaign: Campaign, preset: str, methods: dict[str, str]
) -> tuple[dict[str, list[RunFolder]], list[str]]:
    """Return a setting's complete runs of methods (label to name) by label, and problems."""
    groups: dict[str, list[RunFolder]] = {}
    problems = []
    for label, method in methods.items():
        row = TableRow(label, method, method, {}, False)
        folders, wrong = campaign.complete_runs(preset, variant(row, PRESETS[preset]))
        problems += wrong
        for folder in folders.values():
            try:
                groups.setdefault(label, []).append(read_run(folder))
            except RunError as error:
                problems.append(str(error))
    return {label: runs for label, runs in groups.items() if runs}, problems
