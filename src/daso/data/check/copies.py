"""Findings about images that occur twice: copies, leaks between parts, contradictory labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from daso.data.check.findings import CALLED, Finding, Level
from daso.data.check.near_copies import NEAR_BITS, NEAR_CORRELATION, near_pairs
from daso.data.check.scan import Scan
from daso.data.duplicates import Copies, Pair, find_copies
from daso.errors import how_many

ONE_LEAK = "remove one of the two"
MORE_WEIGHT = "they count more than others"
COPIES: tuple[tuple[str, str, Level, str, str], ...] = (
    ("test", "train", "refused", "leak", f"{ONE_LEAK}; --skip-bad leaves the test image out"),
    ("validation", "train", "warning", "leak-validation", f"{ONE_LEAK}: its numbers are too good"),
    ("unlabeled", "test", "warning", "leak-unlabeled", "remove the unlabeled ones"),
    ("validation", "test", "warning", "copies-validation-test", f"{ONE_LEAK}: choices are biased"),
    ("train", "train", "warning", "copies-labeled", "keep one: a hold-out may get the other"),
    ("test", "test", "note", "copies-test", MORE_WEIGHT),
    ("validation", "validation", "note", "copies-validation", MORE_WEIGHT),
    ("unlabeled", "unlabeled", "note", "copies-unlabeled", "they are seen more often than others"),
    ("unlabeled", "train", "note", "copies-unlabeled-labeled", "harmless"),
    ("unlabeled", "validation", "note", "copies-unlabeled-validation", "remove the unlabeled ones"),
)
"""Level, code and cure for images of the first part with copies in the second."""


def copies(scan: Scan, class_names: Sequence[str], *, own: bool) -> Iterator[Finding]:
    """Yield conflicting labels and exact copies; a benchmark (not *own*) is never refused."""
    pixels = {
        part: {index: look.pixels for index, look in of_part.looks.items()}
        for part, of_part in scan.parts.items()
    }
    exact = find_copies(pixels, scan.parts["train"].labels)
    yield from _conflicts(scan, exact, class_names, own=own)
    for part, other, level, code, cure in COPIES:
        pairs = exact.of(part, other)
        if not pairs:
            continue
        here, there = scan.parts[part], scan.parts[other]
        images, same_files = [], 0
        for index, original in pairs:
            content = here.looks[index].content
            is_same_file = bool(content) and content == there.looks[original].content
            same_files += is_same_file
            what = "file" if is_same_file else "pixels"
            images.append((here.name_of(index), f"the same {what} as {there.name_of(original)}"))
        one = len(images) == 1
        where = "is a copy of another" if one else "are copies of others"
        if part != other:
            where = f"{'is' if one else 'are'} also among the {CALLED[other]} images"
        by_bytes = ""
        if same_files:
            by_bytes = ", byte for byte" if one else f", {same_files} of them byte for byte"
        text = f"{how_many(len(images), f'{CALLED[part]} image')} {where}{by_bytes}"
        worst: Level = level if own or level != "refused" else "warning"
        yield Finding(worst, code, text, cure, tuple(images))


def _conflicts(
    scan: Scan, exact: Copies, class_names: Sequence[str], *, own: bool
) -> Iterator[Finding]:
    test = scan.parts.get("test")
    if exact.conflicts:
        bad = _of_two_classes(scan, exact.conflicts, "is the same image as", class_names)
        text = f"{how_many(len(bad), 'labeled image')} with the same pixels as one of another class"
        cure = "keep the copy whose label is right; --skip-bad leaves all of them out"
        yield Finding("refused" if own else "warning", "conflict", text, cure, bad)
    if test is None:
        return
    wrong = tuple(
        (test.name_of(index), f"the same as {test.name_of(other)}, of another class")
        for index, other in exact.of("test", "test")
        if test.labels[index] != test.labels[other]
    )
    if wrong:
        text = f"{how_many(len(wrong), 'test image')} with the same pixels as one of another class"
        yield Finding("warning", "test-conflict", text, "correct the wrong label", wrong)


def _of_two_classes(
    scan: Scan, pairs: Iterable[Pair], relation: str, class_names: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Return labeled images with a detail: another one, and the classes of both."""
    train = scan.parts["train"]
    return tuple(
        (
            train.name_of(index),
            f"{relation} {train.name_of(other)}; they are "
            f"{class_names[train.labels[index]]!r} and {class_names[train.labels[other]]!r}",
        )
        for index, other in pairs
    )


def near_copies(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield near copies that are not exact copies, by part."""
    places: list[tuple[str, int]] = []
    seen: set[bytes] = set()
    for part in ("train", "test", "validation", "unlabeled"):
        for index, look in scan.parts[part].looks.items() if part in scan.parts else ():
            if look.pixels not in seen:
                seen.add(look.pixels)
                places.append((part, index))
    if not places:
        return
    looks = [scan.parts[part].looks[index] for part, index in places]
    hashes = np.array([look.hash for look in looks], dtype=np.uint64)
    thumbnails = np.stack([look.thumbnail for look in looks])
    # Labeled, test and validation images are first compared among themselves: many unlabeled images
    # of one scene between two of them must not hide a leak.
    measured = sum(part != "unlabeled" for part, _ in places)
    first_pairs = near_pairs(hashes[:measured], thumbnails[:measured])
    pairs = np.concatenate([first_pairs, near_pairs(hashes, thumbnails)])
    near: dict[tuple[str, str], dict[int, int]] = {}
    conflicts: dict[int, int] = {}
    for first, second in pairs.tolist():
        (part, index), (other, original) = places[second], places[first]
        # One pair for each image: in a burst of one scene each resembles hundreds.
        near.setdefault((part, other), {}).setdefault(index, original)
        labels = scan.parts[part].labels[index], scan.parts[other].labels[original]
        if part == other == "train" and labels[0] != labels[1]:
            conflicts.setdefault(index, original)
    if conflicts:
        bad = _of_two_classes(scan, sorted(conflicts.items()), "looks like", class_names)
        text = f"{_that_look(bad, 'labeled')} like one of another class"
        yield Finding("warning", "near-conflict", text, "check their labels", bad)
    for (part, other), originals in near.items():
        here, there = scan.parts[part], scan.parts[other]
        images = [
            (here.name_of(index), f"looks like {there.name_of(original)}")
            for index, original in sorted(originals.items())
        ]
        code = f"near-{part}-{other}".replace("train", "labeled")
        level: Level = "note"
        cure = "check some: they may be resaved or resized copies, or bursts of one scene"
        if (part, other) in (("test", "train"), ("validation", "train")):
            level = "warning"
            cure = "check them: a resaved or resized copy makes the numbers too good"
            code = "near-leak" if part == "test" else code
        article = "an" if CALLED[other][0] in "aeiou" else "a"
        which = "another" if part == other else f"{article} {CALLED[other]} one"
        text = (
            f"{_that_look(images, CALLED[part])} like {which} (hashes within {NEAR_BITS} of 63 "
            f"bits, thumbnails with a correlation of at least {NEAR_CORRELATION:.2f})"
        )
        yield Finding(level, code, text, cure, tuple(images))


def _that_look(images: Sequence[object], kind: str) -> str:
    return (
        f"{how_many(len(images), f'{kind} image')} that {'looks' if len(images) == 1 else 'look'}"
    )
