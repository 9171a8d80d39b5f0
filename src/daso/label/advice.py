"""Fits the live head in a thread, and keeps the suggestions that follow from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from daso.errors import first_line
from daso.label.decisions import UNDECIDED
from daso.label.images import Embedding, Floats
from daso.label.suggest import Situation, Snapshot, Suggestion, suggestions
from daso.label.typical import cluster

if TYPE_CHECKING:  # the page opens without torch
    from daso.label.live import Beliefs


QUEUE = 300
"""Suggestions that are made at a time."""
NEW_CLUSTERS = 20
"""Clusters beyond the decided images: as many as are labeled between two fits, as in TypiClust."""
MOST_CLUSTERS = 500


@dataclass(frozen=True)
class Advice:
    """What the features say about the images: beliefs and suggestions of one moment.

    Attributes:
        names: of the classes that the beliefs are about.
        unit: unit vectors of all images, float32 (N, d).
    """

    embedding: Embedding
    names: tuple[str, ...]
    unit: Floats
    beliefs: Beliefs | None
    queue: tuple[Suggestion, ...]

    def expected(self) -> dict[str, float]:
        """Return how many undecided images there may be of each class."""
        if self.beliefs is None:
            return {}
        return dict(zip(self.names, np.round(self.beliefs.expected, 1).tolist(), strict=True))


def advise(embedding: Embedding, snapshot: Snapshot, before: Advice | None, seed: int) -> Advice:
    """Fit the head, cluster the images, and choose what to label next."""
    from daso.label.live import fit_live, unit_rows

    unit = unit_rows(embedding.features) if before is None else before.unit
    believed = None if before is None else before.beliefs
    beliefs = fit_live(embedding.features, snapshot.labels, len(snapshot.counts), seed, believed)
    decided = int((snapshot.labels != UNDECIDED).sum())
    clusters = cluster(unit, min(MOST_CLUSTERS, decided + NEW_CLUSTERS), seed)
    situation = Situation(
        **vars(snapshot), features=embedding.features, unit=unit, clusters=clusters, beliefs=beliefs
    )
    queue = tuple(suggestions(situation, QUEUE))
    return Advice(embedding, snapshot.names, unit, beliefs, queue)


class Adviser:
    """Gives advice on the decisions of a session, anew whenever it is asked to.

    Advice is made in a thread, without the session's lock, which is taken only to look at the
    decisions and to hand the advice over. A request meanwhile leads to one more round.

    Args:
        lock: of the session.
        look: returns the decisions; called with the lock.
        given: called with the lock when there is new advice.
    """

    def __init__(
        self,
        lock: threading.RLock,
        look: Callable[[], Snapshot],
        given: Callable[[], None],
        seed: int,
    ) -> None:
        self.advice: Advice | None = None
        self.running = False
        self.failure: Exception | None = None
        self._look, self._given, self._seed = look, given, seed
        self._idle = threading.Condition(lock)
        self._wanted = False
        self._embedding: Embedding | None = None

    @property
    def fault(self) -> str | None:
        """Why the last attempt failed, in words; None if it did not."""
        return None if self.failure is None else first_line(self.failure)

    def request(self, embedding: Embedding | None = None) -> None:
        """Ask for new advice; on other features from now on, if they are given.

        Nothing happens before the first features.
        """
        with self._idle:
            self._embedding = embedding or self._embedding
            if self._embedding is None:
                return
            self._wanted = True
            if not self.running:
                self.running = True
                threading.Thread(target=self._work, name="advice", daemon=True).start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way; return whether that is so.

        Raises:
            Exception: what made the last attempt fail.
        """
        with self._idle:
            done = self._idle.wait_for(lambda: not self.running, timeout)
            if self.failure is not None:
                raise self.failure
            return done

    def _work(self) -> None:
        while True:
            with self._idle:
                if not self._wanted:
                    self.running = False
                    self._idle.notify_all()
                    return
                self._wanted = False
                embedding, before, snapshot = self._embedding, self.advice, self._look()
            assert embedding is not None
            if before is not None and before.embedding is not embedding:
                before = None
            try:
                advice = advise(embedding, snapshot, before, self._seed)
            except Exception as error:  # the page shows it; labeling goes on without new advice
                with self._idle:
                    self.failure = error
                continue
            with self._idle:
                self.advice, self.failure = advice, None
                self._given()
