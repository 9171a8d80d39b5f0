"""Checks of the rows of a training, each for one thing that fails silently in imbalanced semi-supervised learning.

Nothing here uses the truth about the unlabelled images: people's own data has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from daso.files import Row
from daso.report.uncertainty import interval
from daso.report.warnings.run_facts import Array, RunFacts, latest

HALFWAY = (1 / 3, 50_000)
"""What needs a classifier that has learnt something is not judged before this share of the steps, or so many."""
PASSES = 10
"""T_dist is not judged before a training has seen the unlabelled images so many times."""
EMPTY = 0.001
"""A smaller share of pseudo-labels that teach is none to speak of."""
EXPECTED = 20
"""A class is not missed before it should have had so many confident pseudo-labels."""
STARVED = 0.02
"""With less than this share of the pseudo-labels that it should have, a class has none to speak of."""
FAR, NEAR = 0.25, 0.12
"""Total variation distances: the share of pseudo-labels that would have to change their class."""
IMBALANCED = 0.15
"""Labels at a smaller distance from balance do not tell whether anything is distributed like them."""
BELIEVED, FINDS_RARE = 0.5, 0.25
"""Balanced accuracy, and recall of the rare classes, from which on pseudo-labels tell how images are distributed."""
MATCHED_TEMPERATURE, MISMATCHED_TEMPERATURE = 1.5, 0.3
"""The paper's T_dist where labelled and unlabelled images are distributed alike, and where they are not."""
TAKE_LA = ("supervised", "pseudolabel", "meanteacher", "fixmatch", "boss", "usadtm")
TAKE_ABC = ("fixmatch", "boss")
TAKE_DASO = ("pseudolabel", "meanteacher", "mixmatch", "remixmatch", "fixmatch", "boss")
"""Methods that a part can be added to (``daso methods``), so that nothing is advised that is refused."""
UNCERTAIN = 0.05
"""Half of the 95% interval of a balanced accuracy from which on it is too wide to compare methods by."""


def _warning(kind: str, message: str, advice: str, classes: Iterable[int] = ()) -> Row:
    return {
        "kind": kind,
        "message": message,
        "advice": advice,
        "classes": [int(k) for k in classes],
    }


def additions(facts: RunFacts) -> str:
    """Return the parts to add to a method that would help rare classes, such as "+daso or +la"; "" if it has them.

    A method whose classifier is balanced already needs no second part for that.
    """
    learner, *added = facts.method.split("+")
    names = [] if "daso" in added or learner not in TAKE_DASO else ["+daso"]
    if not facts.balanced_by:
        names += ["+abc"] if learner in TAKE_ABC else []
        names += ["+la"] if learner in TAKE_LA else ["--labeled-sampling class-balanced"]
    return ", ".join(names[:-1]) + (" or " if len(names) > 1 else "") + "".join(names[-1:])


def empty_mask(facts: RunFacts, evaluations: Sequence[Row]) -> Row | None:
    """Warn if next to no pseudo-label teaches for long."""
    window = latest(facts, evaluations)
    if window is None or window.mean("share_confident") >= EMPTY:
        return None
    before = [
        row["pseudo_labels"]["share_confident"] for row in evaluations if "pseudo_labels" in row
    ]
    advice = "Lower --threshold" if "threshold" in facts.options else "Train longer"
    if "prototype_temperature" in facts.options and max(before) >= 10 * EMPTY:
        advice += (
            "; there were some before DASO's blend began, so a longer --warmup-steps or a lower "
            "--prototype-temperature may help too"
        )
    return _warning(
        "empty mask",
        f"no pseudo-label has been sure enough to teach for {window.steps.sum():,.0f} steps: the unlabelled "
        f"images teach next to nothing",
        f"{advice}.",
    )


def starved_classes(facts: RunFacts, evaluations: Sequence[Row]) -> Row | None:
    """Warn of classes with next to no confident pseudo-label for long, while several others have some.

    Of the confident pseudo-labels a class should have its share of the labelled images, or an equal share, whichever
    is less. Less than 2% of that is next to none; before it should have had 20, nothing is said.
    """
    window = latest(facts, evaluations)
    if (
        window is None
        or window.mean("share_confident") < EMPTY
        or swallowing_class(facts, evaluations)
    ):
        return None
    shares = [
        row["share_confident"] * np.array(row["confident"]["distribution"]) for row in window.rows
    ]
    found = (np.array(shares) * window.steps[:, None]).sum(0) * facts.images_per_step
    expected = np.minimum(facts.labeled, 1 / len(facts.labeled)) * found.sum()
    starved = np.flatnonzero((found < STARVED * expected) & (expected >= EXPECTED))
    if not len(starved):
        return None
    starved = starved[np.argsort(facts.labeled[starved], kind="stable")]
    more = additions(facts)
    confident = "confident " if "threshold" in facts.options else ""
    return _warning(
        "starved classes",
        f"next to no {confident}pseudo-label for {window.steps.sum():,.0f} steps: {facts.name(starved.tolist())}",
        "More labelled images of these classes help most; "
        + (f"so may {more}; " if more else "")
        + (
            "a lower --threshold lets less certain ones in."
            if "threshold" in facts.options
            else "train longer."
        ),
        starved,
    )


