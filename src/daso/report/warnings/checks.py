"""Check a training for silent failures of imbalanced semi-supervised learning.

The true classes of the unlabeled images are not used: users' data has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from daso.errors import how_many
from daso.files import Row
from daso.report.runs import Array
from daso.report.uncertainty import WIDE, interval, is_wide
from daso.report.warnings.run_facts import WatchedRun, Window, latest
from daso.report.wording import POOLS

HALFWAY = (1 / 3, 50_000)
"""Time before T_dist is judged: a share of the steps, or steps if that is fewer."""
PASSES = 10
"""Passes over the unlabeled images before T_dist is judged."""
EMPTY_SHARE = 0.001
"""Share of confident pseudo-labels below which there are practically none."""
LOW_SHARE = 0.05
"""Share of confident pseudo-labels below which no class is called starved if the most frequent one
has none either: then it is not their rarity that classes suffer from."""
EXPECTED_LABELS = 20
"""Confident pseudo-labels that a class should have had before it is called starved."""
STARVED_SHARE = 0.02
"""Share of its expected pseudo-labels below which a class is starved."""
FAR, NEAR = 0.25, 0.12
"""Total variation distances: the share of pseudo-labels that would have to change class."""
IMBALANCE = 0.15
"""Least distance of the labels from balance at which closeness to them means anything."""
LEAST_ACCURACY, LEAST_RARE_RECALL = 0.5, 0.25
"""Least balanced accuracy, and recall of rare classes, for pseudo-labels to be trusted."""
MATCHED_TEMPERATURE, MISMATCHED_TEMPERATURE = 1.5, 0.3
"""The paper's T_dist for labeled and unlabeled images of equal and of different distributions."""


def _warning(kind: str, message: str, advice: str, classes: Iterable[int] = ()) -> Row:
    indices = [int(k) for k in classes]
    return {"kind": kind, "message": message, "advice": advice, "classes": indices}


def additions(run: WatchedRun) -> str:
    """Return what could be added to help rare classes, such as "+daso or +la"; "" if nothing.

    A classifier that is already balanced needs no second balancing part.
    """
    names = ["+daso"] if "refine" in run.slots and "dist_temperature" not in run.options else []
    if not run.balanced_by:
        names += ["+abc"] if "terms" in run.slots else []
        names += ["+la"] if "supervised" in run.slots else ["--labeled-sampling class-balanced"]
    return ", ".join(names[:-1]) + (" or " if len(names) > 1 else "") + "".join(names[-1:])


def empty_mask(run: WatchedRun, evaluations: Sequence[Row]) -> Row | None:
    """Warn if there have been practically no confident pseudo-labels for a long time."""
    window = latest(run, evaluations)
    if window is None or not _is_empty(run, window):
        return None
    share = float(window.mean("share_confident"))
    rows = (row["pseudo_labels"] for row in evaluations if "pseudo_labels" in row)
    before = [row["share_confident"] for row in rows]
    advice = "Lower --threshold" if "threshold" in run.options else "Train longer"
    if "prototype_temperature" in run.options and max(before) >= 10 * EMPTY_SHARE:
        advice += (
            "; there were some before DASO began to blend, so a longer --warmup-steps or a lower "
            "--prototype-temperature may also help"
        )
    return _warning(
        "empty mask",
        f"almost no confident pseudo-labels of any class ({share:.1%} of all) for "
        f"{window.steps.sum():,.0f} steps; the unlabeled images are hardly used",
        f"{advice}.",
    )


def _starved(run: WatchedRun, window: Window) -> list[int]:
    """Return the classes, rarest first, with far fewer confident pseudo-labels than expected."""
    shares = [
        row["share_confident"] * np.array(row["confident"]["distribution"]) for row in window.rows
    ]
    counts = (np.array(shares) * window.steps[:, None]).sum(0) * run.images_per_step
    expected = np.minimum(run.labeled, 1 / len(run.labeled)) * counts.sum()
    starved = np.flatnonzero((counts < STARVED_SHARE * expected) & (expected >= EXPECTED_LABELS))
    return [int(k) for k in starved[np.argsort(run.labeled[starved], kind="stable")]]


def _is_empty(run: WatchedRun, window: Window) -> bool:
    """Return whether confident pseudo-labels are lacking whatever the class."""
    share = window.mean("share_confident")
    if share < EMPTY_SHARE:
        return True
    return bool(share < LOW_SHARE) and int(run.labeled.argmax()) in _starved(run, window)


def starved_classes(run: WatchedRun, evaluations: Sequence[Row]) -> Row | None:
    """Warn of classes with almost no confident pseudo-labels for long, if others have some.

    A class is starved below 2% of its share of the labeled images (or of an equal share, if less).
    Nothing is reported before 20 pseudo-labels were to be expected.
    """
    window = latest(run, evaluations)
    if window is None or _is_empty(run, window) or swallowing_class(run, evaluations):
        return None
    starved = _starved(run, window)
    if not starved:
        return None
    noun = "class" if len(starved) == 1 else "classes"
    has_threshold, more = "threshold" in run.options, additions(run)
    is_rare = run.labeled[starved[-1]] < run.labeled.max()
    advice = ["more labeled images of these classes help most"] if is_rare else []
    advice += [f"{more} may help"] if more else []
    advice += ["a lower --threshold uses less certain ones" if has_threshold else "train longer"]
    text = "; ".join(advice)
    return _warning(
        "starved classes",
        f"{noun} {run.name(starved)}: almost no "
        f"{'confident ' if has_threshold else ''}pseudo-labels for {window.steps.sum():,.0f} steps",
        f"{text[0].upper()}{text[1:]}.",
        starved,
    )


