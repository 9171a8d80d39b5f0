"""What each chart shows: titles, labels and numbers, without a way to draw them.

``daso.report.html.svg`` draws a chart for the pages, ``daso.report.figures.draw`` with Matplotlib.
Shares are between 0 and 1; classes are ordered by their labelled images, most first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from daso.errors import RunError
from daso.files import Row, read_json
from daso.report.runs import Array, RunFolder, as_array, at, mean_known, number, vector
from daso.report.wording import POOLS

Groups = Mapping[str, Sequence[RunFolder]]
"""Name of each method and its runs, which differ in the seed."""
CLASSES = "class, most labelled images first"
FEW_CLASSES = 20
"""Up to this many classes are named below a chart."""
PARTS = ("linear", "semantic", "final")
LOSS_STYLES = ("labeled", "linear", "semantic", "adjusted", "truth")


@dataclass(frozen=True)
class Series:
    """A curve, or the marks of a series.

    Attributes:
        name: for the legend.
        x, y: of the points; NaN leaves a gap.
        style: what it stands for, which decides its colour: ``"labeled"``, ``"linear"``,
            ``"semantic"``, ``"final"``, ``"adjusted"``, ``"truth"``; ``""`` for a method, whose
            colour depends on its place among the series.
        spread: standard deviation of y; None without one.
    """

    name: str
    x: Array
    y: Array
    style: str = ""
    spread: Array | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of series.

    Attributes:
        title: of the chart.
        series: at least one.
        kind: ``"lines"`` over the steps, ``"classes"`` side by side (dots or bars), ``"points"``
            over numbers of images.
        x_label, y_label: of the axes.
        percent: values are shares.
        log: use a logarithmic vertical axis.
        high: upper end of the vertical axis; None for the largest value.
        names: of the classes on the horizontal axis.
        counts: labelled images of these classes, to be shown behind the names.
        marks: steps at which a stage begins.
        reference: value of a dotted line.
        note: what to know about the chart.
    """

    title: str
    series: tuple[Series, ...]
    kind: Literal["lines", "classes", "points"] = "lines"
    x_label: str = "step"
    y_label: str = ""
    percent: bool = True
    log: bool = False
    high: float | None = None
    names: tuple[str, ...] = ()
    counts: Array | None = None
    marks: tuple[float, ...] = ()
    reference: float | None = None
    note: str = ""


def classes_chart(
    title: str,
    run: RunFolder,
    series: Mapping[str, tuple[str, Array | None]],
    *,
    y_label: str = "",
    percent: bool = True,
    log: bool = False,
    with_counts: bool = False,
    note: str = "",
) -> Chart | None:
    """Return a chart of numbers per class; None without any.

    Args:
        title: of the chart.
        run: names and orders the classes.
        series: name to style and values (K,), by class index; None is left out.
        y_label: of the vertical axis.
        percent: values are shares.
        log: use a logarithmic vertical axis.
        with_counts: show the labelled images behind the names.
        note: what to know about the chart.
    """
    places = np.arange(run.num_classes, dtype=float)
    drawn = tuple(
        Series(name, places, values[run.order], style)
        for name, (style, values) in series.items()
        if values is not None and np.isfinite(values).any()
    )
    if not drawn:
        return None
    counts = run.labeled_counts
    return Chart(
        title,
        drawn,
        "classes",
        CLASSES,
        y_label,
        percent,
        log,
        1.0 if percent else None,
        tuple(run.class_names[k] for k in run.order),
        counts[run.order] if with_counts and counts is not None else None,
        note=note,
    )


def class_counts(
    run: RunFolder, pseudo_labels: Array | None = None, note: str = "Logarithmic."
) -> Chart:
    """Chart the labelled and, where known, unlabelled images of each class.

    Args:
        run: the run.
        pseudo_labels: unlabelled images with each pseudo-label, (K,).
        note: below the chart.
    """
    truth = vector(run.data.get("unlabeled_counts"), run.num_classes)
    series = {
        "labelled": ("labeled", run.labeled_counts),
        "pseudo-labels": ("final", pseudo_labels),
        "unlabelled (truth)": ("truth", truth),
    }
    chart = classes_chart(
        "Images per class", run, series, y_label="images", percent=False, log=True, note=note
    )
    if chart is None:
        raise ValueError("no labelled images of any class")
    return chart


def by_class(
    title: str, groups: Groups, values: Callable[[RunFolder], Array | None], y_label: str
) -> Chart:
    """Chart a number per class of each group: mean and standard deviation over its runs."""
    first = next(iter(groups.values()))[0]
    places = np.arange(first.num_classes, dtype=float)
    series = []
    for name, runs in groups.items():
        rows = np.stack([v for run in runs if (v := values(run)) is not None])[:, first.order]
        spread = rows.std(0, ddof=1) if len(rows) > 1 else None
        series.append(Series(name, places, mean_known(rows), spread=spread))
    names = tuple(first.class_names[k] for k in first.order)
    return Chart(title, tuple(series), "classes", CLASSES, y_label, high=1.0, names=names)


