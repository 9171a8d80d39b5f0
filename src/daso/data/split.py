"""Turn split options and a source into index arrays."""

from __future__ import annotations

import numpy as np

from daso.data.longtail import (
    Split,
    SplitOptions,
    deal_folds,
    longtail_counts,
    longtail_split,
    split_holdout,
    unlabeled_counts,
)
from daso.data.source import Source, refuse_empty_classes
from daso.errors import OptionError


def make_split(source: Source, options: SplitOptions, seed: int) -> Split:
    """Split a source's labeled images into labeled, unlabeled and held-out ones.

    With ``labeled_head`` the split is long-tailed, with a tenth of the images held out unless the
    options or the source say otherwise. Without it every labeled image stays labeled, except for
    the hold-out: the given number, from every class that can spare it; a fold; or, if there are no
    validation and test images, a fifth of every class.

    Raises:
        DataError: a class has too few images.
        OptionError: the options do not fit each other or the source.
    """
    labels, classes = source.train.labels, len(source.class_names)
    refuse_empty_classes(labels, source.class_names, source.name)
    holdout, folds = options.holdout, options.folds
    if source.validation is not None and holdout:
        raise OptionError(f"{source.name} has its own validation images; leave holdout out")
    if source.unlabeled is not None and options.unlabeled_head is not None:
        raise OptionError(f"{source.name} has its own unlabeled images; leave unlabeled_head out")
    if folds is not None and (options.labeled_head is not None or holdout):
        raise OptionError("folds are hold-outs: leave labeled_head and holdout out")
    if options.labeled_head is None and options.unlabeled_head is not None:
        raise OptionError("unlabeled_head needs labeled_head: both are drawn from the same images")
    if folds is not None:
        held = deal_folds(labels, folds, seed) == options.fold
        return Split(np.flatnonzero(~held), np.flatnonzero(held)[:0], np.flatnonzero(held))
    if options.labeled_head is None:
        return _split_all(source, holdout, seed)
    if holdout is None:
        tenth = len(labels) // 10
        holdout = 0 if source.validation is not None or tenth < classes else tenth
    labeled = longtail_counts(options.labeled_head, options.gamma_labeled or 1, classes)
    unlabeled = None
    if options.unlabeled_head is not None:
        shape, gamma = options.unlabeled_shape or "consistent", options.gamma_unlabeled or 1
        unlabeled = unlabeled_counts(shape, options.unlabeled_head, gamma, classes)
    return longtail_split(labels, labeled, unlabeled, holdout=holdout, seed=seed)


def _split_all(source: Source, holdout: int | None, seed: int) -> Split:
    classes = len(source.class_names)
    counts = np.bincount(source.train.labels, minlength=classes)
    per_class = np.zeros_like(counts)
    if holdout:
        if holdout < classes:
            raise OptionError(f"a hold-out of {holdout} is too small for {classes} classes")
        per_class = np.minimum(holdout // classes, counts - 1)
    elif holdout is None and source.test is None and source.validation is None:
        per_class = counts // 5
    remaining, held = split_holdout(source.train.labels, per_class, seed)
    return Split(remaining, remaining[:0], held)
