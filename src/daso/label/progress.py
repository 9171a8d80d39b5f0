"""What labeling has brought so far: labels per class and minute, and the numbers of trainings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from daso.data.journal import Entry
from daso.data.journal.entries import DECISIONS
from daso.label.decisions import Decisions

LAST = 50
"""Decisions whose pace is shown."""
PAUSE = 120.0
"""Seconds between two decisions after which somebody was away."""


def labels_per_minute(entries: Sequence[Entry]) -> float | None:
    """Return the pace of the last decisions, without pauses; None before there are three."""
    decided = [entry for entry in entries[-2 * LAST :] if entry.action in DECISIONS][-LAST:]
    times = [datetime.fromisoformat(entry.time).timestamp() for entry in decided]
    gaps = [b - a for a, b in itertools.pairwise(times) if 0 <= b - a <= PAUSE]
    if len(gaps) < 2 or sum(gaps) <= 0:
        return None
    return round(60 * len(gaps) / sum(gaps), 1)


def progress(decisions: Decisions, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return labels by class and round, the pace, and the numbers of every training.

    Args:
        entries: all of the journal; undone ones too.
    """
    return {
        "classes": list(decisions.names),
        "labels": decisions.counts().tolist(),
        "by_round": labels_by_round(decisions.entries, decisions.names),
        "labels_per_minute": labels_per_minute(decisions.entries),
        "rounds": [
            {"round": entry.round, **(entry.details or {})}
            for entry in entries
            if entry.action == "round"
        ],
    }


def labels_by_round(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return, for each round, the labels that were given to every class in it."""
    place = {name: number for number, name in enumerate(names)}
    found: dict[int, list[int]] = {}
    for entry in entries:
        if entry.action == "label" and entry.label is not None:
            found.setdefault(entry.round, [0] * len(names))[place[entry.label]] += 1
    return [{"round": number, "labels": found[number]} for number in sorted(found)]
