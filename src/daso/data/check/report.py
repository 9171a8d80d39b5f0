"""A report on a data set, made before any training: counts, sizes, findings, a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daso.data.check.classes import class_counts
from daso.data.check.finding import CALLED, Finding
from daso.data.check.findings import find_all
from daso.data.check.scan import Scan, scan_listing, scan_source
from daso.data.formats.npz import read_npz
from daso.data.open import NAMES, list_own, open_source


@dataclass(frozen=True)
class Report:
    """What ``check_data`` returns.

    Attributes:
        source: as it was named.
        class_names: K names.
        class_counts: by part ("train", "validation", "test"), readable images of each class.
        counts: by part, images, the unreadable ones included.
        widths, heights: least, median and largest, in pixels; None if nothing can be read.
        sizes: how many different sizes there are.
        shape: (C, H, W) that training takes, unless told or chosen otherwise.
        findings: the worst first.
        notes: of the reader.
        shrunk: whether *shrink* of ``check_data`` decided the size.
    """

    source: str
    class_names: tuple[str, ...]
    class_counts: Mapping[str, list[int]]
    counts: Mapping[str, int]
    widths: tuple[int, float, int] | None
    heights: tuple[int, float, int] | None
    sizes: int
    shape: tuple[int, int, int] | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    shrunk: bool

    @property
    def refused(self) -> bool:
        """Whether training refuses this data."""
        return any(finding.level == "refused" for finding in self.findings)

    @property
    def imbalance(self) -> float | None:
        """Labelled images of the most frequent class for each one of the rarest; None where a class has none."""
        counts = self.class_counts["train"]
        least = min(counts, default=0)
        return max(counts) / least if least else None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values; docs/data.md describes them."""
        return {
            "source": self.source,
            "would_train": not self.refused,
            "counts": {_key(part): count for part, count in self.counts.items()},
            "imbalance_ratio": self.imbalance,
            "classes": [
                {
                    "name": name,
                    **{_key(part): counts[k] for part, counts in self.class_counts.items()},
                }
                for k, name in enumerate(self.class_names)
            ],
            "width": self.widths,
            "height": self.heights,
            "different_sizes": self.sizes,
            "training_shape": self.shape,
            "notes": list(self.notes),
            "findings": [
                {
                    **{
                        key: value
                        for key, value in dataclasses.asdict(finding).items()
                        if key != "images"
                    },
                    "images": [{"name": name, "detail": detail} for name, detail in finding.images],
                }
                for finding in self.findings
            ],
        }


def _key(part: str) -> str:
    return "labeled" if part == "train" else part


def check_data(
    source: str,
    *,
    data: Path | None = None,
    folders: Mapping[str, str] | None = None,
    size: int | None = None,
    download: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shrink: Callable[[int], int | None] = lambda side: None,
) -> Report:
    """Look at every image of a data set and say what would hurt a training.

    Args:
        source, data, folders, size, download: see ``open_source``.
        progress: called with images done and images in all.
        shrink: given the side that images have in training, returns the side that they get if *size* is not given;
            None: that one.

    Raises:
        DataError: there is nothing to look at: no images, no classes, or a file that lists them cannot be read.
        OptionError: an option does not go with this source.
        MissingDependencyError: parquet and Arrow files need pyarrow.
    """
    listing = None
    if source not in NAMES:
        listing = list_own(source, data=data, folders=folders, skip_bad=True, download=download)
    if listing is not None:
        taken: list[int] = []

        def side_of(side: int) -> int | None:
            if size is None and (less := shrink(side)) is not None:
                taken.append(less)
                return less
            return size

        scan = scan_listing(listing, side_of, progress)
        findings = find_all(scan, listing.class_names, own=True, rows=listing.skipped)
        return _report(
            source, listing.class_names, scan, findings, listing.notes, shrunk=bool(taken)
        )
    path = Path(source).expanduser()
    own = source not in NAMES and path.suffix.lower() == ".npz" and size is None and not folders
    opened = (
        read_npz(path)
        if own
        else open_source(source, data=data, folders=folders, size=size, download=download)
    )
    scan = scan_source(opened, progress)
    findings = find_all(scan, opened.class_names, own=own)
    return _report(source, opened.class_names, scan, findings, opened.notes, shrunk=False)


def _report(
    source: str,
    class_names: tuple[str, ...],
    scan: Scan,
    findings: list[Finding],
    notes: tuple[str, ...],
    *,
    shrunk: bool,
) -> Report:
    headers = [header for found in scan.parts.values() for header in found.headers.values()]
    widths, heights = [header.width for header in headers], [header.height for header in headers]
    return Report(
        source=source,
        class_names=class_names,
        class_counts={
            part: class_counts(found, len(class_names))
            for part, found in scan.parts.items()
            if part != "unlabeled"
        },
        counts={part: len(scan.parts[part]) for part in CALLED if part in scan.parts},
        widths=_range(widths),
        heights=_range(heights),
        sizes=len(set(zip(widths, heights, strict=True))),
        shape=scan.shape,
        findings=tuple(findings),
        notes=notes,
        shrunk=shrunk,
    )


def _range(values: list[int]) -> tuple[int, float, int] | None:
    return (min(values), float(np.median(values)), max(values)) if values else None
