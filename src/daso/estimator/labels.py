"""The labels of scikit-learn's world: any integers, strings or objects, some of them missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

Array = npt.NDArray[Any]


def unlabeled_rows(y: Array, classes: Array | None = None) -> npt.NDArray[np.bool_]:
    """Return which labels mean "not known", bool (N,).

    That are ``None``, NaN and pandas' NA. Where there are none of these and the labels are numbers, it is -1, if at
    least two other classes remain: labels of -1 and 1 are two classes.

    Args:
        y: (N,).
        classes: those of a fitted classifier; -1 is then a class or not as it was there.
    """
    if y.dtype.kind == "f":
        missing = np.isnan(y)
    elif y.dtype.kind in "OUS":
        missing = np.fromiter(map(_is_missing, y.tolist()), bool, len(y))
    else:
        missing = np.zeros(len(y), dtype=bool)
    known = np.array(y[~missing].tolist())
    if missing.any() or not len(known) or known.dtype.kind not in "if":
        return missing
    marked = known == -1
    others = np.unique(known[~marked])
    means_unknown = len(others) >= 2 if classes is None else -1 not in classes.tolist()
    missing[~missing] = marked & means_unknown
    return missing


def read_labels(y: Any, called: str) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the classes, sorted, (K,), and the place of each label among them, int64 (N,), -1 where it is not known.

    Args:
        y: the labels, array-like (N,).
        called: name of the estimator, for errors.

    Raises:
        ValueError: there are fewer than two classes, or the labels are no classes.
    """
    if y is None:
        raise ValueError(f"{called} requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    unknown = unlabeled_rows(labels)
    known = labels[~unknown]
    if not len(known) or set(known.tolist()) == {-1}:
        raise ValueError(
            f"{called}: all {len(labels)} labels are missing (-1, None or NaN). y must hold the class of each row of X "
            "where it is known, of at least two classes, and -1 where it is not; rows without a label may also come "
            "apart, as X_unlabeled"
        )
    if known.dtype.kind == "O" and np.array(known.tolist()).dtype.kind in "biuf":
        known = np.array(known.tolist())
    try:
        check_classification_targets(known)
        classes, places = np.unique(known, return_inverse=True)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in known.tolist()})
        raise ValueError(
            f"{called}: labels of several types ({', '.join(kinds)}) have no order"
        ) from error
    if len(classes) < 2:
        raise ValueError(
            f"{called} needs labels of at least two classes, got one class: {classes.tolist()[0]!r} (of {len(known)} "
            "rows)"
        )
    codes = np.full(len(labels), -1, dtype=np.int64)
    codes[~unknown] = places
    return classes, codes


def _is_missing(value: Any) -> bool:
    return (
        value is None
        or type(value).__name__ == "NAType"
        or (isinstance(value, float) and value != value)
    )
