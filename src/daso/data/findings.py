"""What a look at a data set finds that a person should know before training on it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from daso.data.copies import Copies, find_copies
from daso.data.decode import ImageHeader
from daso.data.memory import available_memory
from daso.data.names import alike_names
from daso.data.near import NEAR_BITS, NEAR_CORRELATION, near_pairs
from daso.data.scan import PartScan, Scan

Level = Literal["refused", "warning", "note"]
CALLED = {"train": "labelled", "unlabeled": "unlabelled", "validation": "validation", "test": "test"}
"""How messages call the parts."""
FEW = 5
"""A fifth of a class is held out where there is nothing else to measure on: of fewer images than this, none."""
ENLARGED = 2
"""Images with less than half of the pixels a side that training takes are enlarged a lot."""
ELONGATED = 2.0
"""Of images longer than this by their width a square shows less than half."""
GREY_SHIFT = 0.5
"""Parts whose shares of grey images differ by more can be told apart by that alone."""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        level: "refused" (training stops at it, or with --skip-bad goes on without these images), "warning" or "note".
        code: names the kind of finding for programs.
        text: what was found.
        cure: what to do.
        images: the images that it is about, each with a detail.
    """

    level: Level
    code: str
    text: str
    cure: str = ""
    images: tuple[tuple[str, str], ...] = ()


