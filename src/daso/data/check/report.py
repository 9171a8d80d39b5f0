"""Report on a data set before training: counts, sizes, findings, a verdict."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daso.data.check import findings
from daso.data.check.copies import copies, near_copies
from daso.data.check.findings import CALLED, Finding
from daso.data.check.scan import scan_listing, scan_source
from daso.data.listing import Reading
from daso.data.open import list_own, open_arrays, open_with
from daso.data.places import NAMES

Range = tuple[int, float, int]
"""Smallest, median and largest."""


@dataclass(frozen=True)
class Report:
    """The result of ``check_data``.

    Attributes:
        class_counts: by part ("train", "validation", "test"), readable images of each class.
        counts: by part, all images.
        widths, heights: ranges in pixels; None if nothing can be read.
        sizes: number of different sizes.
        shape: (C, H, W) that training uses, unless other options are given.
        findings: the worst first.
        shrunk: whether ``largest_side`` of ``Reading`` decided the size.
        endings: images by the ending of their files' names, if they are files.
    """

    source: str
    class_names: tuple[str, ...]
    class_counts: Mapping[str, list[int]]
    counts: Mapping[str, int]
    widths: Range | None
    heights: Range | None
    sizes: int
    shape: tuple[int, int, int] | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    shrunk: bool
    endings: Mapping[str, int]

    @property
    def refused(self) -> bool:
        return any(finding.level == "refused" for finding in self.findings)

    @property
    def imbalance(self) -> float | None:
        """The largest labeled class over the smallest; None if a class has no image."""
        counts = self.class_counts["train"]
        least = min(counts, default=0)
        return max(counts) / least if least else None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values; docs/data.md describes them."""
        none = [0] * len(self.class_names)
        counts = {
            called: self.class_counts.get(part, none)
            for part, called in CALLED.items()
            if part != "unlabeled"
        }
        return {
            "source": self.source,
            "would_train": not self.refused,
            "counts": {called: self.counts.get(part, 0) for part, called in CALLED.items()},
            "imbalance_ratio": self.imbalance,
            "classes": [
                {"name": name, **{part: of_part[k] for part, of_part in counts.items()}}
                for k, name in enumerate(self.class_names)
            ],
            "width": self.widths,
            "height": self.heights,
            "different_sizes": self.sizes,
            "endings": dict(self.endings),
            "training_shape": self.shape,
            "notes": list(self.notes),
            "findings": [
                dataclasses.asdict(finding)
                | {"images": [{"name": name, "detail": detail} for name, detail in finding.images]}
                for finding in self.findings
            ],
        }


def check_data(
    source: str,
    reading: Reading | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Read every image of a data set and report problems for training.

    *progress* is called with the images done and the total.
    """
    listing, reading = None, reading or Reading()
    if source not in NAMES:
        listing = list_own(source, dataclasses.replace(reading, skip_bad=True))
    rows: tuple[tuple[str, str], ...] = ()
    own, endings = listing is not None, Counter[str]()
    if listing is not None:
        scan = scan_listing(listing, reading, progress)
        class_names, notes, rows = listing.class_names, listing.notes, listing.skipped
        for pool in listing.pools.values():
            if pool.from_files:
                endings.update(Path(name).suffix.lower() for name in pool.all_names())
    else:
        path = Path(source).expanduser()
        is_bare = reading.size is None and not reading.folders
        own = source not in NAMES and path.suffix.lower() == ".npz" and is_bare
        whole = dataclasses.replace(reading, largest_side=None)
        opened = open_arrays(path) if own else open_with(whole, source)
        scan = scan_source(opened, progress)
        class_names, notes = opened.class_names, opened.notes
    found = [
        *findings.unusable(scan, rows),
        *findings.empty_classes(scan, class_names),
        *copies(scan, class_names, own=own),
        *near_copies(scan, class_names),
        *findings.class_sizes(scan, class_names),
        *findings.names(class_names),
        *findings.shapes(scan),
        *findings.frames(scan),
        *findings.colors(scan),
        *findings.dark(scan),
        *findings.memory(scan),
    ]
    sizes = [(header.width, header.height) for _, header in scan.headers()]
    levels = ("refused", "warning", "note")
    return Report(
        source=source,
        class_names=class_names,
        class_counts={
            part: of_part.class_counts(len(class_names))
            for part, of_part in scan.parts.items()
            if part != "unlabeled"
        },
        counts={part: len(scan.parts[part]) for part in CALLED if part in scan.parts},
        widths=_range([width for width, _ in sizes]),
        heights=_range([height for _, height in sizes]),
        sizes=len(set(sizes)),
        shape=scan.shape,
        findings=tuple(sorted(found, key=lambda finding: levels.index(finding.level))),
        notes=notes,
        shrunk=scan.shrunk,
        endings=endings,
    )


def _range(values: list[int]) -> Range | None:
    return (min(values), float(np.median(values)), max(values)) if values else None
