"""Figures of runs for notebooks and papers: each function returns a Matplotlib figure.

    from daso.report import figures

    figures.recall("runs/photos")
    seeds = {name: [f"runs/demo-1/{name}-{seed}" for seed in range(5)] for name in METHODS}
    figures.recall(seeds).savefig("recall.pdf")

Pyplot is not used, and the axes of a figure (``figure.axes``) can be changed. *runs* is one folder,
a list of folders, or a dict of name to folders; the runs of a name differ in the seed, and their
mean and standard deviation are drawn. Without names, runs are grouped by method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from daso.errors import RunError, nearest, same_name
from daso.report import charts
from daso.report.charts import Groups
from daso.report.reliability import answers_on
from daso.report.runs import RunFolder, as_array, read_run
from daso.report.tsne import place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OneRun = str | Path | RunFolder
Runs = OneRun | Sequence[OneRun] | Mapping[str, OneRun | Sequence[OneRun]]

NO_PSEUDO_LABELS = "no pseudo-labels: the method makes none, or was not evaluated yet"


def _read(runs: OneRun | Sequence[OneRun]) -> list[RunFolder]:
    listed = [runs] if isinstance(runs, str | Path | RunFolder) else runs
    return [run if isinstance(run, RunFolder) else read_run(Path(run)) for run in listed]


def as_groups(runs: Runs) -> Groups:
    """Return runs by name, those without a name by method."""
    if isinstance(runs, Mapping):
        return {name: _read(members) for name, members in runs.items()}
    groups: dict[str, list[RunFolder]] = {}
    for run in _read(runs):
        groups.setdefault(run.method, []).append(run)
    return groups


def _draw(make: Callable[[Groups], charts.Chart | None], runs: Runs, lack: str) -> Figure:
    from daso.report.figures.draw import draw

    groups = as_groups(runs)
    chart = make(groups)
    if chart is None:
        paths = ", ".join(str(run.path) for runs in groups.values() for run in runs)
        raise RunError(f"{paths}: {lack}")
    return draw(chart)


def class_counts(run: OneRun) -> Figure:
    """Draw how many images of each class are labeled and, where known, unlabeled."""
    (one,) = _read(run)
    return _draw(lambda _: charts.class_counts(one), one, "no labeled images")


def recall(runs: Runs) -> Figure:
    """Draw recall per class of complete runs, most labeled class first."""
    return _draw(charts.recall, runs, "not complete, or nothing was measured")


def accuracy(runs: Runs) -> Figure:
    """Draw balanced accuracy over time."""
    return _draw(charts.accuracy, runs, "not evaluated yet, or nothing to measure on")


def over_threshold(runs: Runs) -> Figure:
    """Draw the share of pseudo-labels used over time."""
    return _draw(charts.pseudo_labels_used, runs, NO_PSEUDO_LABELS)


def rare_pseudo_labels(runs: Runs) -> Figure:
    """Draw the share of the rare third of the classes among the pseudo-labels over time.

    Where the truth is known, it is relative to the share that it should have.
    """
    return _draw(charts.rare_pseudo_labels, runs, NO_PSEUDO_LABELS)


def pseudo_label_bias(runs: OneRun | Sequence[OneRun]) -> Figure:
    """Draw the rare third's share of linear, semantic and final pseudo-labels."""
    members = _read(runs)
    return _draw(lambda _: charts.pseudo_label_bias(members), members, NO_PSEUDO_LABELS)


def pseudo_labels(runs: Runs, number: Literal["recall", "precision"] = "recall") -> Figure:
    """Draw recall or precision of the pseudo-labels per class at the end."""
    chart = partial(charts.pseudo_labels_by_class, what=number)
    return _draw(chart, runs, "no pseudo-labels, or their truth is unknown")


def confusion(runs: OneRun | Sequence[OneRun]) -> Figure:
    """Draw the confusion matrix of complete runs of one method, in shares of the true class."""
    from daso.report.figures.draw import draw_confusions

    members = _read(runs)
    for run in members:
        if charts.confusion_shares(run) is None:
            raise RunError(f"{run.path}: no confusion.json: not complete")
    return draw_confusions({members[0].method: members})


def reliability(runs: OneRun | Sequence[OneRun], *, logit_adjusted: bool = False) -> Figure:
    """Draw accuracy against confidence of runs of one method, and images by confidence.

    A bar below the dotted line means overconfidence. The calibration error (Guo et al., 2017) is
    the mean over the runs.
    """
    from daso.report.figures.draw import draw_reliability

    members, answers = _read(runs), []
    for run in members:
        part = run.measured_on or "test"
        answer = run.believed(partial(answers_on, part=part, logit_adjusted=logit_adjusted))
        if answer is None:
            raise RunError(f"{run.path}: no answers in beliefs.safetensors, or no such file yet")
        answers.append(answer)
    name = members[0].method + (", logit-adjusted" if logit_adjusted else "")
    return draw_reliability(name, answers)


def embedding_map(
    run: OneRun,
    *,
    by: Literal["pseudo-label", "truth"] = "pseudo-label",
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw a map of the features: unlabeled and labeled images, and named prototypes.

    The features are placed by t-SNE: neighbors are similar; distances between groups mean little.
    Up to 42 classes have their own color and shape; more are colored by their number of labeled
    images.

    Args:
        by: class that colors the unlabeled images.
        classes: names of those to highlight, the others are pale (default: all).

    Raises:
        RunError: a class is unknown, the run has not written its features, or truth is unknown.
    """
    from daso.report.figures.feature_map import draw_map

    (one,) = _read(run)
    names = one.class_names
    classes = None if classes is None else [same_name(name, names) for name in classes]
    if missing := [name for name in classes or () if name not in names]:
        raise RunError(f"{one.path}: no class {missing[0]!r}.{nearest(missing[0], names)}")
    placed = one.believed(partial(place, num_classes=one.num_classes))
    if placed is None:
        raise RunError(
            f"{one.path}: no map in beliefs.safetensors: not written yet, or no unlabeled images"
        )
    if by == "truth" and not (placed.truth >= 0).any():
        raise RunError(f"{one.path}: no truth: the classes of the unlabeled images are unknown")
    shown = placed.final if by == "pseudo-label" else placed.truth
    highlighted = [k for k, name in enumerate(names) if classes is None or name in classes]
    return draw_map(placed, shown, names, as_array(one.data["labeled_counts"]), highlighted)


def blending_weights(run: OneRun) -> Figure:
    """Draw each class's weight of the prototypes, DASO's v_k from 0 to 1, over time."""
    from daso.report.figures.draw import draw_blending_weights

    (one,) = _read(run)
    steps, weights = one.classes_over_time("pseudo_labels", "blend_weight")
    if not len(steps):
        raise RunError(
            f"{one.path}: no blending weights: its method has none, or was not evaluated yet"
        )
    return draw_blending_weights(one, steps, weights)
