"""Long-tailed splits as they are asked for: options and class counts, known without numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from daso.constraints import check_options
from daso.errors import OptionError, Range, flag

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Indices: TypeAlias = "npt.NDArray[np.int64]"
Shape = Literal["consistent", "uniform", "reversed", "middle", "head-tail"]


@dataclass(frozen=True)
class SplitOptions:
    """Which images of a source are labeled, unlabeled and held out; the source decides the rest."""

    labeled_head: Annotated[int, Range(1)] | None = None
    """N1: labeled images of the largest class (default: all labeled images of the source)."""
    unlabeled_head: Annotated[int, Range(1)] | None = None
    """M1: unlabeled images of the largest class (default: the source's own unlabeled images)."""
    gamma_labeled: Annotated[float, Range(1)] | None = None
    """Imbalance ratio of the labeled images: largest class over smallest; 1 is balanced."""
    gamma_unlabeled: Annotated[float, Range(1)] | None = None
    """Imbalance ratio of the unlabeled images."""
    unlabeled_shape: Shape | None = None
    """Class distribution of the unlabeled images: as the labeled one, uniform, reversed, with most
    images in the middle classes, or in the first and last ones (head-tail)."""
    holdout: Annotated[int, Range(0)] | None = None
    """Images held out to choose a model on: a total, the same number of each class (0: none)."""
    folds: Annotated[int, Range(2)] | None = None
    """Number of folds for cross-validation (daso validate)."""
    fold: Annotated[int, Range(0)] | None = None
    """The fold that is held out, from 0."""

    def __post_init__(self) -> None:
        check_options(self)
        if (self.folds is None) != (self.fold is None):
            raise OptionError("give both or neither of folds and fold, as --folds 5 --fold 0")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            last = self.folds - 1
            raise OptionError(
                f"fold = {self.fold} ({flag('fold')}) must be one of folds = {self.folds}, from 0 "
                f"to {last}"
            )

    @property
    def mismatched(self) -> bool:
        """Whether unlabeled images are drawn from a different distribution than labeled ones."""
        ratios = [gamma or 1 for gamma in (self.gamma_labeled, self.gamma_unlabeled)]
        differs = self.unlabeled_shape not in (None, "consistent") or ratios[0] != ratios[1]
        return self.unlabeled_head is not None and differs


def longtail_counts(head: int, gamma: float, num_classes: int) -> Indices:
    """Return the class counts of an exponential long tail, int64 (K,), largest class first.

    ``n_k = floor(head * (1 / gamma) ** (k / (K - 1)))``, in double precision and in this order of
    operations, as the published counts were computed.

    Args:
        head: images of class 0, at least 1.
        gamma: imbalance ratio head / tail, at least 1.
        num_classes: K, at least 2.

    Raises:
        OptionError: the tail would be empty.
    """
    last = num_classes - 1.0
    counts = [int(head * ((1.0 / gamma) ** (rank / last))) for rank in range(num_classes)]
    if counts[-1] < 1:
        raise OptionError(
            f"a head of {head} with imbalance ratio {gamma:g} leaves class {counts.index(0)} "
            f"empty; use a head of at least {math.ceil(gamma)} or a smaller ratio"
        )
    import numpy as np  # here, so that the command line describes splits without it

    return np.array(counts, dtype=np.int64)


def unlabeled_counts(shape: Shape, head: int, gamma: float, num_classes: int) -> Indices:
    """Return the class counts of the unlabeled images, int64 (K,).

    ``consistent`` is long-tailed like the labeled images. ``uniform`` is *head* images of every
    class. ``reversed`` is the long tail in reversed class order (gamma_u = 1/gamma in the paper).
    ``middle`` and ``head-tail`` are those of SimPro's authors (arXiv 2402.13505): counts of even
    rank on one side and of odd rank on the other, falling from the middle or towards it.
    """
    if shape == "uniform":
        return longtail_counts(head, 1.0, num_classes)
    counts = longtail_counts(head, gamma, num_classes)
    even, odd = counts[::2], counts[1::2]
    shapes: dict[Shape, list[Indices]] = {
        "consistent": [counts],
        "reversed": [counts[::-1]],
        "middle": [even[::-1], odd],
        "head-tail": [odd, even[::-1]],
    }
    import numpy as np

    return np.concatenate(shapes[shape])
