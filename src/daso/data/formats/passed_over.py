"""Count what a reader passes over, so that nothing is left out without a word."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from daso.data.listing import JOURNAL

PLURAL = re.compile(r"\b(file|folder|link|device|sample|image|array)s\b")
MOST_KINDS = 20
"""Kinds that are named in notes."""


def is_broken_link(path: Path) -> bool:
    """Whether a path is a link to what is not there."""
    return path.is_symlink() and not path.exists()


@dataclass
class PassedOver:
    """Counts what is not read, and keeps the first name of each kind."""

    kinds: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        count, first = self.kinds.get(kind, (0, name))
        self.kinds[kind] = (count + 1, first)

    def add_file(self, name: str) -> None:
        """Count a file by its ending; a hidden one as such, but for those of ``daso label``."""
        path = PurePath(name)
        if path.name.endswith(JOURNAL):
            return
        if path.name.startswith("."):
            if "daso-label" not in path.name:
                self.add("hidden files", name)
            return
        if is_broken_link(Path(name)):
            self.add("broken links", name)
            return
        ending = path.suffix.lower()
        self.add(f"{ending} files" if ending else "files without an ending", name)

    def words(self) -> list[str]:
        """Return count and kind of what is passed over, the most frequent first."""
        kinds = sorted(self.kinds.items(), key=lambda kind: -kind[1][0])
        return [
            f"{count:,} " + (kind if count > 1 else PLURAL.sub(r"\1", kind, count=1))
            for kind, (count, _) in kinds
        ]

    def notes(self, where: str) -> list[str]:
        """Return one sentence about all kinds, the most frequent first; none if there are none."""
        firsts = [first for _, first in sorted(self.kinds.values(), key=lambda kind: -kind[0])]
        parts = [
            f"{what}, such as {name[:200]!r}"
            for what, name in zip(self.words()[:MOST_KINDS], firsts, strict=False)
        ]
        if (more := len(firsts) - MOST_KINDS) > 0:
            parts.append(f"{more} further kinds of files")
        return [f"{where}: not read: {'; '.join(parts)}"] if parts else []
