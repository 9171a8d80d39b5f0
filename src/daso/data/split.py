"""Turn split options and a source into index arrays."""

from __future__ import annotations

import numpy as np

from daso.data.draws import Split, deal_folds, longtail_split, split_holdout
from daso.data.longtail import Indices, SplitOptions, longtail_counts, unlabeled_counts
from daso.data.source import Source, refuse_empty_classes
from daso.errors import OptionError, named


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
    if source.own_labels is not None and options.labeled_head is not None:
        raise OptionError(
            f"{named('labeled_head')} draws labels at random, those of daso label are chosen: "
            "leave them out with --no-journal"
        )
    holdout, folds = options.holdout, options.folds
    if source.validation is not None and holdout:
        raise OptionError(
            f"{source.name} has its own validation images; leave {named('holdout')} out"
        )
    if source.unlabeled is not None and options.unlabeled_head is not None:
        raise OptionError(
            f"{source.name} has its own unlabeled images; leave {named('unlabeled_head')} out"
        )
    if folds is not None and (options.labeled_head is not None or holdout):
        raise OptionError(
            f"{named('folds')} are hold-outs: leave {named('labeled_head')} and "
            f"{named('holdout')} out"
        )
    if options.labeled_head is None and options.unlabeled_head is not None:
        raise OptionError(
            f"{named('unlabeled_head')} needs {named('labeled_head')}: both are drawn from the "
            "same images"
        )
    if folds is not None:
        drawn, places = _drawn_from(source)
        return _held_out(source, places[deal_folds(drawn, folds, seed) == options.fold])
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
    names = source.class_names
    return longtail_split(labels, labeled, unlabeled, holdout=holdout, seed=seed, class_names=names)


def _split_all(source: Source, holdout: int | None, seed: int) -> Split:
    drawn, places = _drawn_from(source)
    counts = np.bincount(drawn)
    classes = np.count_nonzero(counts)
    per_class = np.zeros_like(counts)
    if holdout:
        if not len(drawn):
            raise OptionError(
                f"{source.name}: all labels are of daso label, which were chosen, not drawn: they "
                f"cannot be held out; leave {named('holdout')} out, and add test images to measure "
                "on"
            )
        if holdout < classes:
            raise OptionError(
                f"a hold-out of {holdout} is too small for {classes} classes: it takes as many "
                f"images of each; give --holdout {classes} or more"
            )
        per_class = np.clip(counts - 1, 0, holdout // classes)
    elif holdout is None and source.test is None and source.validation is None:
        per_class = counts // 5
    if not len(drawn):
        return _held_out(source, places)
    remaining, held = split_holdout(drawn, per_class, seed)
    if source.own_labels is None:
        return Split(remaining, remaining[:0], held)
    return _held_out(source, places[held])


def _drawn_from(source: Source) -> tuple[Indices, Indices]:
    """Return the labels that hold-outs are drawn from, and the images' indices, -1 without one.

    They are those before the journal's: so a hold-out stays the same from round to round.
    """
    labels, own = source.train.labels, source.own_labels
    if own is None or source.train.own is None:
        return labels, np.arange(len(labels))
    places = np.full(len(own.labels), -1, dtype=np.int64)
    is_own = source.train.own >= 0
    places[source.train.own[is_own]] = np.flatnonzero(is_own)
    there = (places >= 0) | own.left_out
    return own.labels[there], places[there]


def _held_out(source: Source, held: Indices) -> Split:
    """Return the split with these images held out, except those that a class cannot spare."""
    labels = source.train.labels
    held = np.sort(held[held >= 0])
    rest = np.delete(np.arange(len(labels)), held)
    bare = np.setdiff1d(labels, labels[rest])
    spared = np.isin(labels[held], bare)
    rest = np.sort(np.append(rest, held[spared]))
    return Split(rest, rest[:0], held[~spared])
