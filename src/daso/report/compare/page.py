"""Write the comparison as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from daso.files import Row
from daso.report import charts
from daso.report.charts import Chart, Groups
from daso.report.compare.tables import Compared
from daso.report.html import svg
from daso.report.html.run import UNREADABLE
from daso.report.html.template import render_page


def figures_of(one: Compared, problems: list[str]) -> list[Row]:
    """Return the charts of a setting; a chart that damaged files prevent becomes a problem."""
    groups: Groups = {group.name: list(group.runs.values()) for group in one.setting.groups}
    drawn: dict[str, Callable[[], Chart | None]] = {
        "images per class": partial(charts.class_counts, one.setting.first),
        "recall per class": partial(charts.recall, groups),
        "balanced accuracy": partial(charts.accuracy, groups),
        "pseudo-labels used": partial(charts.pseudo_labels_used, groups),
        "rare pseudo-labels": partial(charts.rare_pseudo_labels, groups),
        "recall of pseudo-labels": partial(charts.pseudo_labels_by_class, groups, "recall"),
        "precision of pseudo-labels": partial(charts.pseudo_labels_by_class, groups, "precision"),
    }
    figures = []
    for name, make in drawn.items():
        try:
            if (chart := make()) is not None:
                figures.append(svg.figure(chart))
        except UNREADABLE as error:
            problems.append(
                f"The figure '{name}' of {one.setting.title} is left out: a file has unexpected "
                f"contents ({type(error).__name__}: {error})."
            )
    return figures


def to_html(compared: Sequence[Compared], problems: Sequence[str] = ()) -> str:
    """Return the page; whatever comes from the runs is escaped."""
    problems = list(problems)
    settings: list[Row] = [
        {
            "title": one.setting.title,
            "notes": one.notes(),
            "baseline": one.baseline.name,
            "tables": [one.table(), one.difference_table(), one.class_table()],
            "figures": figures_of(one, problems),
        }
        for one in compared
    ]
    if len(settings) > 1:
        links = [(f"setting-{place}", one["title"]) for place, one in enumerate(settings, 1)]
    else:
        links = [("setting-1", "Numbers")]
        links += [("setting-1-differences", "Differences")] * any(
            len(one["tables"][1]) > 1 for one in settings
        )
        links += [("setting-1-classes", "Recall per class"), ("setting-1-figures", "Figures")]
    groups = [group for one in compared for group in one.setting.groups]
    methods, runs = len({group.name for group in groups}), sum(len(group.runs) for group in groups)
    return render_page(
        "compare.html",
        ("common.js",),
        links,
        problems,
        described=f"{methods} method{'s' * (methods != 1)}, {runs} run{'s' * (runs != 1)}",
        settings=settings,
        version="",
    )