def recall(groups: Groups) -> Chart:
    """Chart recall per class of complete runs."""
    first = next(iter(groups.values()))[0]
    title = f"Recall per class on {POOLS[first.summary['measured_on']]} images"
    return by_class(title, groups, RunFolder.recall, "recall")


def recall_of(run: RunFolder, recall: Array | None, adjusted: Array | None) -> Chart | None:
    """Chart recall per class of one run; against the number of labelled images for many classes.

    Args:
        run: the run.
        recall: of each class, (K,).
        adjusted: the same after post-hoc logit adjustment.
    """
    series = {"recall": ("final", recall), "logit-adjusted": ("adjusted", adjusted)}
    counts = run.labeled_counts
    if run.num_classes <= FEW_CLASSES or counts is None:
        return classes_chart(
            "Recall per class, most labels first",
            run,
            series,
            y_label="recall",
            with_counts=True,
            note="In brackets: number of labelled images.",
        )
    drawn = tuple(
        Series(name, counts[run.order], values[run.order], style)
        for name, (style, values) in series.items()
        if values is not None
    )
    return (
        Chart(
            "Recall against the number of labelled images",
            drawn,
            "points",
            "labelled images",
            "recall",
            high=1.0,
            names=tuple(run.class_names[k] for k in run.order),
            note="One point per class.",
        )
        if drawn
        else None
    )


def pseudo_label_quality(run: RunFolder, what: str) -> Array | None:
    """Return recall or precision of the pseudo-labels per class (K,); None if truth is unknown.

    The mean over the evaluations that the run's summary quotes; NaN for a class with nothing to
    measure.
    """
    _, values = run.classes_over_time("pseudo_labels", "final", what)
    return mean_known(values[-int(run.summary.get("evaluations", 1)) :]) if len(values) else None


def pseudo_labels_by_class(groups: Groups, what: str) -> Chart:
    """Chart recall or precision of the pseudo-labels per class at the end, with means."""
    title = f"{what.capitalize()} of pseudo-labels, and its mean over classes"
    chart = by_class(title, groups, lambda run: pseudo_label_quality(run, what), what)

    def named(series: Series) -> Series:
        known, count = int(np.isfinite(series.y).sum()), len(series.y)
        over = "" if known == count else f" ({known} of {count} classes)"
        mean = 100 * float(mean_known(series.y))
        return replace(series, name=f"{series.name}: {mean:.1f}{over}", spread=None)

    return replace(chart, series=tuple(map(named, chart.series)))


def over_time(
    title: str,
    groups: Groups,
    value: Callable[[Row], float | None],
    *,
    y_label: str,
    percent: bool = True,
    high: float | None = None,
    reference: float | None = None,
) -> Chart:
    """Chart a number of the evaluations over time: mean and standard deviation of each group.

    Only steps at which all runs of a group have the number are drawn.

    Args:
        title: of the chart.
        groups: name of each and its runs, which differ in the seed.
        value: returns the number of an evaluation row, or None to skip it.
        y_label: of the vertical axis.
        percent: values are shares.
        high: upper end of the vertical axis.
        reference: value of a dotted line.
    """
    series = []
    for name, runs in groups.items():
        rows = [{row["step"]: value(row) for row in run.evaluations()} for run in runs]
        steps = sorted(step for step in rows[0] if all(one.get(step) is not None for one in rows))
        values = as_array([[one[step] for step in steps] for one in rows])
        spread = values.std(0, ddof=1) if len(runs) > 1 else None
        series.append(Series(name, as_array(steps), values.mean(0), spread=spread))
    return Chart(
        title, tuple(series), y_label=y_label, percent=percent, high=high, reference=reference
    )


def accuracy(groups: Groups) -> Chart:
    """Chart balanced accuracy of the moving-average network over time."""

    def value(row: Row) -> float | None:
        part = row.get("test") or row.get("holdout")
        return number(at(part, "balanced_accuracy"))

    title = "Balanced accuracy over time"
    return over_time(title, groups, value, y_label="balanced accuracy")


def pseudo_labels_used(groups: Groups) -> Chart:
    """Chart the share of pseudo-labels used over time."""

    def value(row: Row) -> float | None:
        return number(at(row, "pseudo_labels", "share_confident"))

    return over_time(
        "Pseudo-labels used", groups, value, y_label="share over the threshold", high=1
    )


def _rare_share(run: RunFolder, row: Row, part: str, relative: bool) -> float | None:
    """Return the share of the rare third among pseudo-labels; *relative* to that of the truth."""
    rare = run.groups["few"] or run.order[-1:]
    content = at(row, "pseudo_labels", part)
    share = vector(at(content, "distribution"), run.num_classes)
    if share is None or not relative:
        return None if share is None else float(share[rare].sum())
    truth = vector(at(content, "truth"), run.num_classes)
    expected = 0.0 if truth is None else float(truth[rare].sum())
    return float(share[rare].sum()) / expected if expected > 0 else None


