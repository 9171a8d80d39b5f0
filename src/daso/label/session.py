"""A labeling session: decisions in, suggestions out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.errors import DataError, OptionError, nearest
from daso.label.advice import Adviser, Snapshot
from daso.label.decisions import NONE, UNDECIDED, Decisions
from daso.label.doubtful import LabelDoubt, doubtful_labels
from daso.label.features import Embedding
from daso.label.images import Images, LabelingData
from daso.label.progress import labels_by_round, labels_per_minute, rounds
from daso.label.suggest import Suggestion

Answer = dict[str, Any]
Indices = npt.NDArray[np.int64]

REFIT_AFTER = 20
"""Decisions after which the head is fitted again."""
NEAR = 3
"""Nearest labeled images that are shown beside an image."""
COMPARED = 20_000
"""Labeled images among which they are sought, at most."""
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
        self, data: LabelingData, journal: Any, embedding: Embedding, *, seed: int = 0
    ) -> None:
        self.images = Images(data)
        self.version = 0
        self._journal = journal
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
                "version": self.version,
                "fitting": self._adviser.running,
                "undoable": len(decisions.entries),
                "round": self._round,
                "labels_per_minute": labels_per_minute(decisions.entries),
            }

    def progress(self) -> Answer:
        """Return labels by class and round, the pace, and the numbers of every training."""
        with self._lock:
            decisions = self._decisions
            return {
                "classes": list(decisions.names),
                "labels": decisions.counts().tolist(),
                "by_round": labels_by_round(decisions.entries, decisions.names),
                "labels_per_minute": labels_per_minute(decisions.entries),
                "rounds": rounds(self._journal.entries),
            }

    def suggest(self, count: int) -> list[Answer]:
        """Return images to label next, best first; none while the first ones are sought."""
        with self._lock:
            advice, free = self._adviser.advice, self._free
            if advice is None:
                return []
            there = [one for one in advice.queue if free[one.image]][:count]
            if len(there) < min(count, int(free.sum())) and not self._adviser.running:
                self._adviser.request()
            labeled = self._labeled()
            return [self._described(one.image, labeled) | self._why(one) for one in there]

    def believed(self, label: str, start: int, count: int) -> Answer:
        """Return undecided images that are believed to be of a class, surest first."""
        with self._lock:
            self._class(label)
            advice, free = self._adviser.advice, self._free
        if advice is None or advice.beliefs is None or label not in advice.names:
            return {"total": 0, "images": []}
        beliefs = advice.beliefs
        images = np.flatnonzero((beliefs.top[:, 0] == advice.names.index(label)) & free)
        chances = beliefs.probabilities[images, 0]
        order = np.argsort(-chances, kind="stable")[start : start + count]
        found = [{"image": int(images[at]), "probability": _rounded(chances[at])} for at in order]
        return {"total": len(images), "images": found}

    def similar(self, image: int, count: int) -> list[Answer]:
        """Return the images nearest to one, by the cosine of their features."""
        with self._lock:
            self.images.check(image)
            advice, labels = self._adviser.advice, self._decisions.labels.copy()
            names = list(self._decisions.names)
        if advice is None:
            return []
        cosine = advice.unit @ advice.unit[image]
        cosine[image] = -2
        cosine[labels == NONE] = -2
        count = min(count, len(cosine))
        near = np.argpartition(-cosine, count - 1)[:count] if count > 0 else np.zeros(0, np.int64)
        return [
            {
                "image": int(other),
                "cosine": _rounded(cosine[other]),
                "label": names[labels[other]] if labels[other] >= 0 else None,
            }
            for other in near[np.argsort(-cosine[near], kind="stable")]
            if cosine[other] > -2
        ]

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
                    "probability": _rounded(doubt.probability),
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
            return self._described(image, self._labeled()) | {
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
            for image in images:
                self.images.check(image)
            each = None if seconds is None else seconds / max(1, len(images))
            for image in images:
                self._act("label", image, label, each)
            return self.state()

    def none(self, image: int, seconds: float | None = None) -> Answer:
        """Say that an image is of none of the classes; it is not used any more."""
        return self._act("none", image, None, seconds)

    def skip(self, image: int, seconds: float | None = None) -> Answer:
        """Put an image aside; it is not suggested again."""
        return self._act("skip", image, None, seconds)

    def keep(self, image: int, seconds: float | None = None) -> Answer:
        """Say that the label of an image is right."""
        with self._lock:
            self.images.check(image)
            label = int(self._decisions.labels[image])
            if label < 0:
                raise OptionError(f"image {image} has no label to keep; assign one")
            return self._act("keep", image, self._decisions.names[label], seconds)

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
            self._decisions.take(self._journal.append("class", label=name, round=self._round))
            self._changed()
            return self.state()

    def undo(self, count: int = 1) -> Answer:
        """Take back the newest actions, one by one, as many as there are; they are listed."""
        with self._lock:
            undone = []
            for _ in range(count):
                entry = self._journal.undo()
                if entry is None:
                    break
                image = self._decisions.take_back(entry.number)
                undone.append({"image": image, "action": entry.action, "label": entry.label})
                self._changed()
            return self.state() | {"undone": undone}

    def finish_round(self, details: Answer) -> None:
        """Record a finished training, after which the next round begins."""
        with self._lock:
            self._journal.append("round", round=self._round + 1, details=details)
            self._round += 1

    def _act(self, action: str, image: int, label: str | None, seconds: float | None) -> Answer:
        with self._lock:
            self.images.check(image)
            believed = self._believed_of(image)
            guess, chance = believed[0] if believed else (None, None)
            entry = self._journal.append(
                action,
                image=self.images.name(image),
                checksum=self.images.checksum(image),
                label=label,
                guess=guess,
                probability=chance,
                round=self._round,
                seconds=seconds,
            )
            is_new = (
                label is not None
                and not (self._decisions.labels == self._decisions.names.index(label)).any()
            )
            self._decisions.take(entry, image)
            self._changed(REFIT_AFTER if is_new else 1)
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

    def _believed_of(self, image: int) -> list[tuple[str, float]]:
        """Return the likeliest classes of an image with their probabilities, best first."""
        advice, names = self._adviser.advice, self._decisions.names
        if advice is None or advice.beliefs is None:
            return []
        top, chances = advice.beliefs.top[image], advice.beliefs.probabilities[image]
        pairs = [(advice.names[k], _rounded(p)) for k, p in zip(top, chances, strict=True)]
        return [pair for pair in pairs if pair[0] in names]

    def _labeled(self) -> Indices:
        """Return labeled images, of all classes alike where there are many."""
        labels = self._decisions.labels
        labeled = np.flatnonzero(labels >= 0)
        return labeled if len(labeled) <= COMPARED else labeled[:: 1 + len(labeled) // COMPARED]

    def _described(self, image: int, labeled: Indices) -> Answer:
        believed, advice = self._believed_of(image), self._adviser.advice
        near: list[Answer] = []
        others = labeled[labeled != image]
        if advice is not None and len(others):
            cosine = advice.unit[others] @ advice.unit[image]
            for at in np.argsort(-cosine, kind="stable")[:NEAR]:
                label = self._decisions.names[self._decisions.labels[others[at]]]
                near.append({"image": int(others[at]), "label": label})
        return {
            "image": image,
            "name": self.images.name(image),
            "guess": believed[0][0] if believed else None,
            "probability": believed[0][1] if believed else None,
            "beliefs": [list(pair) for pair in believed],
            "near": near,
        }

    def _why(self, one: Suggestion) -> Answer:
        advice, believed = self._adviser.advice, self._believed_of(one.image)
        assert advice is not None
        label = advice.names[one.label] if one.label >= 0 else None
        return {"kind": one.kind, "reason": one.reason(label, [name for name, _ in believed])}


def _rounded(number: Any) -> float:
    return round(float(number), 4)
