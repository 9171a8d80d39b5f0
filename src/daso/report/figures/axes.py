"""Pictures of run folders, by matplotlib, for files, notebooks and papers."""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from daso.errors import RunError
from daso.files import Row
from daso.report.runs import Array, RunFolder, as_array, read_run

Groups = Mapping[str, Sequence[RunFolder]]
"""Name of each method and its runs, which differ in the seed."""

COLORS = {
    "labeled": "#555555",
    "truth": "#000000",
    "linear": "#D55E00",
    "semantic": "#0072B2",
    "final": "#009E73",
}
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
METHOD_COLORS = ("#999999", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")


DASHES, HATCHES = ("-", "--", ":"), ("", "//", "..")


def method_style(index: int) -> dict[str, str]:
    """Return colour, and dash of a line or hatch of a bar, of a method: 18 that can be told apart."""
    turn = index // len(METHOD_COLORS) % len(DASHES)
    return {
        "color": METHOD_COLORS[index % len(METHOD_COLORS)],
        "linestyle": DASHES[turn],
        "hatch": HATCHES[turn],
    }


OTHER_SCRIPTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "WenQuanYi Micro Hei",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)
"""Fonts with letters that matplotlib's own one lacks, the first that is installed goes first."""


@functools.cache
def fonts() -> list[str]:
    """Return matplotlib's own font and those installed of ``OTHER_SCRIPTS``, for what it has no letters of."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


class Picture(Figure):
    """A figure that a notebook shows by itself, without pyplot; class names may be in any script."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw it; a letter that no installed font has is an empty box, without a warning for each."""
        for text in self.findobj(Text):
            text.set_fontfamily(fonts())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def make_figure(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of *count* axes, one or two to a row."""
    columns, rows = min(count, 2), (count + 1) // 2
    figure = Picture(figsize=(6.0 * columns, 3.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def class_ticks(axis: Axes, names: Sequence[str]) -> None:
    """Name the classes on the horizontal axis, if there are few enough to read."""
    axis.set_xlabel("class, most labelled images first")
    if len(names) <= 20:
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)


def percent_axis(axis: Axes, names: Sequence[str]) -> None:
    """Scale the vertical axis to 100% with room above for a legend with these names, and draw it."""
    columns = max(1, min(3, 60 // (4 + max(map(len, names)))))
    axis.set_ylim(0, 109 + 16 * math.ceil(len(names) / columns))
    axis.set_yticks(range(0, 101, 20))
    axis.legend(frameon=False, loc="upper right", ncols=columns)


def frequent_first(run: RunFolder) -> list[int]:
    """Return the class indices by falling number of labelled images."""
    return list(np.argsort(-as_array(run.data["labeled_counts"]), kind="stable"))


def plot_class_counts(axis: Axes, run: RunFolder) -> None:
    """Draw how many images of each class are labelled and, where known, unlabelled."""
    order = frequent_first(run)
    places = np.arange(len(order))
    labeled = as_array(run.data["labeled_counts"])[order]
    shift = 0.2 if run.data.get("unlabeled_counts") else 0.0
    axis.bar(places - shift, labeled, 0.4, color=METHOD_COLORS[2], label="labelled")
    if run.data.get("unlabeled_counts"):
        unlabeled = as_array(run.data["unlabeled_counts"])[order]
        axis.bar(places + 0.2, unlabeled, 0.4, color=METHOD_COLORS[4], label="unlabelled (truth)")
    axis.set_yscale("log")
    axis.set_ylim(0.7, 3 * axis.get_ylim()[1])
    axis.set_ylabel("images")
    axis.set_title("class distribution", loc="left")
    axis.legend(frameon=False, loc="upper right", ncols=2)
    class_ticks(axis, [run.class_names[k] for k in order])


def plot_recall(axis: Axes, groups: Groups) -> None:
    """Draw recall per class of each group of runs (name: runs that differ in the seed), mean and deviation."""
    first = next(iter(groups.values()))[0]
    order = frequent_first(first)
    width = 0.8 / len(groups)
    for index, (name, runs) in enumerate(groups.items()):
        recall = 100 * np.stack([run.recall()[order] for run in runs])
        places = np.arange(len(order)) + (index - (len(groups) - 1) / 2) * width
        error = recall.std(0, ddof=1) if len(runs) > 1 else None
        spread = {"ecolor": "#333333", "elinewidth": 0.8}
        style = method_style(index)
        axis.bar(
            places,
            recall.mean(0),
            width,
            yerr=error,
            color=style["color"],
            hatch=style["hatch"],
            label=name,
            error_kw=spread,
        )
    percent_axis(axis, list(groups))
    axis.set_ylabel("recall, %")
    axis.set_title(f"recall per class on {first.summary['measured_on']} images", loc="left")
    class_ticks(axis, [first.class_names[k] for k in order])


def pseudo_label_series(run: RunFolder, part: str, number: str) -> tuple[Array, Array]:
    """Return steps (T,) and a number per class (T, K) of one part of the pseudo-labels over time.

    Args:
        run: the run.
        part: ``"linear"``, ``"semantic"``, ``"final"`` or ``"confident"``.
        number: ``"recall"``, ``"precision"``, ``"distribution"`` or ``"truth"``.
    """
    rows = [
        row for row in run.evaluations() if number in row.get("pseudo_labels", {}).get(part, {})
    ]
    steps = as_array([row["step"] for row in rows])
    values = as_array([row["pseudo_labels"][part][number] for row in rows])
    return steps, values.reshape(len(rows), len(run.class_names))


def plot_pseudo_label_bias(axis: Axes, runs: Sequence[RunFolder]) -> None:
    """Draw, over time, how over- or under-represented the rare third of the classes is among pseudo-labels.

    1 is unbiased: the share that the truth has. Without truth, the share itself is drawn. Of several runs, which
    differ in the seed, the mean is drawn.
    """
    order = frequent_first(runs[0])
    rare = order[-max(1, len(order) // 3) :]
    known = all(pseudo_label_series(run, "final", "truth")[1].size for run in runs)
    for part in ("linear", "semantic", "final"):
        curves = []
        for run in runs:
            steps, share = pseudo_label_series(run, part, "distribution")
            curve = share[:, rare].sum(1)
            if known:
                seen, truth = pseudo_label_series(run, part, "truth")
                curve, steps = curve[np.isin(steps, seen)], seen
                with np.errstate(divide="ignore", invalid="ignore"):
                    curve = np.where(
                        truth[:, rare].sum(1) > 0, curve / truth[:, rare].sum(1), np.nan
                    )
            curves.append(curve)
        length = min(map(len, curves))
        if length:
            mean = np.mean([curve[:length] for curve in curves], axis=0)
            width = {"linear": 3.0, "semantic": 1.5, "final": 1.5}[part]
            axis.plot(steps[:length], mean, color=COLORS[part], label=part, linewidth=width)
    if known:
        axis.axhline(1, color=COLORS["truth"], linewidth=0.8, linestyle=":")
    rarest = "rarest class" if len(rare) == 1 else f"{len(rare)} rarest classes"
    axis.set_ylabel(
        "share of pseudo-labels\n/ share of truth" if known else "share of pseudo-labels"
    )
    axis.set_title(f"{runs[0].method}: pseudo-labels of the {rarest}", loc="left")
    axis.set_xlabel("step")
    axis.set_ylim(bottom=0)
    if axis.lines:
        axis.legend(frameon=False, loc="lower right", ncols=3)


def plot_over_time(axis: Axes, groups: Groups, value: Callable[[Row], float | None]) -> None:
    """Draw a number of the evaluations over time, of each group the mean and a band of one standard deviation.

    Over the steps at which all runs of the group have it.

    Args:
        axis: to draw on.
        groups: name of each and its runs, which differ in the seed.
        value: returns the number of an evaluation row; where it is None the row is passed over.
    """
    for index, (name, runs) in enumerate(groups.items()):
        style = method_style(index)
        series = [
            {row["step"]: found for row in run.evaluations() if (found := value(row)) is not None}
            for run in runs
        ]
        steps = sorted(set.intersection(*map(set, series)))
        if not steps:
            continue
        values = as_array([[one[step] for step in steps] for one in series])
        axis.plot(
            steps, values.mean(0), color=style["color"], linestyle=style["linestyle"], label=name
        )
        if len(runs) > 1:
            low, high = (values.mean(0) + sign * values.std(0, ddof=1) for sign in (-1, 1))
            axis.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axis.set_xlabel("step")
    if axis.lines:
        axis.legend(frameon=False)


def plot_accuracy(axis: Axes, groups: Groups) -> None:
    """Draw balanced accuracy over time of each group of runs, as mean and band of one standard deviation."""

    def accuracy(row: Row) -> float | None:
        measured = row.get("test") or row.get("holdout") or {}
        found = measured.get("balanced_accuracy")
        return None if found is None else 100 * found

    plot_over_time(axis, groups, accuracy)
    axis.set_ylabel("balanced accuracy, %")
    axis.set_title("moving-average network over time", loc="left")


def plot_share_confident(axis: Axes, groups: Groups) -> None:
    """Draw the share of pseudo-labels that teach over time, of the groups that have pseudo-labels."""

    def share(row: Row) -> float | None:
        found = row.get("pseudo_labels", {}).get("share_confident")
        return None if found is None else 100 * found

    plot_over_time(axis, groups, share)
    axis.set_ylim(0, 100)
    axis.set_ylabel("over the threshold, %")
    axis.set_title("pseudo-labels that teach", loc="left")


def plot_rare_share(axis: Axes, groups: Groups) -> None:
    """Draw over time how many pseudo-labels say the rare third of the classes, of the truth's number if known."""
    order = frequent_first(next(iter(groups.values()))[0])
    rare = order[-max(1, len(order) // 3) :]
    guesses = [
        run
        for runs in groups.values()
        for run in runs
        if pseudo_label_series(run, "final", "distribution")[1].size
    ]
    relative = bool(guesses) and all(
        pseudo_label_series(run, "final", "truth")[1].size for run in guesses
    )

    def share(row: Row) -> float | None:
        final = row.get("pseudo_labels", {}).get("final")
        if final is None:
            return None
        found = float(as_array(final["distribution"])[rare].sum())
        truth = (
            float(as_array(final["truth"])[rare].sum()) if relative and "truth" in final else 1.0
        )
        return found / truth if truth > 0 else None

    plot_over_time(axis, groups, share)
    axis.set_ylim(bottom=0)
    if relative:
        axis.axhline(1, color=COLORS["truth"], linewidth=0.8, linestyle=":")
    axis.set_ylabel(
        "share of pseudo-labels\n/ share of truth" if relative else "share of pseudo-labels"
    )
    axis.set_title(f"pseudo-labels of the {len(rare)} rarest classes", loc="left")


def draw_run(folder: Path) -> list[Path]:
    """Draw the pictures of a run into its ``plots`` folder; return their paths.

    ``classes.png`` (counts), and where there is something to show, ``training.png`` (balanced accuracy over time),
    ``recall.png`` and ``pseudo_labels.png``.

    Raises:
        RunError: it is no run folder.
    """
    run = read_run(folder)
    groups = {run.method: [run]}
    pictures: dict[str, Any] = {
        "classes": lambda axis: plot_class_counts(axis, run),
    }
    if any("test" in row or "holdout" in row for row in run.evaluations()):
        pictures["training"] = lambda axis: plot_accuracy(axis, groups)
    if "per_class_recall" in run.summary:
        pictures["recall"] = lambda axis: plot_recall(axis, groups)
    if any("pseudo_labels" in row for row in run.evaluations()):
        pictures["pseudo_labels"] = lambda axis: plot_pseudo_label_bias(axis, [run])
    paths = []
    try:
        (folder / "plots").mkdir(exist_ok=True)
        for name, draw in pictures.items():
            figure, (axis,) = make_figure(1)
            draw(axis)
            paths.append(folder / "plots" / f"{name}.png")
            figure.savefig(paths[-1], dpi=130)
    except OSError as error:
        raise RunError(
            f"cannot write into {folder / 'plots'}: {error.strerror or error}"
        ) from error
    return paths


def draw_comparison(groups: Groups, path: Path) -> None:
    """Draw one picture that compares groups of runs: class counts, recall per class, pseudo-label bias.

    Args:
        groups: name of each method and its runs, which differ in the seed.
        path: of the PNG file to write.
    """
    guessing = [
        runs for runs in groups.values() if any("pseudo_labels" in r for r in runs[0].evaluations())
    ]
    figure, axes = make_figure(2 + len(guessing))
    plot_class_counts(axes[0], next(iter(groups.values()))[0])
    plot_recall(axes[1], groups)
    for axis, runs in zip(axes[2:], guessing, strict=True):
        plot_pseudo_label_bias(axis, runs)
        axis.set_ylim(0, max(other.get_ylim()[1] for other in axes[2:]))
    figure.savefig(path, dpi=110)