def _rarest(run: RunFolder) -> str:
    count = len(run.groups["few"] or run.order[-1:])
    return "rarest class" if count == 1 else f"{count} rarest classes"


def _rare_share_over_time(groups: Groups, part: str) -> Chart:
    runs = [run for group in groups.values() for run in group]
    path = ("pseudo_labels", part)
    guessing = [run for run in runs if len(run.classes_over_time(*path, "distribution")[0])]
    relative = all(len(run.classes_over_time(*path, "truth")[0]) for run in guessing)
    return over_time(
        f"Pseudo-labels of the {_rarest(runs[0])}",
        groups,
        lambda row: _rare_share(runs[0], row, part, relative),
        y_label="share of pseudo-labels" + (" / share of truth" if relative else ""),
        percent=not relative,
        reference=1.0 if relative else None,
    )


def rare_pseudo_labels(groups: Groups) -> Chart:
    """Chart the share of the rare third of the classes among pseudo-labels over time.

    Relative to the share that they should have, where the truth is known: 1 is unbiased.
    """
    return _rare_share_over_time(groups, "final")


def pseudo_label_bias(runs: Sequence[RunFolder]) -> Chart:
    """Chart that share among linear, semantic and final pseudo-labels, as the mean over runs."""
    charts = {part: _rare_share_over_time({part: runs}, part) for part in PARTS}
    series = [replace(c.series[0], style=part, spread=None) for part, c in charts.items()]
    title = f"{runs[0].method}: pseudo-labels of the {_rarest(runs[0])}"
    return replace(charts["final"], title=title, series=tuple(one for one in series if len(one.x)))


def training(run: RunFolder) -> list[Chart]:
    """Chart what changed while one run trained; charts without numbers are left out."""

    def lines(title: str, *curves: tuple[str, ...], event: str = "evaluate", **more: Any) -> None:
        """Add a chart of curves, each a name, a style and the path of its numbers in a row."""
        series = [
            Series(name, *run.over_time(*path, event=event), style) for name, style, *path in curves
        ]
        if drawn := tuple(one for one in series if len(one.x)):
            charts.append(Chart(title, drawn, marks=_stage_starts(run), **more))

    charts: list[Chart] = []
    adjusted = ("test, logit-adjusted", "adjusted", "test", "logit_adjusted", "balanced_accuracy")
    lines(
        "Balanced accuracy",
        ("test", "final", "test", "balanced_accuracy"),
        *([] if run.balanced_by else [adjusted]),
        ("hold-out", "labeled", "holdout", "balanced_accuracy"),
        note="Of the moving-average network.",
    )
    part = run.measured_on or "test"
    lines(
        "Recall by class frequency",
        ("most frequent third", "labeled", part, "recall_many"),
        ("middle third", "semantic", part, "recall_medium"),
        ("rarest third", "linear", part, "recall_few"),
        high=1.0,
    )
    losses = (row.get("losses") for row in run.rows)
    names = dict.fromkeys(n for row in losses if isinstance(row, dict) for n in row)
    more = len(names) - len(LOSS_STYLES)
    lines(
        "Losses",
        *((n, style, "losses", n) for n, style in zip(names, LOSS_STYLES, strict=False)),
        event="train",
        percent=False,
        note="Weighted as in their sum" + (f"; {more} more are left out." if more > 0 else "."),
    )
    lines(
        "Pseudo-labels",
        ("share used", "labeled", "pseudo_labels", "share_confident"),
        ("right, of all", "final", "pseudo_labels", "final", "accuracy"),
        ("right, of those used", "semantic", "pseudo_labels", "confident", "accuracy"),
        high=1.0,
    )
    if len(np.unique(run.over_time("learning_rate", event="train")[1])) > 1:
        rate = ("learning rate", "truth", "learning_rate")
        lines("Learning rate", rate, event="train", percent=False)
    return charts


def _stage_starts(run: RunFolder) -> tuple[float, ...]:
    """Return the steps after which a further stage began."""
    starts, before = [], 0.0
    for earlier, row in itertools.pairwise(run.rows):
        stage = number(row.get("stage")) or 0.0
        if stage > before:
            starts.append(float(earlier["step"]))
            before = stage
    return tuple(starts)


def confusion_shares(run: RunFolder) -> Array | None:
    """Return the share of each answer among the images of a class, (K, K); None if not counted.

    Raises:
        RunError: ``confusion.json`` is damaged.
    """
    path = run.path / "confusion.json"
    if not path.exists():
        return None
    classes = run.num_classes
    try:
        counts = as_array(read_json(path).get("counts"))
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if counts.shape != (classes, classes):
        raise RunError(f"{path} is damaged: counts are not {classes} by {classes}")
    shares: Array = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares
