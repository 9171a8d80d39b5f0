"""What a look at a data set finds that a person should know before training on it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daso.data.check.classes import alike, class_sizes, colors, empty_classes, memory, shapes
from daso.data.check.copies import conflicts, exact_copies, near_copies
from daso.data.check.finding import Finding, how_many
from daso.data.check.scan import Scan
from daso.data.duplicates import find_copies


def find_all(
    scan: Scan, class_names: Sequence[str], *, own: bool, rows: Sequence[tuple[str, str]] = ()
) -> list[Finding]:
    """Return everything that is to be said of a data set, the worst first.

    Args:
        scan: a look at its images.
        class_names: K names.
        own: people's own images; a published benchmark is trained on as it is.
        rows: what a listing of it could not use, with the reason: rows of a manifest, or files and folders.
    """
    copies = find_copies(
        {part: found.pixels for part, found in scan.parts.items()},
        {part: found.labels for part, found in scan.parts.items()},
    )
    findings = [
        *_unusable_rows(rows),
        *_unreadable(scan),
        *empty_classes(scan, class_names),
        *conflicts(scan, copies, class_names, own=own),
        *exact_copies(scan, copies, own=own),
        *near_copies(scan, class_names),
        *class_sizes(scan, class_names),
        *alike(class_names),
        *shapes(scan),
        *colors(scan),
        *memory(scan),
    ]
    order = ("refused", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _unusable_rows(rows: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    if rows:
        text = f"{how_many(rows, 'row, file or folder', 'rows, files or folders')} cannot be used"
        yield Finding(
            "refused", "rows", text, "mend them, or leave them out: --skip-bad", tuple(rows)
        )


def _unreadable(scan: Scan) -> Iterator[Finding]:
    bad = [
        (found.name_of(index), reason)
        for found in scan.parts.values()
        for index, reason in sorted(found.reasons.items())
    ]
    if bad:
        text = f"{how_many(bad, 'image')} cannot be read"
        yield Finding(
            "refused",
            "unreadable",
            text,
            "mend or remove them, or leave them out: --skip-bad",
            tuple(bad),
        )
