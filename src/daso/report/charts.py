"""Compute what each chart shows; ``html.svg`` and ``figures.draw`` draw it.

Shares are between 0 and 1. Classes are ordered by their labeled images, most first. A function
returns None if the runs have nothing to show; groups that have nothing are left out.
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
from daso.report.wording import POOLS, of_classes

Groups = Mapping[str, Sequence[RunFolder]]
"""Name of each method and its runs, which differ in the seed."""
CLASSES = "class, most labeled images first"
FEW_CLASSES = 20
"""Up to this many classes are named below a chart."""
PARTS = ("linear", "semantic", "final")
LOSS_STYLES = ("labeled", "linear", "semantic", "adjusted", "truth")


@dataclass(frozen=True)
class Series:
    """A curve, or the marks of a series.

    Attributes:
        y: values; NaN leaves a gap.
        style: ``"labeled"``, ``"linear"``, ``"semantic"``, ``"final"``, ``"adjusted"`` or
            ``"truth"``, which decides the color; ``""`` for a method, whose place decides it.
        spread: standard deviation of y, or None.
    """

    name: str
    x: Array
    y: Array
    style: str = ""
    spread: Array | None = None


@dataclass(frozen=True)
class Chart:
    """A chart of at least one series.

    Attributes:
        kind: ``"lines"`` over the steps, ``"classes"`` side by side (dots or bars), or ``"points"``
            over numbers of images.
        percent: values are shares.
        log: the vertical axis is logarithmic.
        high: upper end of the vertical axis; None for the largest value.
        names, counts: of the classes on the horizontal axis, and their labeled images.
        marks: steps at which a stage begins.
        reference: value of a dotted line.
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


def _classes(
    run: RunFolder, title: str, series: Mapping[str, tuple[str, Array | None]], **more: Any
) -> Chart | None:
    places = np.arange(run.num_classes, dtype=float)
    drawn = tuple(
        Series(name, places, values[run.order], style)
        for name, (style, values) in series.items()
        if values is not None and np.isfinite(values).any()
    )
    names = tuple(run.class_names[k] for k in run.order)
    return Chart(title, drawn, "classes", CLASSES, names=names, **more) if drawn else None


def class_counts(
    run: RunFolder, pseudo_labels: Array | None = None, note: str = "Logarithmic."
) -> Chart | None:
    """Chart labeled, pseudo-labeled and, where known, unlabeled images of each class."""
    truth = vector(run.data.get("unlabeled_counts"), run.num_classes)
    series = {
        "labeled": ("labeled", run.labeled_counts),
        "pseudo-labels": ("final", pseudo_labels),
        "unlabeled (truth)": ("truth", truth),
    }
    look: dict[str, Any] = {"y_label": "images", "percent": False, "log": True, "note": note}
    return _classes(run, "Images per class", series, **look)


def recall_of(run: RunFolder, recall: Array | None, adjusted: Array | None) -> Chart | None:
    """Chart recall per class of a run, and recall after logit adjustment, (K,) each.

    Above ``FEW_CLASSES``, classes are placed by their number of labeled images.
    """
    series = {"recall": ("final", recall), "logit-adjusted": ("adjusted", adjusted)}
    counts = run.labeled_counts
    look: dict[str, Any] = {"y_label": "recall", "high": 1.0}
    if counts is None or run.num_classes <= FEW_CLASSES:
        look["counts"] = None if counts is None else counts[run.order]
        look["note"] = "" if counts is None else "In brackets: number of labeled images."
        return _classes(run, "Recall per class, most labels first", series, **look)
    chart = _classes(run, "Recall against the number of labeled images", series, **look)
    if chart is None:
        return None
    placed = tuple(replace(one, x=counts[run.order]) for one in chart.series)
    note = "One point per class."
    return replace(chart, series=placed, kind="points", x_label="labeled images", note=note)


def blending_weight(run: RunFolder) -> Chart | None:
    """Chart the latest blending weight of each class."""
    steps, weights = run.classes_over_time("pseudo_labels", "blend_weight")
    latest = weights[-1] if len(steps) else None
    when = "at the end" if run.summary else f"at step {steps[-1]:,.0f}" if len(steps) else ""
    title = f"Blending weight per class, {when}"
    note = "How much a pseudo-label depends on the prototypes: 0 not at all, 1 entirely."
    series = {"blending weight": ("semantic", latest)}
    return _classes(run, title, series, percent=False, high=1.0, note=note)


def _by_class(
    title: str, groups: Groups, values: Callable[[RunFolder], Array | None], y_label: str
) -> Chart | None:
    series, runs = [], [run for members in groups.values() for run in members]
    for name, members in groups.items():
        rows = [v[runs[0].order] for run in members if (v := values(run)) is not None]
        if rows:
            places = np.arange(len(rows[0]), dtype=float)
            spread = np.std(rows, axis=0, ddof=1) if len(rows) > 1 else None
            series.append(Series(name, places, mean_known(np.stack(rows)), spread=spread))
    if not series:
        return None
    names = tuple(runs[0].class_names[k] for k in runs[0].order)
    return Chart(title, tuple(series), "classes", CLASSES, y_label, high=1.0, names=names)


