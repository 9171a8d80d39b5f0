"""Pictures of runs for notebooks and papers: each function takes run folders and returns a matplotlib figure.

    from daso.report.figures import public as pictures

    pictures.recall("runs/photos")
    seeds = {name: [f"runs/demo-1/{name}-{seed}" for seed in range(5)] for name in ("fixmatch", "fixmatch+daso")}
    pictures.recall(seeds).savefig("recall.pdf")

Nothing is global: pyplot is not touched, and the axes of a figure (``figure.axes``) can be changed at will. What
takes several runs takes one folder, a list of them, or a dict of name to folders; runs of a name differ in the seed,
and their mean and standard deviation are drawn. Without names runs go by their method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from daso.errors import RunError, nearest
from daso.report.figures import axes as plots
from daso.report.figures.axes import Groups
from daso.report.figures.feature_map import plot_embedding
from daso.report.figures.paper import (
    confusion_shares,
    plot_confusion,
    plot_pseudo_labels,
    plot_reliability,
    pseudo_label_quality,
)
from daso.report.reliability import read_answers
from daso.report.runs import RunFolder, as_array, read_run
from daso.report.tsne import read_embedding

OneRun = str | Path | RunFolder
Runs = OneRun | Sequence[OneRun] | Mapping[str, OneRun | Sequence[OneRun]]


def as_run(run: OneRun) -> RunFolder:
    """Return a run of a folder.

    Raises:
        RunError: it is no run folder, or damaged.
    """
    return run if isinstance(run, RunFolder) else read_run(Path(run))


def as_groups(runs: Runs) -> Groups:
    """Return runs by name, those without a name by method."""
    if isinstance(runs, Mapping):
        return {name: _listed(members) for name, members in runs.items()}
    groups: dict[str, list[RunFolder]] = {}
    for run in _listed(runs):
        groups.setdefault(run.method, []).append(run)
    return groups


def _listed(runs: OneRun | Sequence[OneRun]) -> list[RunFolder]:
    if isinstance(runs, str | Path | RunFolder):
        return [as_run(runs)]
    return [as_run(run) for run in runs]


def _with(groups: Groups, has: Callable[[RunFolder], bool], what: str) -> Groups:
    """Return the groups all of whose runs have something.

    Raises:
        RunError: none has.
    """
    found = {name: runs for name, runs in groups.items() if runs and all(map(has, runs))}
    if not found:
        paths = ", ".join(str(run.path) for runs in groups.values() for run in runs) or "no run"
        raise RunError(f"{paths}: {what}")
    return found


def _draw(plot: Callable[[Axes], None]) -> Figure:
    figure, (axis,) = plots.make_figure(1)
    plot(axis)
    return figure


def _is_measured(run: RunFolder) -> bool:
    return any("test" in row or "holdout" in row for row in run.evaluations())


def _guesses(run: RunFolder) -> bool:
    return any("pseudo_labels" in row for row in run.evaluations())


NOT_MEASURED = "not evaluated yet, or there are no images to measure on"
NO_GUESSES = "no pseudo-labels: the method makes none, or was not evaluated yet"


def class_counts(run: OneRun) -> Figure:
    """Draw how many images of each class are labelled and, where known, unlabelled."""
    return _draw(lambda axis: plots.plot_class_counts(axis, as_run(run)))


def recall(runs: Runs) -> Figure:
    """Draw recall per class of complete runs, most labelled class first."""
    groups = _with(
        as_groups(runs),
        lambda run: "per_class_recall" in run.summary,
        "not complete, or not measured",
    )
    return _draw(lambda axis: plots.plot_recall(axis, groups))


def accuracy(runs: Runs) -> Figure:
    """Draw balanced accuracy over time."""
    groups = _with(as_groups(runs), _is_measured, NOT_MEASURED)
    return _draw(lambda axis: plots.plot_accuracy(axis, groups))


def over_threshold(runs: Runs) -> Figure:
    """Draw the share of pseudo-labels that teach over time."""
    groups = _with(as_groups(runs), _guesses, NO_GUESSES)
    return _draw(lambda axis: plots.plot_share_confident(axis, groups))


def rare_pseudo_labels(runs: Runs) -> Figure:
    """Draw how many pseudo-labels say the rare third of the classes over time, of how many should where known."""
    groups = _with(as_groups(runs), _guesses, NO_GUESSES)
    return _draw(lambda axis: plots.plot_rare_share(axis, groups))


def pseudo_label_bias(runs: OneRun | Sequence[OneRun]) -> Figure:
    """Draw the same of one method's linear, semantic and final pseudo-labels, as the mean over its runs."""
    (members,) = _with({"": _listed(runs)}, _guesses, NO_GUESSES).values()
    return _draw(lambda axis: plots.plot_pseudo_label_bias(axis, members))