def find_all(
    scan: Scan, class_names: Sequence[str], *, own: bool, rows: Sequence[tuple[str, str]] = ()
) -> list[Finding]:
    """Return everything that is to be said of a data set, the worst first.

    Args:
        scan: a look at its images.
        class_names: K names.
        own: people's own images; a published benchmark is trained on as it is.
        rows: rows of its manifest that cannot be used, with the reason.
    """
    copies = find_copies(
        {part: found.pixels for part, found in scan.parts.items()},
        {part: found.labels for part, found in scan.parts.items()},
    )
    findings = [
        *_unusable_rows(rows),
        *_unreadable(scan),
        *_empty_classes(scan, class_names),
        *_conflicts(scan, copies, class_names, own=own),
        *_copies(scan, copies, own=own),
        *_near(scan, class_names),
        *_classes(scan, class_names),
        *_names(class_names),
        *_shapes(scan),
        *_colors(scan),
        *_memory(scan),
    ]
    order = ("refused", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _unusable_rows(rows: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    if rows:
        text = f"{_count(rows, 'row')} of the manifest cannot be used"
        yield Finding("refused", "rows", text, "mend them, or leave them out: --skip-bad", tuple(rows))


def _unreadable(scan: Scan) -> Iterator[Finding]:
    bad = [
        (found.name_of(index), reason)
        for found in scan.parts.values()
        for index, reason in sorted(found.reasons.items())
    ]
    if bad:
        text = f"{_count(bad, 'image')} cannot be read"
        yield Finding(
            "refused", "unreadable", text, "mend or remove them, or leave them out: --skip-bad", tuple(bad)
        )


def _empty_classes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    counts = class_counts(scan.parts["train"], len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        text = f"no readable labelled image of {_count(empty, 'class', 'classes')}: {_some(empty)}"
        yield Finding("refused", "empty-class", text, "add labelled images, or remove the class")
    if len(class_names) < 2:
        text = f"there is only the class {class_names[0]!r}" if class_names else "there is no class"
        yield Finding("refused", "one-class", text, "a classifier needs at least two")


def _conflicts(scan: Scan, copies: Copies, class_names: Sequence[str], *, own: bool) -> Iterator[Finding]:
    train = scan.parts["train"]
    bad = []
    for group in copies.conflicts:
        for index in group:
            other = next(i for i in group if train.labels[i] != train.labels[index])
            names = [repr(class_names[int(train.labels[i])]) for i in (index, other)]
            bad.append(
                (train.name_of(index), f"is {names[0]}; {train.name_of(other)}, the same image, {names[1]}")
            )
    if bad:
        text = f"{_count(bad, 'labelled image')} with the same pixels as one of another class"
        cure = "keep the copy whose label is right; --skip-bad leaves all of them out"
        yield Finding("refused" if own else "warning", "conflict", text, cure, tuple(bad))
    test = scan.parts.get("test")
    if test is not None:
        wrong = [
            (test.name_of(index), f"the same as {test.name_of(other)}, of another class")
            for index, other in copies.of("test", "test")
            if test.labels[index] != test.labels[other]
        ]
        if wrong:
            text = f"{_count(wrong, 'test image')} with the same pixels as a test image of another class"
            yield Finding(
                "warning", "test-conflict", text, "one of the labels is wrong: mend it", tuple(wrong)
            )


COPIES: tuple[tuple[str, str, Level, str, str], ...] = (
    ("test", "train", "refused", "leak", "remove one of the two; --skip-bad leaves the test image out"),
    (
        "validation",
        "train",
        "warning",
        "leak-validation",
        "remove one of the two: numbers on it are too good",
    ),
    (
        "unlabeled",
        "test",
        "warning",
        "leak-unlabeled",
        "remove it from the unlabelled images: the test shall be unseen",
    ),
    (
        "validation",
        "test",
        "warning",
        "copies-validation-test",
        "remove one: what validation chooses favours the test",
    ),
    ("train", "train", "warning", "copies-labeled", "keep one of them: a hold-out may get the other"),
    ("test", "test", "note", "copies-test", "they count more than others do"),
    ("validation", "validation", "note", "copies-validation", "they count more than others do"),
    ("unlabeled", "unlabeled", "note", "copies-unlabeled", "they are seen more often than others"),
    ("unlabeled", "train", "note", "copies-unlabeled-labeled", "harmless"),
    (
        "unlabeled",
        "validation",
        "note",
        "copies-unlabeled-validation",
        "remove it if validation shall be unseen",
    ),
)
"""Copies of images of the first part that are in the second one: how bad it is, and what to do."""


def _copies(scan: Scan, copies: Copies, *, own: bool) -> Iterator[Finding]:
    for part, other, level, code, cure in COPIES:
        pairs = copies.of(part, other)
        if not pairs:
            continue
        here, there = scan.parts[part], scan.parts[other]
        images, same_bytes = [], 0
        for index, original in pairs:
            whole = bool(here.content[index]) and here.content[index] == there.content[original]
            same_bytes += whole
            images.append(
                (
                    here.name_of(index),
                    f"{'the same file as' if whole else 'the same pixels as'} {there.name_of(original)}",
                )
            )
        one = len(images) == 1
        where = "is a copy of another" if one else "are copies of others"
        if part != other:
            where = f"{'is' if one else 'are'} among the {CALLED[other]} ones too"
        exact = f", {same_bytes} of them byte for byte" if here.content[pairs[0][0]] else ""
        text = f"{_count(images, f'{CALLED[part]} image')} {where}{exact}"
        yield Finding(level if own or level != "refused" else "warning", code, text, cure, tuple(images))


def _near(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield near copies, of images that are no exact ones, by the parts that they are in."""
    places: list[tuple[str, int]] = []
    seen: set[bytes] = set()
    for part in ("train", "test", "validation", "unlabeled"):
        for index, pixels in enumerate(scan.parts[part].pixels if part in scan.parts else ()):
            if pixels and pixels not in seen:
                seen.add(pixels)
                places.append((part, index))
    if not places:
        return
    hashes = np.array([scan.parts[part].hashes[index] for part, index in places], dtype=np.uint64)
    thumbnails = np.stack([scan.parts[part].thumbnails[index] for part, index in places])
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    conflicts: list[tuple[str, str]] = []
    for first, second in near_pairs(hashes, thumbnails):
        (part, index), (other, original) = places[second], places[first]
        here, there = scan.parts[part], scan.parts[other]
        pair = here.name_of(index), f"looks like {there.name_of(original)}"
        found.setdefault((part, other), []).append(pair)
        labels = int(here.labels[index]), int(there.labels[original])
        if part == other == "train" and labels[0] != labels[1]:
            names = " and ".join(repr(class_names[label]) for label in labels)
            conflicts.append((pair[0], f"{pair[1]}; they are {names}"))
    if conflicts:
        text = f"{_count(conflicts, 'pair')} of labelled images that look the same, of different classes"
        yield Finding(
            "warning", "near-conflict", text, "look at them: a label may be wrong", tuple(conflicts)
        )
    for (part, other), images in found.items():
        leak = (part, other) in (("test", "train"), ("validation", "train"))
        which = (
            f"of {CALLED[part]} images" if part == other else f"of {CALLED[part]} and {CALLED[other]} images"
        )
        level: Level = "warning" if leak else "note"
        code = (
            "near-leak"
            if (part, other) == ("test", "train")
            else f"near-{part}-{other}".replace("train", "labeled")
        )
        cure = (
            "look at them: a copy that was saved anew or resized makes the numbers too good"
            if leak
            else "look at some: copies that were saved anew or resized, or bursts of one scene"
        )
        text = (
            f"{_count(images, 'pair')} {which} that look the same (hashes within {NEAR_BITS} of 63 bits, thumbnails "
            f"correlate at least {NEAR_CORRELATION:.2f})"
        )
        yield Finding(level, code, text, cure, tuple(images))


def _classes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    labeled = class_counts(scan.parts["train"], len(class_names))
    measured = [part for part in ("validation", "test") if part in scan.parts]
    single = [name for name, count in zip(class_names, labeled, strict=True) if count == 1]
    if single:
        text = f"{_count(single, 'class', 'classes')} with a single labelled image: {_some(single)}"
        yield Finding("warning", "single", text, "label a few more: one image says little of a class")
    few = [name for name, count in zip(class_names, labeled, strict=True) if 0 < count < FEW]
    if few and not measured:
        text = (
            f"{_count(few, 'class', 'classes')} with fewer than {FEW} labelled images, too few to hold one out: "
            f"{_some(few)}"
        )
        yield Finding(
            "warning", "few", text, "label more, or give test images: else these classes are not measured"
        )
    for part in measured:
        counts = class_counts(scan.parts[part], len(class_names))
        missing = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
        if missing:
            text = f"no {part} image of {_count(missing, 'class', 'classes')}: {_some(missing)}"
            yield Finding(
                "warning", f"unmeasured-{part}", text, "add some: the recall of these is not measured"
            )
    if "unlabeled" not in scan.parts:
        text = "there are no unlabelled images"
        yield Finding(
            "note", "no-unlabeled", text, "unlabelled images are what semi-supervised methods learn from"
        )


def _names(class_names: Sequence[str]) -> Iterator[Finding]:
    for group in alike_names(class_names):
        text = f"the classes {' and '.join(map(ascii, group))} differ in case, blanks or Unicode form alone"
        yield Finding("warning", "alike-names", text, "give them one name if they are one class")


def _shapes(scan: Scan) -> Iterator[Finding]:
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
        text = f"{_count(small, 'image')} with less than half of the {width} x {height} pixels that training takes"
        yield Finding(
            "warning",
            "small",
            text,
            "they are enlarged and look blurred: replace them, or train at a smaller --size",
            tuple(small),
        )
    if long:
        text = f"{_count(long, 'image')} more than {ELONGATED:g} times as long as wide, or as wide as long"
        yield Finding(
            "warning",
            "long",
            text,
            "only the square in their middle is used: crop them to what matters",
            tuple(long),
        )


def _colors(scan: Scan) -> Iterator[Finding]:
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


def _memory(scan: Scan) -> Iterator[Finding]:
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


def _count(things: Sequence[object], one: str, many: str = "") -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
