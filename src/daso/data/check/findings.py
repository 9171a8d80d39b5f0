"""Findings about unreadable images, classes, names, sizes, colors and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from daso.data.check.scan import Scan
from daso.data.class_names import listed, name_faults
from daso.data.images.decoded import darkness
from daso.data.images.memory import memory_shortage
from daso.errors import how_many

Level = Literal["refused", "warning", "note"]
CALLED = {"train": "labeled", "unlabeled": "unlabeled", "validation": "validation", "test": "test"}
"""Names of the parts in messages."""
FEW = 5
"""Labeled images needed to hold out a fifth of a class."""
ENLARGED = 2
"""Images that training enlarges by more than this factor are reported."""
ELONGATED = 2.0
"""Images of a greater aspect ratio are reported: a square shows less than half of them."""
GRAY_SHIFT = 0.5
"""Parts whose shares of gray images differ by more can be told apart by color."""


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        level: "refused" (training stops, or leaves the images out with --skip-bad), "warning" or
            "note".
        code: the kind of finding, for programs.
        images: the images concerned, each with a detail.
    """

    level: Level
    code: str
    text: str
    cure: str = ""
    images: tuple[tuple[str, str], ...] = ()


def unusable(scan: Scan, rows: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """Yield unusable rows, files and folders, and unreadable images."""
    if rows:
        text = (
            f"{how_many(len(rows), 'row, file or folder', 'rows, files or folders')} cannot be used"
        )
        cure = "correct them, or leave them out: --skip-bad"
        yield Finding("refused", "rows", text, cure, tuple(rows))
    bad = tuple(
        (part.name_of(index), reason)
        for part in scan.parts.values()
        for index, reason in sorted(part.reasons.items())
    )
    if bad:
        text = f"{how_many(len(bad), 'image')} cannot be read"
        cure = "repair or remove them, or leave them out: --skip-bad"
        yield Finding("refused", "unreadable", text, cure, bad)


def empty_classes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield classes without a readable labeled image, or a single class."""
    empty = _classes(scan, "train", class_names, range(1))
    if empty:
        text = f"no readable labeled image of {_named(empty)}"
        yield Finding("refused", "empty-class", text, "add labeled images, or remove the class")
    if len(class_names) < 2:
        text = f"the only class is {class_names[0]!r}" if class_names else "there is no class"
        yield Finding("refused", "one-class", text, "a classifier needs at least two")


def class_sizes(scan: Scan, class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield classes with too few images to learn from or measure, or missing unlabeled images."""
    measured = [part for part in ("validation", "test") if part in scan.parts]
    single = _classes(scan, "train", class_names, range(1, 2))
    if single:
        text = f"only one labeled image of {_named(single)}"
        yield Finding("warning", "single", text, "label a few more")
    few = _classes(scan, "train", class_names, range(1, FEW))
    if few and not measured:
        text = f"fewer than {FEW} labeled images, too few for a hold-out, of {_named(few)}"
        cure = "label more, or add test images; otherwise these classes are not measured"
        yield Finding("warning", "few", text, cure)
    for part in measured:
        missing = _classes(scan, part, class_names, range(1))
        if missing:
            text = f"no {part} image of {_named(missing)}"
            cure = "add some; otherwise their recall is not measured"
            yield Finding("warning", f"unmeasured-{part}", text, cure)
    if "unlabeled" not in scan.parts:
        cure = "semi-supervised methods learn from unlabeled images"
        yield Finding("note", "no-unlabeled", "there are no unlabeled images", cure)


def _classes(scan: Scan, part: str, class_names: Sequence[str], counts: range) -> list[str]:
    """Return the classes whose number of readable images in a part is in *counts*."""
    of_part = scan.parts[part].class_counts(len(class_names))
    return [name for name, count in zip(class_names, of_part, strict=True) if count in counts]


def _named(classes: Sequence[str]) -> str:
    return f"{how_many(len(classes), 'class', 'classes')}: {listed(classes)}"


def names(class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield class names that are easily confused or invisible."""
    for code, text, cure in name_faults(class_names):
        yield Finding("warning", code, text, cure)


def shapes(scan: Scan) -> Iterator[Finding]:
    """Yield images that training enlarges or crops a lot."""
    if scan.shape is None:
        return
    height, width = scan.shape[1:]
    small, long = [], []
    for name, header in scan.headers():
        shorter, longer = sorted((header.height, header.width))
        detail = (name, f"{header.width} x {header.height}")
        if max(height, width) > ENLARGED * shorter:
            small.append(detail)
        if height == width and longer > ELONGATED * max(1, shorter):
            long.append(detail)
    if small:
        side = f"{width} x {height} pixels"
        text = f"{how_many(len(small), 'image')} with less than half the side of {side}"
        cure = "training enlarges and blurs them: replace them, or give a smaller --size"
        yield Finding("warning", "small", text, cure, tuple(small))
    if long:
        text = f"{how_many(len(long), 'image')} with an aspect ratio above {ELONGATED:g}"
        cure = "only their central square is used: crop them to what matters"
        yield Finding("warning", "long", text, cure, tuple(long))


def frames(scan: Scan) -> Iterator[Finding]:
    """Yield files of several images, of which only the first is used."""
    several = tuple((name, "") for name, header in scan.headers() if header.several)
    if several:
        text = (
            f"{how_many(len(several), 'file')} with several frames or pages; only the first is used"
        )
        cure = "write the others to files of their own if they matter"
        yield Finding("warning", "frames", text, cure, several)


def colors(scan: Scan) -> Iterator[Finding]:
    """Yield a mixture of gray and color images; warn if it tells the parts apart."""
    greys = {
        part: [header.grey for header in of_part.headers.values()]
        for part, of_part in scan.parts.items()
        if of_part.headers
    }
    gray, total = sum(map(sum, greys.values())), sum(map(len, greys.values()))
    if not 0 < gray < total:
        return
    shares = {part: sum(of_part) / len(of_part) for part, of_part in greys.items()}
    text = f"{gray:,} of {total:,} images are gray, the others in color; all are read in color"
    if max(shares.values()) - min(shares.values()) <= GRAY_SHIFT:
        yield Finding("note", "grey", text)
        return
    by_part = ", ".join(f"{share:.0%} of the {CALLED[part]}" for part, share in shares.items())
    cure = "the parts differ: convert all to gray, or get the others in color"
    yield Finding("warning", "grey", f"{text}: {by_part} images", cure)


def dark(scan: Scan) -> Iterator[Finding]:
    """Yield parts that are nearly black."""
    looks = {part: of_part.looks.values() for part, of_part in scan.parts.items()}
    largest = {part: max(look.brightest for look in some) for part, some in looks.items() if some}
    for text, cure in darkness(largest):
        yield Finding("warning", "dark", text, cure)


def memory(scan: Scan) -> Iterator[Finding]:
    """Yield a warning if the images need more than the available memory."""
    count = sum(map(len, scan.parts.values()))
    if scan.shape is not None and (shortage := memory_shortage(count, scan.shape)):
        yield Finding("warning", "memory", *shortage)