def pseudo_labels(runs: Runs, number: Literal["recall", "precision"] = "recall") -> Figure:
    """Draw recall or precision of the pseudo-labels per class at the end, where the truth is known."""
    groups = _with(
        as_groups(runs),
        lambda run: pseudo_label_quality(run, number) is not None,
        "no pseudo-labels, or their truth is not known",
    )
    return _draw(lambda axis: plot_pseudo_labels(axis, groups, number))


def confusion(runs: OneRun | Sequence[OneRun]) -> Figure:
    """Draw the confusion matrix of complete runs of one method, as shares of the true class."""
    (members,) = _with(
        {"": _listed(runs)},
        lambda run: confusion_shares(run) is not None,
        "no confusion.json: not complete",
    ).values()
    figure = _draw(lambda axis: plot_confusion(axis, members[0].method, members))
    figure.set_size_inches(5.5, 5.5)
    return figure


def reliability(runs: OneRun | Sequence[OneRun], *, logit_adjusted: bool = False) -> Figure:
    """Draw accuracy against confidence of the answers of runs of one method, and how many images have which confidence.

    A bar below the dotted line: sure too often. The calibration error (Guo et al., 2017) is the mean over runs.
    """
    members = _listed(runs)
    answers = [read_answers(run, logit_adjusted) for run in members]
    found = [answer for answer in answers if answer is not None]
    if not found or len(found) < len(members):
        lacking = next(
            run.path for run, answer in zip(members, answers, strict=True) if answer is None
        )
        raise RunError(
            f"{lacking}: no answers in beliefs.safetensors: it is not there yet, or nothing is measured on"
        )
    figure, axes = plots.make_figure(2)
    figure.set_size_inches(6, 5)
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
    for row, axis in enumerate(axes):
        axis.set_subplotspec(grid[row, 0])
    axes[0].sharex(axes[1])
    axes[0].tick_params(labelbottom=False)
    name = members[0].method + (", logit-adjusted" if logit_adjusted else "")
    plot_reliability(axes[0], axes[1], name, found)
    return figure


def embedding_map(
    run: OneRun,
    *,
    by: Literal["pseudo-label", "truth"] = "pseudo-label",
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw a map of what the network sees as alike: unlabelled and labelled images, and the prototypes with names.

    Placed by t-SNE of the features: near means alike, distances between groups mean little. Up to 42 classes have a
    colour and a shape of their own; more are coloured by their number of labelled images.

    Args:
        run: the run, complete or not.
        by: what the unlabelled images are drawn as: their pseudo-label, or their class where it is known.
        classes: names of those to tell apart, the others are pale; all if it is left out.

    Raises:
        RunError: the run has no such class, or has not written what it believes, or the truth is not known.
    """
    one = as_run(run)
    names = one.class_names
    if missing := [name for name in classes or () if name not in names]:
        raise RunError(f"{one.path}: no class {missing[0]!r}.{nearest(missing[0], names)}")
    found = read_embedding(one)
    if found is None:
        raise RunError(
            f"{one.path}: no features for a map in beliefs.safetensors: it is not there yet, or the run has no "
            f"unlabelled images"
        )
    if by == "truth" and not (found.truth >= 0).any():
        raise RunError(f"{one.path}: no truth: the classes of the unlabelled images are not known")
    shown = found.final if by == "pseudo-label" else found.truth
    counts = as_array(one.data["labeled_counts"])
    singled = [names.index(name) for name in names if classes is None or name in classes]
    figure = _draw(lambda axis: plot_embedding(axis, found, shown, names, counts, singled))
    figure.set_size_inches(10, 5.8)
    return figure


def blending_weights(run: OneRun) -> Figure:
    """Draw over time how much the guesses of each class lean on the prototypes: DASO's v_k, 0 to 1."""
    one = as_run(run)
    rows = [row for row in one.evaluations() if "blend_weight" in row.get("pseudo_labels", {})]
    if not rows:
        raise RunError(
            f"{one.path}: no blending weights: its method has none, or was not evaluated yet"
        )
    order = plots.frequent_first(one)
    weights = np.stack([as_array(row["pseudo_labels"]["blend_weight"])[order] for row in rows])

    def plot(axis: Axes) -> None:
        steps = [row["step"] for row in rows]
        edges = [0, *steps] if rows[0]["step"] > 0 else [*steps, steps[-1] + 1]
        drawn = axis.pcolormesh(
            edges, np.arange(len(order) + 1) - 0.5, weights.T, cmap="Blues", vmin=0, vmax=1
        )
        axis.figure.colorbar(drawn, ax=axis, label="weight of the prototypes")
        axis.invert_yaxis()
        axis.set_xlabel("step")
        axis.set_ylabel("class, most labelled images first")
        axis.set_title("how much each class leans on the prototypes", loc="left")
        if len(order) <= 20:
            axis.set_yticks(range(len(order)), [one.class_names[k] for k in order], fontsize=8)

    return _draw(plot)
