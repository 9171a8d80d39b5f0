"""The result of every reader: the decoded parts of a data set and its metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.data.class_names import listed
from daso.data.images.decoded import DecodedImages
from daso.errors import DataError

UNLABELED = -1
"""The label of an image whose class is unknown."""
PARTS = ("train", "unlabeled", "validation", "test")


@dataclass(frozen=True)
class OwnLabels:
    """The M labeled images of a data set before its journal: hold-outs are drawn from them.

    Attributes:
        labels: int64 (M,), in the numbers of the classes before.
        left_out: bool (M,), which the journal leaves out.
        rows: int64 (N,), for each labeled image now its index among the M, -1 for those that were
            labeled in the page: they were chosen, not drawn, and measure nothing.
    """

    labels: npt.NDArray[np.int64]
    left_out: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A data set before any split.

    Attributes:
        name: of the source in a run folder, e.g. ``"cifar10"``.
        class_names: the K class names; a label indexes them.
        train: images with known labels; benchmark splits are drawn from them.
        unlabeled, validation, test: the source's own unlabeled images, hold-out and test set.
        flip: whether a mirrored image keeps its class (false for digits).
        mean, std: per channel, in [0, 1], the published normalization; None: computed from the
            training images.
        place: the file or folder of a named source; None for other sources.
        skipped: (name, reason) of everything that was left out on request.
        notes: messages to read before training, one line each.
        own_labels: the labels before those of the journal; None: there is no journal.
        journal: entries, checksum and numbers of the journal that was applied.
        partial: labels are to come from a journal; see ``Listing.partial``.
    """

    name: str
    class_names: tuple[str, ...]
    train: DecodedImages
    unlabeled: DecodedImages | None = None
    validation: DecodedImages | None = None
    test: DecodedImages | None = None
    flip: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    place: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    own_labels: OwnLabels | None = None
    journal: dict[str, Any] | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        if len(self.class_names) < 2 and not self.partial:
            found = list(self.class_names)
            numbered = self.unlabeled is not None and all(
                name.lstrip("+").isdigit() for name in found
            )
            more = "; -1 means unlabeled" if numbered else ""
            what = f"a classifier needs at least two classes, found {found}{more}"
            raise DataError(f"{self.name}: {what}")
        twice = [name for name, times in Counter(self.class_names).items() if times > 1]
        if twice:
            what = f"several classes have the name {listed(twice)}"
            raise DataError(f"{self.name}: {what}; give each class a name of its own")
        shape = self.train.images.shape[1:]
        axes = "(channels, height, width)" if len(shape) == 3 else "(versions, dimensions)"
        for part, images in self.parts().items():
            if images.images.shape[1:] != shape:
                raise DataError(
                    f"{self.name}: {part} images are {images.images.shape[1:]}, train images "
                    f"{shape} {axes}; they must agree"
                )
            where = f"{self.name}: {part}"
            check_labels(images.labels, len(self.class_names), where, unknown=part == "unlabeled")

    def parts(self) -> dict[str, DecodedImages]:
        """Return the parts that the source has, by their names in ``PARTS``."""
        parts = {part: getattr(self, part) for part in PARTS}
        return {part: images for part, images in parts.items() if images is not None}


def parts_of(images: Mapping[str, DecodedImages]) -> dict[str, Any]:
    """Return images by part as fields of a ``Source``: None for a part without images."""
    return {part: images.get(part) or None for part in PARTS}


def check_labels(
    labels: npt.NDArray[np.int64], classes: int, where: str, *, unknown: bool = False
) -> None:
    """Raise a ``DataError`` unless all labels are 0 to K - 1, or -1 if *unknown* is set."""
    bad = np.flatnonzero((labels < (UNLABELED if unknown else 0)) | (labels >= classes))
    if len(bad):
        raise DataError(
            f"{where} label {labels[bad[0]]} at index {bad[0]} is out of range ({len(bad)} such); "
            f"labels must be 0 to {classes - 1}" + (", or -1 for unknown" if unknown else "")
        )


def renumber_used(
    labels: Iterable[npt.NDArray[np.int64]], class_names: Sequence[str], optional: Collection[str]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Leave out classes without any image that only a list of names knows.

    Args:
        labels: of each part, -1 where unknown.
        optional: names that may be left out.

    Returns:
        The new number of each class, -1 if it is left out and as the last one, for unknown labels;
        and a note of what is left out, or ().
    """
    used = np.isin(np.arange(len(class_names)), np.concatenate(list(labels)))
    used |= not used.any()  # nothing is labeled, which is another fault
    used |= np.array([name not in optional for name in class_names], dtype=bool)
    numbers = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
    unused = [class_names[int(k)] for k in np.flatnonzero(~used)]
    if not unused:
        return numbers, ()
    many = f"{len(unused)} classes" if unused[1:] else "1 class"
    return numbers, (f"{many} without an image, left out: {listed(unused)}",)


def refuse_empty_classes(
    labels: npt.NDArray[np.int64], class_names: Sequence[str], where: str, kind: str = ""
) -> None:
    """Refuse a training part in which a class has no image; *kind* qualifies "labeled image"."""
    counts = np.bincount(labels[labels >= 0], minlength=len(class_names))
    empty = [class_names[int(label)] for label in np.flatnonzero(counts == 0)]
    if empty:
        what = f"no {kind}labeled image of class {listed(empty)}"
        raise DataError(f"{where}: {what}; add some, or remove the class")
