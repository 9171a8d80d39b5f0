"""A labeling session: decisions in, suggestions out."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from daso.data.journal import Journal
from daso.data.journal.entries import Action
from daso.errors import DataError, OptionError, nearest
from daso.label import answers
from daso.label.advice import Adviser, Snapshot
from daso.label.answers import Answer
from daso.label.decisions import NONE, UNDECIDED, Decisions
from daso.label.doubtful import LabelDoubt, doubtful_labels
from daso.label.features import Embedding
from daso.label.images import Images, LabelingData
from daso.label.progress import labels_per_minute, progress

REFIT_AFTER = 20
"""Decisions after which the head is fitted again."""
KEYS = "1234567890abcdehijklmopqrtvwxyz"
"""Keys of the classes, in order; the other letters are commands of the page."""


class Session:
    """The state of labeling, kept in a journal; safe to use from several threads.

    Images are numbers (see ``Images``); answers are JSON values. After every 20 decisions a thread
    fits the live head again, and ``version`` grows when its suggestions are there.

    Raises:
        DataError: the embedding has another number of images.
    """

    def __init__(
        self, data: LabelingData, journal: Journal, embedding: Embedding, *, seed: int = 0
    ) -> None:
        self.images = Images(data)
        self.version = 0
        self.journal = journal
        self._lock = threading.RLock()
        self._decisions = Decisions(self.images, data.class_names, journal.entries)
        self._round = sum(entry.action == "round" for entry in journal.entries)
        self._changes = self._since_advice = 0
        self._doubts: tuple[int, list[LabelDoubt]] | None = None
        self._adviser = Adviser(self._lock, self._look, self._on_advice, seed)
        self.replace_embedding(embedding)

    def replace_embedding(self, embedding: Embedding) -> None:
        """Use other features of the same images from now on, as after a training."""
        if len(embedding.features) != len(self.images):
            raise DataError(
                f"there are features of {len(embedding.features)} images, and "
                f"{len(self.images)} images; the data has changed, start again"
            )
        with self._lock:
            self._embedding = embedding
            self._changes += 1
            self._adviser.request(embedding)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is being fitted; return whether that is so."""
        return self._adviser.wait(timeout)

    # What to look at.

    def state(self) -> Answer:
        """Return the classes with their labels, and how far the session is."""
        with self._lock:
            decisions, advice = self._decisions, self._adviser.advice
            counts, labels = decisions.counts(), decisions.labels
            expected = {} if advice is None else advice.expected()
            return {
                "classes": [
                    {
                        "name": name,
                        "key": KEYS[number] if number < len(KEYS) else None,
                        "labels": int(counts[number]),
                        "added": number >= decisions.given,
                        "expected": expected.get(name),
                    }
                    for number, name in enumerate(decisions.names)
                ],
                "images": len(labels),
                "undecided": int((labels == UNDECIDED).sum()),
                "none": int((labels == NONE).sum()),
                "skipped": len(decisions.skipped),
                "changed": len(decisions.changed),
                "version": self.version,
                "fitting": self._adviser.running,
                "fault": self._adviser.fault,
                "undoable": len(decisions.entries),
                "round": self._round,
                "labels_per_minute": labels_per_minute(decisions.entries),
            }

    def progress(self) -> Answer:
        """Return labels by class and round, the pace, and the numbers of every training."""
        with self._lock:
            return progress(self._decisions, self.journal.entries)

    def suggest(self, count: int) -> list[Answer]:
        """Return images to label next, best first; none while the first ones are sought."""
        with self._lock:
            advice, free = self._adviser.advice, self._free
            if advice is None:
                return []
            there = [one for one in advice.queue if free[one.image]][:count]
            if len(there) < min(count, int(free.sum())) and not self._adviser.running:
                self._adviser.request()
            return [
                self._described(one.image) | answers.why(advice, one, self._decisions.names)
                for one in there
            ]

    def believed(self, label: str, start: int, count: int) -> Answer:
        """Return undecided images that are believed to be of a class, surest first."""
        with self._lock:
            self._class(label)
            advice, free = self._adviser.advice, self._free
        if advice is None:
            return {"total": 0, "images": []}
        return answers.surest(advice, label, free, start, count)

    def similar(self, image: int, count: int) -> list[Answer]:
        """Return the images nearest to one, by the cosine of their features."""
        with self._lock:
            self.images.check(image)
            advice, labels = self._adviser.advice, self._decisions.labels.copy()
            names = list(self._decisions.names)
        if advice is None:
            return []
        return answers.similar(advice, image, count, labels, names)

    def doubtful(self, count: int) -> list[Answer]:
        """Return labeled images that the others contradict, the most doubtful first."""
        with self._lock:
            decisions, cached, changes = self._decisions, self._doubts, self._changes
            advice, labels, classes = (
                self._adviser.advice,
                decisions.labels.copy(),
                len(decisions.names),
            )
        if advice is None:
            return []
        if cached is None or cached[0] != changes:
            features = advice.embedding.features
            cached = changes, doubtful_labels(features, advice.unit, labels, classes)
        with self._lock:
            self._doubts = cached
            names, aside = decisions.names, decisions.kept | decisions.skipped
            return [
                {
                    "image": doubt.image,
                    "label": names[doubt.label],
                    "guess": names[doubt.guess],
                    "probability": answers.rounded(doubt.probability),
                    "reason": doubt.reason(names),
                }
                for doubt in cached[1]
                if doubt.image not in aside
            ][:count]

    def describe(self, image: int) -> Answer:
        """Return what is known and believed about an image."""
        with self._lock:
            self.images.check(image)
            label = int(self._decisions.labels[image])
            return self._described(image) | {
                "label": self._decisions.names[label] if label >= 0 else None,
                "none": label == NONE,
                "skipped": image in self._decisions.skipped,
            }

    # What a person does.

    def assign(self, image: int, label: str, seconds: float | None = None) -> Answer:
        """Give an image a class; it may have had another."""
        return self.assign_many([image], label, seconds)

    def assign_many(
        self, images: Sequence[int], label: str, seconds: float | None = None
    ) -> Answer:
        """Give several images a class; each is one step of ``undo``."""
        with self._lock:
            self._class(label)
            return self._act("label", images, label, seconds)

    def none(self, image: int, seconds: float | None = None) -> Answer:
        """Say that an image is of none of the classes; it is not used any more."""
        return self._act("none", [image], None, seconds)

    def skip(self, image: int, seconds: float | None = None) -> Answer:
        """Put an image aside; it is not suggested again."""
        return self._act("skip", [image], None, seconds)

    def keep(self, image: int, seconds: float | None = None) -> Answer:
        """Say that the label of an image is right."""
        with self._lock:
            self.images.check(image)
            label = int(self._decisions.labels[image])
            if label < 0:
                raise OptionError(f"image {image} has no label to keep; assign one")
            return self._act("keep", [image], self._decisions.names[label], seconds)

    def add_class(self, name: str) -> Answer:
        """Add a class.

        Raises:
            OptionError: the name is empty, or there is such a class.
        """
        name = name.strip()
        with self._lock:
            if not name:
                raise OptionError("a class needs a name")
            if name in self._decisions.names:
                raise OptionError(f"there is a class {name!r} already")
            self._decisions.take(self.journal.append("class", label=name, round=self._round))
            self._changed()
            return self.state()

    def undo(self, count: int = 1) -> Answer:
        """Take back the newest actions, one by one, as many as there are; they are listed."""
        with self._lock:
            undone = []
            for _ in range(count):
                entry = self.journal.undo()
                if entry is None:
                    break
                image = self._decisions.take_back(entry.number)
                undone.append({"image": image, "action": entry.action, "label": entry.label})
                self._changed()
            return self.state() | {"undone": undone}

    def finish_round(self, details: Answer) -> None:
        """Record a finished training, after which the next round begins."""
        with self._lock:
            self.journal.append("round", round=self._round + 1, details=details)
            self._round += 1

    def _act(
        self, action: Action, images: Sequence[int], label: str | None, seconds: float | None
    ) -> Answer:
        """Write an action for several images, all or none of them, and follow it."""
        with self._lock:
            for image in images:
                self.images.check(image)
            decisions, advice = self._decisions, self._adviser.advice
            values = [
                {
                    "image": self.images.name(image),
                    "checksum": self.images.checksum(image),
                    "label": label,
                    **answers.guess(advice, image, decisions.names),
                    "round": self._round,
                    "seconds": None if seconds is None else seconds / len(images),
                }
                for image in images
            ]
            number = -1 if label is None else decisions.names.index(label)
            is_new = label is not None and not (decisions.labels == number).any()
            entries = self.journal.extend([(action, value) for value in values])
            for entry, image in zip(entries, images, strict=True):
                decisions.take(entry, image)
            self._changed(REFIT_AFTER if is_new else len(images))
            return self.state()

    # Inner workings; all with the lock.

    def _changed(self, weight: int = 1) -> None:
        self._changes += 1
        self._since_advice += weight
        if self._since_advice >= REFIT_AFTER:
            self._since_advice = 0
            self._adviser.request()

    def _look(self) -> Snapshot:
        decisions = self._decisions
        names, counts = tuple(decisions.names), decisions.counts()
        return Snapshot(names, decisions.labels.copy(), self._free, counts)

    def _on_advice(self) -> None:
        self.version += 1

    @property
    def _free(self) -> npt.NDArray[np.bool_]:
        """Whether each image may be suggested, (N,): it is undecided, and nobody put it aside."""
        free = self._decisions.labels == UNDECIDED
        aside = [*self._decisions.skipped, *self._embedding.unreadable]
        free[aside] = False
        return np.asarray(free)

    def _class(self, name: str) -> int:
        names = self._decisions.names
        if name not in names:
            raise OptionError(
                f"no class {str(name)[:80]!r}; add it first.{nearest(str(name), names)}"
            )
        return names.index(name)

    def _described(self, image: int) -> Answer:
        advice, decisions = self._adviser.advice, self._decisions
        best = answers.believed(advice, image, decisions.names)
        return {
            "image": image,
            "name": self.images.name(image),
            **answers.guess(advice, image, decisions.names),
            "beliefs": [list(pair) for pair in best],
            "near": answers.near_labeled(advice, image, decisions.labels, decisions.names),
        }
