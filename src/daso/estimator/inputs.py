"""The inputs of the networks: images as they are, standardized features; and the training pools."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from daso.data.draws import split_holdout
from daso.data.images.decoded import DecodedImages
from daso.data.source import UNLABELED, Source
from daso.errors import DataError, OptionError
from daso.evaluate.metrics import Array


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each feature, float64 (D,); infinite if it is constant."""

    mean: Array
    scale: Array

    @classmethod
    def of(cls, rows: Array) -> Scaling:
        # Squares of 1e200 and of 1e-200 are no numbers; a power of two changes no digit.
        unit = np.ldexp(1.0, np.frexp(np.abs(rows).max(0))[1] - 1)
        mean, scale = unit * (rows / unit).mean(0), unit * (rows / unit).std(0)
        # A feature that did not vary (but for rounding) has taught nothing: it becomes 0.
        return cls(mean, np.where(scale > 1e-12 * np.abs(mean), scale, np.inf))

    def __call__(self, rows: Array) -> Array:
        """Return standardized features, float64 (N, D)."""
        return np.asarray((rows - self.mean) / self.scale)


def build_source(
    rows: Array, codes: Array, unlabeled: Array, classes: int, *, validation_fraction: float | None
) -> Source:
    """Return the pools of a training.

    Args:
        rows: labeled images, uint8 (N, C, H, W), or standardized features, (N, D).
        unlabeled: rows without a label, (M, ...); if there are none, the labeled rows are used.
        validation_fraction: share of each class's labeled rows that is held out; None: no hold-out.

    Raises:
        OptionError: the fraction is not between 0 and 1.
        DataError: no class has a row to hold out.
    """

    def pool(members: Array, labels: Array) -> DecodedImages:
        images = members.astype(np.float32)[:, None] if members.ndim == 2 else members
        return DecodedImages(images, labels)

    validation = None
    if validation_fraction is not None:
        if not 0 < validation_fraction < 1:
            raise OptionError(
                f"validation_fraction = {validation_fraction!r}: must be between 0 and 1"
            )
        counts = np.bincount(codes, minlength=classes)
        taken = np.minimum(np.rint(validation_fraction * counts).astype(np.int64), counts - 1)
        if not taken.any():
            raise DataError(f"early_stopping: {len(codes)} labeled rows are too few for a hold-out")
        kept, held = split_holdout(codes, taken, seed=0)
        validation = pool(rows[held], codes[held])
        rows, codes = rows[kept], codes[kept]
    if not len(unlabeled):
        unlabeled = rows
    return Source(
        name="arrays",
        class_names=tuple(map(str, range(classes))),
        train=pool(rows, codes),
        unlabeled=pool(unlabeled, np.full(len(unlabeled), UNLABELED)),
        validation=validation,
    )
