"""Findings about classes, sizes, colours and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from daso.data.check.finding import CALLED, Finding, how_many, listed
from daso.data.check.scan import PartScan, Scan
from daso.data.class_names import alike_names, unseen_names
from daso.data.images.decode import ImageHeader
from daso.data.images.memory import available_memory

FEW = 5
"""A fifth of a class is held out where there is nothing else to measure on: of fewer images than this, none."""
ENLARGED = 2
"""Images with less than half of the pixels a side that training takes are enlarged a lot."""
ELONGATED = 2.0
"""Of images longer than this by their width a square shows less than half."""
GREY_SHIFT = 0.5
"""Parts whose shares of grey images differ by more can be told apart by that alone."""


def empty_classes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield classes without a readable labelled image, and that there are too few classes."""
    counts = class_counts(scan.parts["train"], len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        text = (
            f"no readable labelled image of {how_many(empty, 'class', 'classes')}: {listed(empty)}"
        )
        yield Finding("refused", "empty-class", text, "add labelled images, or remove the class")
    if len(class_names) < 2:
        text = f"there is only the class {class_names[0]!r}" if class_names else "there is no class"
        yield Finding("refused", "one-class", text, "a classifier needs at least two")


def class_sizes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield classes of too few images to learn from or to measure, and that nothing is unlabelled."""
    labeled = class_counts(scan.parts["train"], len(class_names))
    measured = [part for part in ("validation", "test") if part in scan.parts]
    single = [name for name, count in zip(class_names, labeled, strict=True) if count == 1]
    if single:
        text = (
            f"{how_many(single, 'class', 'classes')} with a single labelled image: {listed(single)}"
        )
        yield Finding(
            "warning", "single", text, "label a few more: one image says little of a class"
        )
    few = [name for name, count in zip(class_names, labeled, strict=True) if 0 < count < FEW]
    if few and not measured:
        text = (
            f"{how_many(few, 'class', 'classes')} with fewer than {FEW} labelled images, too few to hold one out: "
            f"{listed(few)}"
        )
        yield Finding(
            "warning",
            "few",
            text,
            "label more, or give test images: else these classes are not measured",
        )
    for part in measured:
        counts = class_counts(scan.parts[part], len(class_names))
        missing = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
        if missing:
            text = f"no {part} image of {how_many(missing, 'class', 'classes')}: {listed(missing)}"
            yield Finding(
                "warning",
                f"unmeasured-{part}",
                text,
                "add some: the recall of these is not measured",
            )
    if "unlabeled" not in scan.parts:
        text = "there are no unlabelled images"
        yield Finding(
            "note",
            "no-unlabeled",
            text,
            "unlabelled images are what semi-supervised methods learn from",
        )


def alike(class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield groups of class names that a person would take for one, and names that nobody can see."""
    for name in unseen_names(class_names):
        text = f"the class name {name!a} shows no character"
        yield Finding("warning", "unseen-name", text, "give it one that can be read")
    for group in alike_names(class_names):
        text = f"the classes {' and '.join(map(ascii, group))} differ in case, blanks or Unicode form alone"
        yield Finding("warning", "alike-names", text, "give them one name if they are one class")


def shapes(scan: Scan) -> Iterator[Finding]:
    """Yield images that are much enlarged, or of which much is cut off, on the way to the training's size."""
    if scan.shape is None:
        return
    height, width = scan.shape[1:]
    small, long = [], []
    for name, header in _headers(scan):
        if max(height, width) > ENLARGED * min(header.height, header.width):
            small.append((name, f"{header.width} x {header.height}"))
        longer, shorter = max(header.height, header.width), max(1, min(header.height, header.width))
        if height == width and longer > ELONGATED * shorter:
            long.append((name, f"{header.width} x {header.height}"))
    if small:
        text = f"{how_many(small, 'image')} with less than half of the {width} x {height} pixels that training takes"
        yield Finding(
            "warning",
            "small",
            text,
            "they are enlarged and look blurred: replace them, or train at a smaller --size",
            tuple(small),
        )
    if long:
        text = f"{how_many(long, 'image')} more than {ELONGATED:g} times as long as wide, or as wide as long"
        yield Finding(
            "warning",
            "long",
            text,
            "only the square in their middle is used: crop them to what matters",
            tuple(long),
        )


def colors(scan: Scan) -> Iterator[Finding]:
    """Yield that some images are grey and others in colour, worse where that tells the parts apart."""
    shares = {
        part: sum(header.grey for header in found.headers.values()) / len(found.headers)
        for part, found in scan.parts.items()
        if found.headers
    }
    grey = sum(header.grey for _, header in _headers(scan))
    total = sum(len(found.headers) for found in scan.parts.values())
    if not 0 < grey < total:
        return
    text = f"{grey:,} of {total:,} images are grey, the others in colour; all are read in colour"
    if max(shares.values()) - min(shares.values()) > GREY_SHIFT:
        told = ", ".join(f"{share:.0%} of the {CALLED[part]}" for part, share in shares.items())
        yield Finding(
            "warning",
            "grey",
            f"{text}: {told} images",
            "the parts differ: convert all to grey, or find the others in colour",
        )
    else:
        yield Finding("note", "grey", text)


def memory(scan: Scan) -> Iterator[Finding]:
    """Yield that the images are more than the memory that is left."""
    available = available_memory()
    if scan.shape is None or available is None:
        return
    needed = int(np.prod(scan.shape)) * sum(map(len, scan.parts.values()))
    if needed > available:
        text = f"the images take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are left"
        yield Finding("warning", "memory", text, "train at a smaller --size")


def _headers(scan: Scan) -> Iterator[tuple[str, ImageHeader]]:
    for found in scan.parts.values():
        for index, header in found.headers.items():
            yield found.name_of(index), header


def class_counts(found: PartScan, classes: int) -> list[int]:
    """Return how many readable images of each class a part has, (K,)."""
    labels = found.labels[found.readable & (found.labels >= 0)]
    return [int(count) for count in np.bincount(labels, minlength=classes)]