def swallowing_class(run: WatchedRun, evaluations: Sequence[Row]) -> Row | None:
    """Warn if one class has most of the pseudo-labels, far beyond its share of the labels.

    The limit is its share of the labels plus half of the rest; or, if lower, ten times its share
    (or an equal share), but at least a fifth of all pseudo-labels.
    """
    window = latest(run, evaluations)
    if window is None:
        return None
    share = window.mean("final", "distribution")
    top = int(share.argmax())
    labeled = run.labeled[top]
    if share[top] < min((1 + labeled) / 2, max(10 * labeled, 10 / len(share), 0.2)):
        return None
    more = additions(run)
    return _warning(
        "swallowing class",
        f"{share[top]:.0%} of the pseudo-labels are {run.class_names[top]}, but only "
        f"{labeled:.0%} of the labeled images",
        "If fewer unlabeled images belong to this class: check some of them (daso predict)"
        + (", raise --threshold" if "threshold" in run.options else "")
        + (f", try {more}" if more else "")
        + " or lower --learning-rate.",
        [top],
    )


def distance(one: Array, other: Array) -> float:
    """Return the total variation distance of two distributions (K,), 0 (equal) to 1 (disjoint)."""
    return float(np.abs(one - other).sum() / 2)


def unfit_temperature(run: WatchedRun, evaluations: Sequence[Row]) -> Row | None:
    """Warn if DASO's T_dist is set for the opposite case of the class distributions.

    T_dist of 1 or more is for unlabeled images that are distributed like the labeled ones. It does
    not fit if the final pseudo-labels are far from them (a distance of 0.25 or more). T_dist up to
    0.5 is for different or unknown distributions. It does not fit if the unlabeled images were
    drawn with a chosen distribution, the pseudo-labels are near the labels (0.12 or less), and the
    labels are imbalanced (0.15 or more from balance).

    It is judged after a third of the training, or 50,000 steps, and ten passes over the unlabeled
    images. Pseudo-labels of a bad classifier repeat the labels, so balanced accuracy must be 0.5 or
    more and, for near, the mean recall of the rarest third 0.25 or more. Runs of a cross-validation
    repeat another run and are not judged.
    """
    temperature = run.options.get("dist_temperature")
    blend = run.options.get("blend", "distribution")
    if temperature is None or blend != "distribution" or run.fold:
        return None
    if evaluations[-1]["step"] * run.images_per_step < PASSES * run.unlabeled:
        return None
    window = latest(run, evaluations, HALFWAY)
    measured = evaluations[-1].get(run.measured_on) or {}
    if window is None or (measured.get("balanced_accuracy") or 0) < LEAST_ACCURACY:
        return None
    finds_rare = (measured.get("recall_few") or 0) >= LEAST_RARE_RECALL
    labeled = run.labeled
    apart = distance(window.mean("final", "distribution"), labeled)
    imbalanced = distance(labeled, np.full_like(labeled, 1 / len(labeled))) >= IMBALANCE
    if temperature >= 1 and apart >= FAR:
        relation, other, doubt = "unlike", MISMATCHED_TEMPERATURE, ""
    elif temperature <= 0.5 and apart <= NEAR and imbalanced and finds_rare and run.drawn:
        relation, other = "like", MATCHED_TEMPERATURE
        doubt = " unless you know that the unlabeled images are distributed differently"
    else:
        return None
    return _warning(
        "T_dist",
        f"the pseudo-labels are distributed {relation} the labeled images ({apart:.0%} would have "
        f"to change class to match), but T_dist = {temperature:g} is for the opposite case",
        f"Train again with --dist-temperature {other:g}{doubt}.",
    )


def uncertain_measure(run: WatchedRun, evaluations: Sequence[Row]) -> Row | None:
    """Warn if there are too few images to measure on to tell methods apart, whatever they find.

    The interval is that of a classifier without a mistake, the shortest: what the run will find at
    its end cannot contradict it. Runs of a cross-validation are measured together.
    """
    measured = evaluations[-1].get(run.measured_on)
    if not measured or run.measured is None or run.fold:
        return None
    images, what = run.measured, POOLS[run.measured_on]
    half, there = interval(np.ones(len(images)), images), int((images > 0).sum())
    of = "" if there == len(images) else f" of {there} of the {len(images)} classes"
    if not is_wide(half):
        return None
    return _warning(
        "uncertain measure",
        f"{how_many(images.sum(), f'{what} image')} ({images[images > 0].min():.0f} of a class at "
        f"least){of} {'is' if images.sum() == 1 else 'are'} too few to know balanced accuracy to "
        f"within ± {100 * WIDE:.0f} points (95%), however good it is",
        "Smaller differences mean nothing: "
        + (
            "daso validate measures every labeled image; a test folder is better still."
            if run.measured_on == "holdout" and not run.drawn
            else "measure on more images, or compare several seeds (daso compare)."
        ),
    )


CHECKS = (empty_mask, starved_classes, swallowing_class, unfit_temperature, uncertain_measure)
