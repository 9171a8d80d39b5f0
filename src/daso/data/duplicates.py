"""Images that stand in a data set more than once: in training and test, or under several labels."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from daso.data.images.image_file import ImageFile
from daso.data.source import Images, select_images
from daso.errors import DataError, problems

LABELS = Mapping[str, npt.NDArray[np.int64]]
Pair = tuple[int, int]


@dataclass
class Copies:
    """Which images have the same pixels.

    Attributes:
        conflicts: labelled images whose pixels have several labels, in groups.
        pairs: by (part, of part), images of the first part that stand in the second one too: index and index of the
            first such image there. Of (part, part) these are the second and later copies within a part.
    """

    conflicts: list[list[int]] = field(default_factory=list)
    pairs: dict[tuple[str, str], list[Pair]] = field(default_factory=dict)

    def of(self, part: str, other: str) -> list[Pair]:
        """Return the images of *part* that stand in *other* too, in their order."""
        return self.pairs.get((part, other), [])


def digest(pixels: npt.NDArray[np.generic]) -> bytes:
    """Return 16 bytes that are the same for the same pixels of the same shape, and differ for others."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def digests_of(pool: Images) -> list[bytes]:
    """Return the digest of every image of a pool."""
    if isinstance(pool.images, ImageFile):
        return [row.tobytes() for row in pool.images.digests]
    return [digest(image) for image in pool.images]


def find_copies(digests: Mapping[str, Sequence[bytes]], labels: LABELS) -> Copies:
    """Find images with the same digest, within and across parts.

    Args:
        digests: by part, of each image; images with an empty one are passed over.
        labels: by part, int64 (N,).
    """
    places: dict[bytes, list[tuple[str, int]]] = {}
    repeated = _repeated(digests)
    for part, values in digests.items():
        for index, value in enumerate(values):
            if value in repeated:
                places.setdefault(value, []).append((part, index))
    copies = Copies()
    for group in places.values():
        if len(group) < 2:
            continue
        first: dict[str, int] = {}
        for part, index in group:
            first.setdefault(part, index)
        for part, index in group:
            for other, original in first.items():
                if (part, index) != (other, original):
                    copies.pairs.setdefault((part, other), []).append((index, original))
        labeled = [index for part, index in group if part == "train"]
        if len({int(labels["train"][index]) for index in labeled}) > 1:
            copies.conflicts.append(labeled)
    for pairs in copies.pairs.values():
        pairs.sort()
    return copies


def another_label(group: Sequence[int], labels: npt.NDArray[np.int64]) -> list[Pair]:
    """Return of a group of images, which have several labels, each index with that of the first of another label."""
    first = group[0]
    other = next(index for index in group if labels[index] != labels[first])
    return [(index, other if labels[index] == labels[first] else first) for index in group]


def _repeated(digests: Mapping[str, Sequence[bytes]]) -> set[bytes]:
    """Return the digests that are there more than once, not the empty one; a million take little memory so."""
    ordered = sorted(value for values in digests.values() for value in values if value)
    return {value for value, following in itertools.pairwise(ordered) if value == following}


def leave_out_copies(
    images: Mapping[str, Images],
    names: Mapping[str, Sequence[str]],
    class_names: Sequence[str],
    *,
    where: str,
    skip_bad: bool,
) -> tuple[dict[str, Images], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Refuse, or leave out, test images that are labelled images too and labelled images with several labels.

    Of a leak the test image is left out: labels are scarce, and a test must be of images that were not learned from.
    Of a labelled image with several labels every copy is left out, since nobody knows which label is right.

    Args:
        images: by part, decoded.
        names: by part, the name of each image for messages.
        class_names: K names.
        where: what they come from, for messages.
        skip_bad: leave them out rather than raise.

    Returns:
        The images left, (name, reason) of each that is not, and notes of what is doubtful but usable.

    Raises:
        DataError: there are such images, and *skip_bad* is not set; the first 20 are named.
    """
    digests = {part: digests_of(pool) for part, pool in images.items()}
    copies = find_copies(digests, {part: pool.labels for part, pool in images.items()})
    reasons: dict[str, dict[int, str]] = {"train": {}, "test": {}}
    for group in copies.conflicts:
        labels = images["train"].labels
        for index, other in another_label(group, labels):
            reasons["train"][index] = (
                f"is {class_names[int(labels[index])]!r}, and the same image as {names['train'][other]}, which is "
                f"{class_names[int(labels[other])]!r}"
            )
    for index, original in copies.of("test", "train"):
        if original not in reasons["train"]:
            reasons["test"][index] = (
                f"is a test image, and the same image as the labelled {names['train'][original]}"
            )
    skipped = tuple(
        (names[part][index], reason)
        for part, found in reasons.items()
        for index, reason in sorted(found.items())
    )
    if skipped and not skip_bad:
        raise DataError(_refusal(skipped, len(reasons["train"]), len(reasons["test"]), where))
    left = {part: _without(pool, reasons.get(part, {})) for part, pool in images.items()}
    return left, skipped, _notes(copies, names)


def _refusal(skipped: Sequence[tuple[str, str]], conflicts: int, leaks: int, where: str) -> str:
    counted = []
    if conflicts:
        counted.append(f"{conflicts} labelled images have several labels")
    if leaks:
        counted.append(
            f"{leaks} test image(s) stand among the labelled ones, so the test would count what was learned"
        )
    cure = (
        "Remove them, or go on without them: --skip-bad (of a leak it leaves out the test image, of several labels "
        "every copy). 'daso data check' lists all."
    )
    return problems(skipped, f"{where}: {'; '.join(counted)}", cure, between=" ")


def _notes(copies: Copies, names: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    doubtful = {
        (
            "train",
            "train",
        ): "labelled images are copies of others; a hold-out may get one of two copies",
        (
            "validation",
            "train",
        ): "validation images stand among the labelled ones; numbers on them are too good",
        (
            "validation",
            "test",
        ): "validation images are test images too; what is chosen by them favours the test",
        (
            "unlabeled",
            "test",
        ): "unlabelled images are test images too; the test is not of unseen images",
    }
    notes = []
    for (part, other), text in doubtful.items():
        pairs = copies.of(part, other)
        if pairs:
            index, original = pairs[0]
            notes.append(
                f"{len(pairs)} {text} (e.g. {names[part][index]} is {names[other][original]})"
            )
    return tuple(notes)


def _without(pool: Images, bad: Mapping[int, str]) -> Images:
    if not bad:
        return pool
    kept = np.array([index for index in range(len(pool)) if index not in bad], dtype=np.int64)
    paths = tuple(pool.paths[index] for index in kept) if pool.paths else ()
    return Images(select_images(pool.images, kept), pool.labels[kept], paths)
