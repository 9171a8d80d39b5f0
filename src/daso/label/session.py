"""A labeling session: decisions in, suggestions out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from daso.data.class_names import is_missing, name_faults
from daso.data.journal import Journal
from daso.data.journal.entries import Action
from daso.errors import DataError, OptionError, nearest
from daso.label import answers
from daso.label.advice import Adviser
from daso.label.answers import Answer
from daso.label.decisions import NONE, SORTED, UNDECIDED, Decisions
from daso.label.images import Embedding, Flags, Images
from daso.label.progress import labels_per_minute, progress
from daso.label.suggest import Snapshot, Suggestion

if TYPE_CHECKING:  # the page opens without torch
    from daso.data.labeling import LabelingData
    from daso.label.doubtful import LabelDoubt

REFIT_AFTER = 20
"""Decisions after which the head is fitted again."""
KEYS = "1234567890abcdehijklmopqrtwxyz"
"""Keys of the classes, in order; the other letters are commands of the page."""


class Session:
    """The state of labeling, kept in a journal; safe to use from several threads.

    Images are numbers (see ``Images``); answers are JSON values. After every 20 decisions a thread
    fits the live head again, and ``version`` grows when its suggestions are there. Before the first
    features images are suggested at random. The actions of a request may have its key: what an
    earlier process has done of it, before it was killed, is not done again.

    Raises:
        DataError: the embedding has another number of images.
    """

    def __init__(
        self,
        data: LabelingData,
        journal: Journal,
        embedding: Embedding | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.images = Images(data)
        self.version = 0
        self.journal = journal
        # Of actions, which wait for the disk; taken before the other, of what is in memory.
        self._writing, self._lock = threading.RLock(), threading.RLock()
        self._decisions = Decisions(self.images, data.class_names, journal)
        self._round = sum(entry.action == "round" for entry in journal.entries)
        self._changes = self._since_advice = 0
        self._doubts: tuple[int, list[LabelDoubt]] | None = None
        self._adviser = Adviser(self._lock, self._look, self._on_advice, seed)
        self._order = np.random.default_rng(seed).permutation(len(self.images))
        self._embedding: Embedding | None = None
        if embedding is not None:
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
                "images": int((labels != SORTED).sum()),
                "undecided": int((labels == UNDECIDED).sum()),
                "none": int((labels == NONE).sum()),
                "skipped": len(decisions.skipped),
                "changed": len(decisions.changed),
                "version": self.version,
                "compared": advice is not None,
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
        """Return images to label next, best first; at random before the first features."""
        with self._lock:
            advice, free = self._adviser.advice, self._free
            if advice is None:
                some = self._order[free[self._order]][:count]
                there = [Suggestion(int(image), "any") for image in some]
            else:
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
            self._checked_class(label)
            advice, free = self._adviser.advice, self._free
        if advice is None:
            return {"total": 0, "images": []}
        found = answers.surest(advice, label, free, start, count)
        return found | {"images": self._named(found["images"])}

    def similar(self, image: int, count: int) -> list[Answer]:
        """Return the images nearest to one, by the cosine of their features."""
        with self._lock:
            self.images.check(image)
            advice, labels = self._adviser.advice, self._decisions.labels.copy()
            names = list(self._decisions.names)
        if advice is None:
            return []
        return self._named(answers.similar(advice, image, count, labels, names))

    def doubtful(self, count: int) -> list[Answer]:
        """Return labeled images that the others contradict, the most doubtful first."""
        with self._lock:
            decisions, advice = self._decisions, self._adviser.advice
            cached, changes, labels = self._doubts, self._changes, decisions.labels.copy()
            classes = len(decisions.names)
        if advice is None:
            return []
        if cached is None or cached[0] != changes:
            from daso.label.doubtful import doubtful_labels

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

    def assign(
        self,
        images: Sequence[int],
        label: str,
        seconds: float | None = None,
        key: str | None = None,
    ) -> Answer:
        """Give images a class; they may have had another, and each is one step of ``undo``."""
        return self._act("label", images, key, lambda _: self._checked_class(label), seconds)

    def none(self, *images: int, key: str | None = None) -> Answer:
        """Say that images are of none of the classes; they are not used any more."""
        return self._act("none", images, key)

    def skip(self, *images: int, key: str | None = None) -> Answer:
        """Put images aside; they are not suggested again."""
        return self._act("skip", images, key)

    def keep(self, *images: int, key: str | None = None) -> Answer:
        """Say that the labels of images are right."""

        def label_of(image: int) -> str:
            label = int(self._decisions.labels[image])
            if label < 0:
                raise OptionError(f"image {image} has no label to keep; assign one")
            return self._decisions.names[label]

        return self._act("keep", images, key, label_of)

    def add_class(self, name: str, key: str | None = None) -> Answer:
        """Add a class.

        Raises:
            OptionError: the name is empty, or there is such a class.
        """
        name = name.strip()
        with self._writing:
            if self.journal.of_request(key):
                return self.state()
            if not name:
                raise OptionError("a class needs a name")
            if is_missing(name):
                raise OptionError(f"{name!r} reads like a missing label; choose another name")
            for code, fault, _ in name_faults([name]):
                if code == "unseen-name":
                    raise OptionError(f"{fault}; choose another name")
            if name in self._decisions.names:
                raise OptionError(f"there is a class {name!r} already")
            entry = self.journal.append("class", label=name, round=self._round, key=key)
            with self._lock:
                self._decisions.take(entry)
                self._changed()
                return self.state()

    def undo(self, count: int = 1, key: str | None = None) -> Answer:
        """Take back the newest actions, one by one, as many as there are; they are listed."""
        with self._writing:
            undone = []
            for _ in range(count - len(self.journal.of_request(key))):
                entry = self.journal.undo(key)
                if entry is None:
                    break
                with self._lock:
                    image = self._decisions.take_back(entry.number)
                    undone.append({"image": image, "action": entry.action, "label": entry.label})
                    self._changed()
            return self.state() | {"undone": undone}

    def finish_round(self, details: Answer) -> None:
        """Record a finished training, after which the next round begins."""
        with self._writing:
            self.journal.append("round", round=self._round + 1, details=details)
            self._round += 1

    def _act(
        self,
        action: Action,
        images: Sequence[int],
        key: str | None,
        label_of: Callable[[int], str | None] = lambda image: None,
        seconds: float | None = None,
    ) -> Answer:
        """Write an action for the images that its request has not decided yet, all or none."""
        with self._writing:
            for image in images:
                self.images.check(image)
            done = {entry.image for entry in self.journal.of_request(key)}
            left = [image for image in images if self.images.name(image) not in done]
            if not left:
                return self.state()
            chosen = [label_of(image) for image in left]
            for image in left:
                if self._decisions.labels[image] == SORTED:
                    what = f"image {image} was sorted into the folder of its class"
                    raise OptionError(f"{what}; decide about the file there")
            try:
                checksums = [self.images.checksum(image) for image in left]
            except DataError as error:
                cure = "restore the file, or skip the image (in Confirm a class, click it away)"
                raise DataError(f"{error}; {cure}") from error
            with self._lock:
                decisions, advice = self._decisions, self._adviser.advice
                values = [
                    {
                        "image": self.images.name(image),
                        "checksum": checksum,
                        "label": label,
                        **answers.guess(advice, image, decisions.names),
                        "round": self._round,
                        "seconds": None if seconds is None else seconds / len(left),
                        "key": key,
                    }
                    for image, label, checksum in zip(left, chosen, checksums, strict=True)
                ]
                numbers = {decisions.names.index(label) for label in chosen if label is not None}
                is_new = any(not (decisions.labels == number).any() for number in numbers)
            entries = self.journal.extend([(action, value) for value in values])
            with self._lock:
                for entry, image in zip(entries, left, strict=True):
                    decisions.take(entry, image)
                self._changed(REFIT_AFTER if is_new else len(left))
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
        own = np.unique(self.images.labels[self.images.labels >= 0])
        is_settled = 0 < len(own) == decisions.given
        return Snapshot(names, decisions.labels.copy(), self._free, counts, is_settled)

    def _on_advice(self) -> None:
        self.version += 1

    @property
    def _free(self) -> Flags:
        """Whether each image may be suggested, (N,): it is undecided, and nobody put it aside."""
        free = self._decisions.labels == UNDECIDED
        unreadable = () if self._embedding is None else self._embedding.unreadable
        free[[*self._decisions.skipped, *unreadable]] = False
        return np.asarray(free)

    def _checked_class(self, name: str) -> str:
        names = self._decisions.names
        if name not in names:
            shown = str(name)[:80]
            raise OptionError(f"no class {shown!r}; add it first.{nearest(shown, names)}")
        return name

    def _named(self, found: Sequence[Answer]) -> list[Answer]:
        return [one | {"name": self.images.name(one["image"])} for one in found]

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
