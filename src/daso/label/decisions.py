"""The decisions in force: the journal's entries, applied to the images' first labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daso.data.journal import Entry, Journal
from daso.data.journal.entries import PERSONAL
from daso.errors import DataError
from daso.label.images import Images

UNDECIDED, NONE, SORTED = -1, -2, -3
"""Labels of an image that nobody has decided, of one of none of the classes, and of one whose copy
in a class folder, made by ``daso label --apply``, has the label."""


class Decisions:
    """What has been decided about each image, and what can be undone.

    Attributes:
        names: of the classes: those of the data, then added ones.
        labels: int64 (N,): a class, ``UNDECIDED``, ``NONE`` or ``SORTED``.
        skipped: images that were put aside last.
        kept: images whose label was confirmed last.
        entries: those in force, oldest first.
        changed: images that are others than when they were decided; that is not used.
    """

    def __init__(self, images: Images, names: Sequence[str], journal: Journal) -> None:
        self.names = list(names)
        self.given = len(self.names)
        self.labels = images.labels.copy()
        self.skipped: set[int] = set()
        self.kept: set[int] = set()
        self.entries: list[Entry] = []
        self._first = images.labels
        self._history: dict[int, list[Entry]] = {}
        self._numbers = images.find(journal.names())
        for entry in journal.in_force(self._numbers):
            if entry.action in PERSONAL:
                self.take(entry)
        self.changed = [image for image in self._history if self._has_changed(images, image)]
        for image in self.changed:
            del self._history[image]
            self._settle(image)
        applied = journal.applied()
        for name, entry in journal.decisions(self._numbers).items():
            if entry.number in applied and name in self._numbers:
                self.labels[self._numbers[name]] = SORTED

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of labels of each class, (K,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))

    def take(self, entry: Entry, image: int | None = None) -> None:
        """Take a new entry into account; *image* is the number of the image it names."""
        self.entries.append(entry)
        if entry.label is not None and entry.label not in self.names:
            self.names.append(entry.label)
        if entry.image is None:
            return
        if image is not None:
            self._numbers[entry.image] = image
        number = self._numbers.get(entry.image)
        if number is not None:  # otherwise the image is no longer there
            self._history.setdefault(number, []).append(entry)
            self._settle(number)

    def take_back(self, number: int) -> int | None:
        """Forget an entry by its number in the journal; return the image that it was about."""
        entry = next(entry for entry in reversed(self.entries) if entry.number == number)
        self.entries.remove(entry)
        if entry.action == "class":
            self.names.remove(str(entry.label))
        image = None if entry.image is None else self._numbers.get(entry.image)
        if image is not None and entry in self._history.get(image, ()):
            self._history[image].remove(entry)
            self._settle(image)
        return image

    def _has_changed(self, images: Images, image: int) -> bool:
        """Whether an image is another than the one that was decided, or cannot be read."""
        checksum = self._history[image][-1].checksum
        try:
            return checksum is not None and checksum != images.checksum(image)
        except DataError:
            return True

    def _settle(self, image: int) -> None:
        label, kept, skipped = int(self._first[image]), False, False
        for entry in self._history.get(image, ()):
            skipped = entry.action == "skip"
            if entry.action == "none":
                label, kept = NONE, False
            elif entry.action in ("label", "keep"):
                label, kept = self.names.index(str(entry.label)), entry.action == "keep"
        self.labels[image] = label
        for members, there in ((self.kept, kept), (self.skipped, skipped)):
            (members.add if there else members.discard)(image)