def recall(groups: Groups) -> Chart | None:
    """Chart recall per class of complete runs."""
    complete = {
        name: runs
        for name, members in groups.items()
        if (runs := [run for run in members if "per_class_recall" in run.summary])
    }
    if not complete:
        return None
    part = next(iter(complete.values()))[0].summary["measured_on"]
    title = f"Recall per class on {POOLS[part]} images"
    return _by_class(title, complete, RunFolder.recall, "recall")


def pseudo_label_quality(run: RunFolder, what: str) -> Array | None:
    """Return recall or precision of the pseudo-labels, (K,); None if the truth is unknown.

    The mean over the evaluations that the summary quotes; NaN if a class has nothing to measure.
    """
    _, values = run.classes_over_time("pseudo_labels", "final", what)
    return mean_known(values[-int(run.summary.get("evaluations", 1)) :]) if len(values) else None


def pseudo_labels_by_class(groups: Groups, what: str) -> Chart | None:
    """Chart recall or precision of the pseudo-labels per class at the end, with means."""
    title = f"{what.capitalize()} of pseudo-labels, and its mean over classes"
    chart = _by_class(title, groups, lambda run: pseudo_label_quality(run, what), what)

    def named(one: Series) -> Series:
        mean = 100 * float(mean_known(one.y))
        return replace(one, name=f"{one.name}: {mean:.1f}{of_classes(one.y)}", spread=None)

    return chart and replace(chart, series=tuple(map(named, chart.series)))


def _over_time(
    title: str, groups: Groups, value: Callable[[Row], float | None], y_label: str, **more: Any
) -> Chart | None:
    """Chart mean and standard deviation at the steps at which all runs have the number."""
    series = []
    for name, runs in groups.items():
        rows = [{row["step"]: value(row) for row in run.evaluations()} for run in runs]
        steps = sorted(step for step in rows[0] if all(one.get(step) is not None for one in rows))
        if steps:
            values = as_array([[one[step] for step in steps] for one in rows])
            spread = values.std(0, ddof=1) if len(runs) > 1 else None
            series.append(Series(name, as_array(steps), values.mean(0), spread=spread))
    return Chart(title, tuple(series), y_label=y_label, **more) if series else None


def accuracy(groups: Groups) -> Chart | None:
    """Chart balanced accuracy of the moving-average network over time."""

    def value(row: Row) -> float | None:
        return number(at(row.get("test") or row.get("holdout"), "balanced_accuracy"))

    return _over_time("Balanced accuracy over time", groups, value, "balanced accuracy")


def pseudo_labels_used(groups: Groups) -> Chart | None:
    """Chart the share of pseudo-labels used over time."""

    def value(row: Row) -> float | None:
        return number(at(row, "pseudo_labels", "share_confident"))

    return _over_time("Pseudo-labels used", groups, value, "share over the threshold", high=1.0)


def rare_pseudo_labels(groups: Groups, part: str = "final") -> Chart | None:
    """Chart the share of the rare third of the classes among pseudo-labels over time.

    Relative to the share that they should have, where the truth is known: 1 is unbiased.
    """
    runs = [run for members in groups.values() for run in members]
    count, path = runs[0].num_classes, ("pseudo_labels", part)
    rare = runs[0].groups["few"] or runs[0].order[-1:]
    guessing = [run for run in runs if len(run.classes_over_time(*path, "distribution")[0])]
    relative = all(len(run.classes_over_time(*path, "truth")[0]) for run in guessing)

    def value(row: Row) -> float | None:
        share = vector(at(row, *path, "distribution"), count)
        truth = vector(at(row, *path, "truth"), count)
        if share is None or not relative:
            return None if share is None else float(share[rare].sum())
        expected = 0.0 if truth is None else float(truth[rare].sum())
        return float(share[rare].sum()) / expected if expected > 0 else None

    rarest = "rarest class" if len(rare) == 1 else f"{len(rare)} rarest classes"
    return _over_time(
        f"Pseudo-labels of the {rarest}",
        groups,
        value,
        "share of pseudo-labels" + (" / share of truth" if relative else ""),
        percent=not relative,
        reference=1.0 if relative else None,
    )


def pseudo_label_bias(runs: Sequence[RunFolder]) -> Chart | None:
    """Chart the rare third's share of linear, semantic and final pseudo-labels."""
    charts = {part: rare_pseudo_labels({part: runs}, part) for part in PARTS}
    drawn = {part: chart for part, chart in charts.items() if chart is not None}
    if not drawn:
        return None
    series = (replace(chart.series[0], style=p, spread=None) for p, chart in drawn.items())
    chart = next(reversed(drawn.values()))
    return replace(chart, title=f"{runs[0].method}: {chart.title.lower()}", series=tuple(series))


def training(run: RunFolder) -> list[Chart]:
    """Chart what changed while one run trained; charts without numbers are left out."""

    def lines(title: str, *curves: tuple[str, ...], event: str = "evaluate", **more: Any) -> None:
        """Add a chart of curves, each a name, a style and the path of its numbers."""
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
