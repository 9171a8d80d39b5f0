"""From the options of a split, and what a source brings, to index arrays."""

from __future__ import annotations

import numpy as np

from daso.data.check.finding import listed
from daso.data.longtail import (
    Indices,
    Split,
    SplitOptions,
    deal_folds,
    longtail_counts,
    longtail_split,
    split_holdout,
    unlabeled_counts,
)
from daso.data.source import Source
from daso.errors import DataError, OptionError


def make_split(source: Source, options: SplitOptions, seed: int) -> Split:
    """Decide which of a source's labelled images are labelled, unlabelled and held out.

    With ``labeled_head`` that is a long-tailed split, with a tenth of the images held out unless the options or the
    source say otherwise. Without it, every labelled image stays labelled but for the hold-out: the number of the
    options from every class that can spare it, or, where nothing else is there to measure on, a fifth of every class;
    or a fold.

    Raises:
        DataError: a class has too few images.
        OptionError: the options do not fit each other or the source.
    """
    labels, classes = source.train.labels, len(source.class_names)
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        empty = [source.class_names[k] for k in np.flatnonzero(counts == 0)]
        raise DataError(
            f"{source.name}: no labelled image of class {listed(empty)}; label some of each"
        )
    if source.validation is not None and options.holdout:
        raise OptionError(
            f"{source.name} brings its own validation images: leave holdout out to use them"
        )
    if options.unlabeled_head is not None and source.unlabeled is not None:
        raise OptionError(
            f"{source.name} brings its own unlabelled images; leave unlabeled_head out to use them"
        )
    if options.folds is not None and (options.labeled_head is not None or options.holdout):
        raise OptionError(
            "folds hold labelled images out by themselves: leave labeled_head and holdout out"
        )
    if options.labeled_head is None:
        if options.unlabeled_head is not None:
            raise OptionError(
                "unlabeled_head needs labeled_head: a split takes both from the same images"
            )
        if options.folds is not None:
            dealt = deal_folds(labels, options.folds, seed)
            held = dealt == options.fold
            return Split(np.flatnonzero(~held), np.flatnonzero(held)[:0], np.flatnonzero(held))
        return _split_all(source, counts, options.holdout, seed)
    holdout = options.holdout
    if holdout is None:
        tenth = len(labels) // 10
        holdout = 0 if source.validation is not None or tenth < classes else tenth
    labeled = longtail_counts(options.labeled_head, options.gamma_labeled or 1, classes)
    wanted = None
    if options.unlabeled_head is not None:
        shape = options.unlabeled_shape or "consistent"
        wanted = unlabeled_counts(
            shape, options.unlabeled_head, options.gamma_unlabeled or 1, classes
        )
    return longtail_split(labels, labeled, wanted, holdout=holdout, seed=seed)


def _split_all(source: Source, counts: Indices, holdout: int | None, seed: int) -> Split:
    classes = len(counts)
    per_class = np.zeros_like(counts)
    if holdout:
        if holdout < classes:
            raise OptionError(
                f"a hold-out takes images of each of {classes} classes: {holdout} are too few"
            )
        per_class = np.minimum(holdout // classes, counts - 1)
    elif holdout is None and source.test is None and source.validation is None:
        per_class = counts // 5
    rest, held = split_holdout(source.train.labels, per_class, seed)
    return Split(rest, rest[:0], held)
