"""The page: tables and figures of every setting in one HTML file that needs no network."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes

from daso.files import Row
from daso.report.compare.tables import Compared
from daso.report.figures.axes import (
    Groups,
    make_figure,
    plot_accuracy,
    plot_class_counts,
    plot_rare_share,
    plot_recall,
    plot_share_confident,
)
from daso.report.figures.paper import plot_pseudo_labels, pseudo_label_quality
from daso.report.html.run import UNREADABLE
from daso.report.html.template import render_page
from daso.report.runs import RunFolder

INK = "#010203"
"""Stands in the drawings for the colour of the text around them, light or dark."""
DARK = rf"{INK}|#000000|#333333"
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")


def draw(plot: Callable[[Axes], None], name: str) -> Markup:
    """Return a plot as an inline SVG that takes the colours of the page; *name* is for those who do not see it."""
    settings: dict[Any, Any] = {
        **dict.fromkeys(INKED, INK),
        "svg.fonttype": "none",
        "svg.hashsalt": "daso",
    }
    with matplotlib.rc_context(settings):
        figure, (axis,) = make_figure(1)
        plot(axis)
        axis.patch.set_alpha(0)
        figure.patch.set_alpha(0)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    content = re.sub(DARK, "currentColor", text[text.index("<svg") + 4 :])
    return Markup(f'<svg role="img" aria-label="{escape(name)}"{content}')


def figures_of(one: Compared, problems: list[str]) -> list[Markup]:
    """Return the figures of a setting; why one cannot be drawn, of damaged files, is added to *problems*."""
    groups: Groups = {group.name: list(group.runs.values()) for group in one.setting.groups}
    guessing = {name: runs for name, runs in groups.items() if any(map(_guesses, runs))}
    known = {name: runs for name, runs in guessing.items() if any(map(_knows_truth, runs))}
    plots: dict[str, Callable[[Axes], None]] = {
        "class distribution": partial(plot_class_counts, run=one.setting.first),
        "recall per class": partial(plot_recall, groups=groups),
        "balanced accuracy over time": partial(plot_accuracy, groups=groups),
    }
    if guessing:
        plots["pseudo-labels that teach"] = partial(plot_share_confident, groups=guessing)
        plots["pseudo-labels of the rarest classes"] = partial(plot_rare_share, groups=guessing)
    for number in ("recall", "precision") if known else ():
        plots[f"{number} of pseudo-labels"] = partial(
            plot_pseudo_labels, groups=known, number=number
        )
    drawn = []
    for name, plot in plots.items():
        try:
            drawn.append(draw(plot, name))
        except UNREADABLE as error:
            problems.append(
                f"The figure '{name}' of {one.setting.title} is left out: a file does not hold what it should "
                f"({type(error).__name__}: {error})."
            )
    return drawn


def _guesses(run: RunFolder) -> bool:
    return any("pseudo_labels" in row for row in run.evaluations())


def _knows_truth(run: RunFolder) -> bool:
    try:
        return pseudo_label_quality(run, "recall") is not None
    except UNREADABLE:
        return False


def to_html(compared: Sequence[Compared], problems: Sequence[str] = ()) -> str:
    """Return the page; whatever comes from the runs is escaped."""
    problems = list(problems)
    settings = [
        {
            "title": one.setting.title,
            "notes": one.notes(),
            "baseline": one.baseline.name,
            "tables": [one.table(), one.difference_table(), one.class_table()],
            "figures": figures_of(one, problems),
        }
        for one in compared
    ]
    return render_page(
        "compare.html",
        ("common.js",),
        _links(settings),
        problems,
        described=_described(compared),
        settings=settings,
        version="",
    )


def _links(settings: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the sections to go to: of several settings their beginnings, of a single one its parts."""
    if len(settings) > 1:
        return [(f"setting-{place}", one["title"]) for place, one in enumerate(settings, 1)]
    parts = {
        "": "Numbers",
        "-differences": "Differences",
        "-classes": "Recall per class",
        "-figures": "Figures",
    }
    lacking = {"-differences"} if any(len(one["tables"][1]) < 2 for one in settings) else set()
    return [(f"setting-1{part}", title) for part, title in parts.items() if part not in lacking]


def _described(compared: Sequence[Compared]) -> str:
    groups = [group for one in compared for group in one.setting.groups]
    methods = len({group.name for group in groups})
    runs = sum(len(group.runs) for group in groups)
    return f"{methods} method{'s' * (methods != 1)}, {runs} run{'s' * (runs != 1)}"
