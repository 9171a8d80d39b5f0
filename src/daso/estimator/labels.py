"""Labels as in scikit-learn: integers, strings or objects, some of them missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from daso.data.class_names import INTEGER, is_missing, listed, name_faults
from daso.evaluate.metrics import Array


def as_column(y: Any) -> Array:
    """Return labels as an array (N,), ``None`` where a masked array hides one."""
    if np.ma.isMaskedArray(y) and np.ma.getmaskarray(y).any():
        hidden, y = np.ma.getmaskarray(y), y.data.astype(object)
        y[hidden] = None
    else:
        kind: Any = getattr(y, "dtype", None)
        if hasattr(kind, "categories") or (hasattr(kind, "na_value") and kind.kind in "biu"):
            y = y.astype(object)  # pandas would make floats of whole numbers beside a gap
    return np.asarray(column_or_1d(y, warn=True))


def unlabeled_rows(y: Array, classes: Array | None = None) -> npt.NDArray[np.bool_]:
    """Return which labels are missing, bool (N,).

    These are ``None``, NaN and pandas' NA, also as texts, and -1 beside texts. If the labels are
    numbers, or texts of numbers, -1 means missing provided that at least two other classes remain:
    -1 and 1 are two classes.

    Args:
        classes: of a fitted classifier, which decide whether -1 is a class; None: *y* decides.
    """
    if y.dtype.kind in "OUS":
        missing = np.fromiter(map(_is_missing, y.tolist()), bool, len(y))
        marked = np.fromiter(map(_is_minus_one, y.tolist()), bool, len(y))
    else:
        missing = y != y  # NaN and NaT
        marked = y == -1
    others = set(y[~missing & ~marked].tolist())
    if not all(not isinstance(value, str) or INTEGER.fullmatch(value) for value in others):
        means_missing = True
    elif classes is not None:
        means_missing = not any(map(_is_minus_one, classes.tolist()))
    else:
        means_missing = len(others) >= 2
    return np.asarray(missing | (marked & means_missing))


def read_labels(y: Any, called: str) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the sorted classes, (K,), and the index of each label, int64 (N,), -1 if missing.

    Raises:
        ValueError: there are fewer than two classes, or the labels cannot be classes.
    """
    if y is None:
        raise ValueError(f"{called} requires y to be passed, but the target y is None")
    labels = as_column(y)
    missing = unlabeled_rows(labels)
    present = labels[~missing]
    if not len(present) or set(present.tolist()) == {-1}:
        raise ValueError(
            f"{called}: all {len(labels)} labels are missing (-1, None or NaN). y must hold the "
            f"class of each labeled row of X, of at least two classes, and -1 for the others; "
            f"unlabeled rows can also be passed as X_unlabeled"
        )
    if present.dtype.kind == "O" and np.array(present.tolist()).dtype.kind in "biuf":
        present = np.array(present.tolist())
    if any(isinstance(value, bytes) for value in present.tolist()):
        raise ValueError(f"{called}: labels must not be bytes; decode them: y.astype(str)")
    texts = [isinstance(value, str) for value in present.tolist()]
    if any(texts) and not all(texts):
        kinds = ", ".join(sorted({type(value).__name__ for value in present.tolist()}))
        raise ValueError(
            f"{called}: labels of several types ({kinds}) cannot be sorted; give all as texts, or "
            "all as numbers"
        )
    check_classification_targets(present)
    classes, indices = np.unique(present, return_inverse=True)
    if len(classes) < 2:
        found = f"one class: {classes.tolist()[0]!r} (of {len(present)} rows)"
        raise ValueError(f"{called} needs labels of at least two classes, got {found}")
    for note in _doubts(labels[missing], classes):
        warnings.warn(f"{called}: {note}", UserWarning, stacklevel=3)
    codes = np.full(len(labels), -1, dtype=np.int64)
    codes[~missing] = indices
    return classes, codes


def _doubts(missing: Array, classes: Array) -> Iterator[str]:
    """Yield which texts were read as missing labels, and class names that may be others."""
    texts = sorted(
        {value for value in missing.tolist() if isinstance(value, str) and value.strip()}
    )
    if read := [text for text in texts if not _is_minus_one(text)]:
        yield f"labels that were read as missing: {listed(read)}"
    if classes.dtype.kind in "OUS":
        yield from (f"{text}: {cure}" for _, text, cure in name_faults(classes.tolist()))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not _is_minus_one(value) and is_missing(value)
    is_nan = isinstance(value, float) and value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType") or is_nan


def _is_minus_one(value: Any) -> bool:
    return str(value).strip() in ("-1", "-1.0")
