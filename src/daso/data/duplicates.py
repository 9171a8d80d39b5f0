"""Images that occur more than once: in training and test, or with several labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from daso.data.images.decoded import DecodedImages
from daso.errors import DataError, how_many, problems

NameOf = Callable[[int], str]
Pair = tuple[int, int]

DOUBTFUL = {
    ("train", "train"): ("labeled image", "with a copy; a hold-out may get one of them"),
    ("validation", "train"): ("validation image", "among the labeled ones; numbers are too good"),
    ("validation", "test"): ("validation image", "among the test images; choices favor the test"),
    ("unlabeled", "test"): ("unlabeled image", "among the test images; these are not unseen"),
}
"""Notes about images of the first part that are copies of images of the second."""


@dataclass
class Copies:
    """Which images have the same pixels.

    Attributes:
        conflicts: each labeled image of which there is one with another label, and the first such.
        pairs: by (part, other), the index of each image of *part* that is also in *other*, and the
            index of the first such image there. For (part, part): the second and later copies.
    """

    conflicts: list[Pair] = field(default_factory=list)
    pairs: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)

    def of(self, part: str, other: str) -> list[Pair]:
        return self.pairs.get((part, other), [])


def find_copies(
    digests: Mapping[str, Mapping[int, bytes]], labels: npt.NDArray[np.int64]
) -> Copies:
    """Find images with the same digest, given by part and index; *labels* are those of "train"."""
    # Sorting finds the repeated digests; only they need a dictionary.
    ordered = sorted(value for values in digests.values() for value in values.values())
    repeated = {value for value, following in itertools.pairwise(ordered) if value == following}
    places: dict[bytes, list[tuple[str, int]]] = {}
    for part, values in digests.items():
        for index, value in values.items():
            if value in repeated:
                places.setdefault(value, []).append((part, index))
    copies = Copies()
    for group in places.values():
        first: dict[str, int] = {}
        for part, index in group:
            first.setdefault(part, index)
        for part, index in group:
            for other, original in first.items():
                if (part, index) != (other, original):
                    copies.pairs.setdefault((part, other), []).append((index, original))
        labeled = [index for part, index in group if part == "train"]
        of_label = {int(labels[index]): index for index in reversed(labeled)}
        if len(of_label) > 1:
            one, two = sorted(of_label.values())[:2]
            copies.conflicts += [(i, two if labels[i] == labels[one] else one) for i in labeled]
    for pairs in copies.pairs.values():
        pairs.sort()
    return copies


def without_copies(
    images: Mapping[str, DecodedImages],
    names: Mapping[str, NameOf],
    class_names: Sequence[str],
    *,
    where: str,
    skip_bad: bool = False,
) -> tuple[dict[str, DecodedImages], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Refuse, or leave out, leaks into the test set and labeled images with several labels.

    If a labeled image is in the test set, the test image is left out: labels are scarce, and a test
    set must be unseen. If copies have several labels, all are left out: the right one is unknown.

    Args:
        images: by part.
        names: by part, returns the name of image i for messages.
        where: the origin of the images, for messages.
        skip_bad: leave such images out instead of raising.

    Returns:
        The remaining images, (name, reason) of each image left out, and notes about other copies.
    """
    digests = {part: dict(enumerate(map(bytes, pool.digests))) for part, pool in images.items()}
    labels = images["train"].labels
    copies = find_copies(digests, labels)
    conflicts = {
        index: f"is {class_names[int(labels[index])]!r}, and the same image as "
        f"{names['train'](other)}, which is {class_names[int(labels[other])]!r}"
        for index, other in copies.conflicts
    }
    leaks = {
        index: f"is a test image, and the same image as the labeled {names['train'](original)}"
        for index, original in copies.of("test", "train")
        if original not in conflicts
    }
    reasons = {"train": conflicts, "test": leaks}
    skipped = tuple(
        (names[part](index), reason)
        for part, of_part in reasons.items()
        for index, reason in sorted(of_part.items())
    )
    if skipped and not skip_bad:
        counts = []
        if conflicts:
            counts.append(f"{len(conflicts)} labeled images have several labels")
        if leaks:
            are = "image is" if len(leaks) == 1 else "images are"
            counts.append(f"{len(leaks)} test {are} also among the labeled images")
        cure = (
            "Remove them, or leave out leaked test images and all copies with several labels: "
            "--skip-bad. 'daso data check' lists all."
        )
        raise DataError(problems(skipped, f"{where}: {'; '.join(counts)}", cure, between=" "))
    notes = []
    for (part, other), (image, text) in DOUBTFUL.items():
        if pairs := copies.of(part, other):
            index, original = pairs[0]
            example = f"{names[part](index)} is {names[other](original)}"
            notes.append(f"{how_many(len(pairs), image)} {text} (e.g. {example})")
    left = {}
    for part, pool in images.items():
        bad = list(reasons.get(part, ()))
        left[part] = pool.select(np.delete(np.arange(len(pool)), bad)) if bad else pool
    return left, skipped, tuple(notes)
