"""Findings about images that are there twice: copies, leaks between parts, labels that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from daso.data.check.finding import CALLED, Finding, Level, how_many
from daso.data.check.near_copies import NEAR_BITS, NEAR_CORRELATION, near_pairs
from daso.data.check.scan import Scan
from daso.data.duplicates import Copies, another_label


def conflicts(
    scan: Scan, copies: Copies, class_names: Sequence[str], *, own: bool
) -> Iterator[Finding]:
    """Yield images of the same pixels with labels of different classes."""
    train = scan.parts["train"]
    bad = []
    for group in copies.conflicts:
        for index, other in another_label(group, train.labels):
            names = [repr(class_names[int(train.labels[i])]) for i in (index, other)]
            bad.append(
                (
                    train.name_of(index),
                    f"is {names[0]}; {train.name_of(other)}, the same image, {names[1]}",
                )
            )
    if bad:
        text = f"{how_many(bad, 'labelled image')} with the same pixels as one of another class"
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
            text = f"{how_many(wrong, 'test image')} with the same pixels as a test image of another class"
            yield Finding(
                "warning",
                "test-conflict",
                text,
                "one of the labels is wrong: mend it",
                tuple(wrong),
            )


COPIES: tuple[tuple[str, str, Level, str, str], ...] = (
    (
        "test",
        "train",
        "refused",
        "leak",
        "remove one of the two; --skip-bad leaves the test image out",
    ),
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
    (
        "train",
        "train",
        "warning",
        "copies-labeled",
        "keep one of them: a hold-out may get the other",
    ),
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


def exact_copies(scan: Scan, copies: Copies, *, own: bool) -> Iterator[Finding]:
    """Yield images of the same pixels, by the parts that they are in."""
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
        text = f"{how_many(images, f'{CALLED[part]} image')} {where}{exact}"
        yield Finding(
            level if own or level != "refused" else "warning", code, text, cure, tuple(images)
        )


def near_copies(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
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
    # Labelled, test and validation images first among themselves: a leak must not be missed for the many unlabelled
    # images of the same scene that stand between the two.
    measured = sum(part != "unlabeled" for part, _ in places)
    pairs = np.concatenate(
        [near_pairs(hashes[:measured], thumbnails[:measured]), near_pairs(hashes, thumbnails)]
    )
    found: dict[tuple[str, str], dict[int, int]] = {}
    conflicts: dict[int, int] = {}
    for first, second in pairs.tolist():
        (part, index), (other, original) = places[second], places[first]
        # One for an image: in a burst of one scene each looks like hundreds.
        found.setdefault((part, other), {}).setdefault(index, original)
        labels = scan.parts[part].labels[index], scan.parts[other].labels[original]
        if part == other == "train" and labels[0] != labels[1]:
            conflicts.setdefault(index, original)
    if conflicts:
        train = scan.parts["train"]
        images = []
        for index, original in sorted(conflicts.items()):
            names = " and ".join(repr(class_names[int(train.labels[i])]) for i in (index, original))
            images.append(
                (train.name_of(index), f"looks like {train.name_of(original)}; they are {names}")
            )
        text = (
            f"{how_many(images, 'labelled image')} that {_look(images)} like one of another class"
        )
        cure = "look at them: a label may be wrong"
        yield Finding("warning", "near-conflict", text, cure, tuple(images))
    for (part, other), originals in found.items():
        here, there = scan.parts[part], scan.parts[other]
        images = [
            (here.name_of(index), f"looks like {there.name_of(original)}")
            for index, original in sorted(originals.items())
        ]
        leak = (part, other) in (("test", "train"), ("validation", "train"))
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
        which = "another" if part == other else f"{_article(other)} one"
        text = (
            f"{how_many(images, f'{CALLED[part]} image')} that {_look(images)} like {which} (hashes within {NEAR_BITS} "
            f"of 63 bits, thumbnails correlate at least {NEAR_CORRELATION:.2f})"
        )
        yield Finding(level, code, text, cure, tuple(images))


def _look(images: Sequence[object]) -> str:
    return "looks" if len(images) == 1 else "look"


def _article(part: str) -> str:
    return f"an {CALLED[part]}" if CALLED[part][0] in "aeiou" else f"a {CALLED[part]}"