def swallowing_class(facts: RunFacts, evaluations: Sequence[Row]) -> Row | None:
    """Warn if one class takes most of the pseudo-labels, far beyond its share of the labelled images.

    That is half of what the labelled images leave to the others, or ten times its share (or an equal one) and a
    fifth of all.
    """
    window = latest(facts, evaluations)
    if window is None:
        return None
    share = window.mean("final", "distribution")
    top = int(share.argmax())
    given = facts.labeled[top]
    many = max(10 * given, 10 / len(share), 0.2)
    if share[top] < min((1 + given) / 2, many):
        return None
    return _warning(
        "swallowing class",
        f"{share[top]:.0%} of the pseudo-labels say {facts.class_names[top]}, {given:.0%} of the labelled images are",
        "Unless so many of the unlabelled images are: look at some of them (daso predict)"
        + (", raise --threshold" if "threshold" in facts.options else "")
        + (f", try {additions(facts)}" if additions(facts) else "")
        + " or lower --learning-rate.",
        [top],
    )


def distance(one: Array, other: Array) -> float:
    """Return the total variation distance of two distributions (K,), 0 (equal) to 1 (nothing in common)."""
    return float(np.abs(one - other).sum() / 2)


def unfit_temperature(facts: RunFacts, evaluations: Sequence[Row]) -> Row | None:
    """Warn if DASO's T_dist is for the other case: pseudo-labels distributed like the labelled images, or not.

    T_dist from 1 on is for unlabelled images that are distributed like the labelled ones: it does not fit where the
    final pseudo-labels are far from them (a distance of 0.25 or more). T_dist up to 0.5 is for others, and for those
    that nobody knows: it does not fit where they were drawn in a distribution that was asked for and are near (0.12
    or less), if the labelled images are imbalanced (0.15 or more from balance). Judged after a third of the training,
    or 50,000 steps, and ten passes over the unlabelled images, and only from a classifier that can be believed, by
    its latest measure: the pseudo-labels of a bad one repeat the labels, whatever the images are. So its balanced
    accuracy must be 0.5 or more and, for near, its mean recall of the rarest third 0.25 or more. The runs of a
    cross-validation repeat another one, where it is said if at all.
    """
    temperature = facts.options.get("dist_temperature")
    if (
        temperature is None
        or facts.options.get("blend", "distribution") != "distribution"
        or facts.fold
    ):
        return None
    if evaluations[-1]["step"] * facts.images_per_step < PASSES * facts.unlabeled:
        return None
    window = latest(facts, evaluations, HALFWAY)
    measured = evaluations[-1].get(facts.measured_on) or {}
    if window is None or (measured.get("balanced_accuracy") or 0) < BELIEVED:
        return None
    finds_rare = (measured.get("recall_few") or 0) >= FINDS_RARE
    labeled = facts.labeled
    apart = distance(window.mean("final", "distribution"), labeled)
    imbalanced = distance(labeled, np.full_like(labeled, 1 / len(labeled))) >= IMBALANCED
    if temperature >= 1 and apart >= FAR:
        how, other, doubt = "unlike", MISMATCHED_TEMPERATURE, ""
    elif temperature <= 0.5 and apart <= NEAR and imbalanced and finds_rare and facts.drawn:
        how, other = "like", MATCHED_TEMPERATURE
        doubt = " unless you know that the unlabelled images are distributed otherwise"
    else:
        return None
    return _warning(
        "T_dist",
        f"the pseudo-labels are distributed {how} the labelled images ({apart:.0%} would have to change class to "
        f"match), but T_dist is {temperature:g}, the setting for the opposite case",
        f"Train anew with --dist-temperature {other:g}{doubt}.",
    )


def uncertain_measure(facts: RunFacts, evaluations: Sequence[Row]) -> Row | None:
    """Warn if the images to measure on are too few to tell methods apart.

    How far off the number may be is left to the end (``interval``): it changes with every evaluation. A run of a
    cross-validation is measured together with the others.
    """
    measured = evaluations[-1].get(facts.measured_on)
    if not measured or facts.measured is None or facts.fold:
        return None
    images = facts.measured
    half = interval(np.array(measured["recall"], dtype=np.float64), images)
    if half is None or half < UNCERTAIN:
        return None
    what = {"test": "test", "holdout": "held-out"}[facts.measured_on]
    return _warning(
        "uncertain measure",
        f"{images.sum():.0f} {what} images ({images[images > 0].min():.0f} of the rarest class) are too few to tell "
        f"balanced accuracy to within ± {100 * UNCERTAIN:.0f} points (95%)",
        "Smaller differences say nothing: "
        + (
            "daso validate measures every labelled image, and a test folder measures better still."
            if facts.measured_on == "holdout" and not facts.drawn
            else "measure on more images, or compare several seeds (daso compare)."
        ),
    )


CHECKS = (empty_mask, starved_classes, swallowing_class, unfit_temperature, uncertain_measure)
