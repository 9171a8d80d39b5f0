"""The figures of the DASO paper from run folders: pseudo-labels per class, confusions, accuracy over time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from daso.errors import RunError
from daso.files import read_json
from daso.report.figures.axes import (
    COLORS,
    Groups,
    class_ticks,
    frequent_first,
    make_figure,
    method_style,
    percent_axis,
    plot_accuracy,
    pseudo_label_series,
)
from daso.report.reliability import reliability_bins
from daso.report.runs import Array, RunFolder, as_array

FEW_IMAGES = 10
"""Bins of confidence of fewer images are pale: their accuracy says little."""
FEW_CLASSES = 20
"""More classes are drawn as lines, and confusions without numbers."""


def pseudo_label_quality(run: RunFolder, number: str) -> Array | None:
    """Return recall or precision of the pseudo-labels per class (K,), or None where the truth is unknown.

    The mean over the evaluations that the run's summary quotes; NaN for a class of which there was nothing to
    measure.
    """
    _, values = pseudo_label_series(run, "final", number)
    quoted = values[-int(run.summary.get("evaluations", 1)) :]
    if not len(quoted):
        return None
    return _mean(quoted)


def _mean(values: Array) -> Array:
    """Return the mean over the first axis, of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    total: Array = np.where(known, values, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def plot_pseudo_labels(axis: Axes, groups: Groups, number: str) -> None:
    """Draw recall or precision of the pseudo-labels of each class, as means over the runs of a group."""
    first = next(iter(groups.values()))[0]
    order = frequent_first(first)
    places = np.arange(len(order))
    width = 0.8 / len(groups)
    for index, (name, runs) in enumerate(groups.items()):
        qualities = [
            q for q in (pseudo_label_quality(run, number) for run in runs) if q is not None
        ]
        mean = 100 * _mean(np.stack(qualities))[order]
        style = method_style(index)
        measured = int((~np.isnan(mean)).sum())
        over = "" if measured == len(order) else f" ({measured} of {len(order)} classes)"
        label = f"{name}: {_mean(mean):.1f}{over}"
        if len(order) <= FEW_CLASSES:
            axis.bar(
                places + (index - (len(groups) - 1) / 2) * width,
                mean,
                width,
                color=style["color"],
                hatch=style["hatch"],
                label=label,
            )
        else:
            axis.plot(
                places,
                mean,
                color=style["color"],
                linestyle=style["linestyle"],
                label=label,
                linewidth=1,
            )
    axis.set_xlim(-0.6, len(order) - 0.4)
    axis.set_ylabel(f"{number}, %")
    axis.set_title(f"{number} of pseudo-labels, and its mean over classes", loc="left")
    percent_axis(axis, [f"{name}: 00.0" for name in groups])
    class_ticks(axis, [first.class_names[k] for k in order])


def confusion_shares(run: RunFolder) -> Array | None:
    """Return the share of each answer among the test images of each class, (K, K); None where it was not counted.

    Raises:
        RunError: the file is damaged.
    """
    path = run.path / "confusion.json"
    if not path.exists():
        return None
    classes = len(run.class_names)
    try:
        counts = as_array(read_json(path).get("counts"))
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if counts.shape != (classes, classes):
        raise RunError(
            f"{path} is damaged: its counts are not those of {classes} classes by {classes}"
        )
    shares: Array = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def plot_confusion(axis: Axes, name: str, runs: Sequence[RunFolder]) -> None:
    """Draw the mean confusion matrix of runs, classes by falling number of labelled images."""
    order = frequent_first(runs[0])
    mean = np.mean([shares for shares in map(confusion_shares, runs) if shares is not None], axis=0)
    mean = mean[np.ix_(order, order)]
    axis.imshow(mean, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set_title(f"{name}: mean recall {100 * np.diag(mean).mean():.1f}%", loc="left")
    axis.set_xlabel("answer")
    axis.set_ylabel("class, most labelled images first")
    if len(order) > FEW_CLASSES:
        return
    names = [runs[0].class_names[k] for k in order]
    axis.set_xticks(range(len(order)), names, rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(order)), names, fontsize=7)
    for row, column in itertools.product(range(len(order)), repeat=2):
        if mean[row, column] >= 0.005:
            color = "white" if mean[row, column] > 0.5 else "black"
            axis.text(
                column,
                row,
                f"{mean[row, column]:.2f}",
                ha="center",
                va="center",
                fontsize=6,
                color=color,
            )


def draw_figures(guessing: Groups, answering: Groups, stem: Path) -> list[Path]:
    """Draw ``STEM-pseudo-labels.png``, ``STEM-confusion.png`` and ``STEM-accuracy.png``; return those drawn.

    Args:
        guessing: name of a method to its runs, which differ in the seed, to compare by their pseudo-labels and over
            time; those whose truth is unknown are left out of the former.
        answering: the same, to compare by their answers on test images.
        stem: of the paths.

    Raises:
        RunError: a run is damaged, or nothing can be written.
    """
    paths = []
    known = {
        name: list(runs)
        for name, runs in guessing.items()
        if any(pseudo_label_quality(run, "recall") is not None for run in runs)
    }
    counted = {
        name: list(runs)
        for name, runs in answering.items()
        if any(confusion_shares(run) is not None for run in runs)
    }
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        if known:
            figure, axes = make_figure(2)
            for axis, number in zip(axes, ("recall", "precision"), strict=True):
                plot_pseudo_labels(axis, known, number)
            paths.append(stem.with_name(f"{stem.name}-pseudo-labels.png"))
            figure.savefig(paths[-1], dpi=130)
        if counted:
            figure, axes = make_figure(len(counted))
            for axis, (name, runs) in zip(axes, counted.items(), strict=True):
                plot_confusion(axis, name, runs)
            figure.set_size_inches(5.5 * min(len(counted), 2), 5.5 * ((len(counted) + 1) // 2))
            paths.append(stem.with_name(f"{stem.name}-confusion.png"))
            figure.savefig(paths[-1], dpi=130)
        if guessing:
            figure, (axis,) = make_figure(1)
            plot_accuracy(axis, guessing)
            paths.append(stem.with_name(f"{stem.name}-accuracy.png"))
            figure.savefig(paths[-1], dpi=130)
    except OSError as error:
        raise RunError(f"cannot write into {stem.parent}: {error.strerror or error}") from error
    return paths


def plot_reliability(
    above: Axes, below: Axes, name: str, answers: Sequence[tuple[Array, Array]]
) -> None:
    """Draw accuracy against confidence, of the answers of all runs together, and how many images each bin has.

    Args:
        above: axes of the accuracies; a line joins each bar to the mean confidence of its bin.
        below: axes of the numbers of images.
        name: of the method.
        answers: of each run, as ``read_answers`` returns them.
    """
    confidence, correct = (np.concatenate(part) for part in zip(*answers, strict=True))
    edges, accuracy, mean, counts = reliability_bins(confidence, correct)
    middle, width = 50 * (edges[:-1] + edges[1:]), 90 * float(edges[1] - edges[0])
    for there, strength in (
        (counts >= FEW_IMAGES, 1.0),
        ((counts > 0) & (counts < FEW_IMAGES), 0.35),
    ):
        above.bar(
            middle[there], 100 * accuracy[there], width, color=COLORS["final"], alpha=strength
        )
        above.vlines(
            middle[there], 100 * accuracy[there], 100 * mean[there], colors="black", alpha=strength
        )
    above.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    # Of each run by itself, as the metrics have it: pooled, the gaps of two runs could cancel out.
    errors = [_error(*reliability_bins(*one)[1:]) for one in answers]
    spread = f" ± {100 * np.std(errors, ddof=1):.1f}" if len(errors) > 1 else ""
    above.set_title(f"{name}: calibration error {100 * np.mean(errors):.1f}{spread}%", loc="left")
    above.set_ylabel("accuracy, %")
    above.set_ylim(0, 100)
    below.bar(middle, counts / len(answers), width, color=COLORS["labeled"])
    below.set_ylabel("images")
    below.set_xlabel("confidence, %")
    below.set_xlim(0, 100)


def _error(accuracy: Array, mean: Array, counts: Array) -> float:
    return float((counts * np.abs(accuracy - mean)).sum() / counts.sum())
