"""What a session answers about single images: beliefs, neighbors, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daso.label.advice import Advice
from daso.label.decisions import UNDECIDED
from daso.label.images import Flags, Indices
from daso.label.suggest import Suggestion

Answer = dict[str, Any]

NEAR = 3
"""Nearest labeled images that are shown beside an image."""
COMPARED = 5_000
"""Labeled images among which they are sought, at most."""


def believed(advice: Advice | None, image: int, names: Sequence[str]) -> list[tuple[str, float]]:
    """Return the likeliest classes of an image with their probabilities, best first."""
    if advice is None or advice.beliefs is None:
        return []
    top, chances = advice.beliefs.top[image], advice.beliefs.probabilities[image]
    pairs = [(advice.names[k], rounded(p)) for k, p in zip(top, chances, strict=True)]
    return [pair for pair in pairs if pair[0] in names]


def guess(advice: Advice | None, image: int, names: Sequence[str]) -> Answer:
    """Return the likeliest class of an image and its probability, None before there is one."""
    best = believed(advice, image, names)[:1]
    name, chance = best[0] if best else (None, None)
    return {"guess": name, "probability": chance}


def near_labeled(
    advice: Advice | None, image: int, labels: Indices, names: Sequence[str]
) -> list[Answer]:
    """Return the labeled images nearest to one, by the cosine of their features."""
    others = np.flatnonzero(labels >= 0)
    if len(others) > COMPARED:
        others = others[:: 1 + len(others) // COMPARED]
    others = others[others != image]
    if advice is None or not len(others):
        return []
    cosine = advice.unit[others] @ advice.unit[image]
    best = others[np.argsort(-cosine, kind="stable")[:NEAR]]
    return [{"image": int(one), "label": names[labels[one]]} for one in best]


def similar(
    advice: Advice, image: int, count: int, labels: Indices, names: Sequence[str]
) -> list[Answer]:
    """Return the images nearest to one, labeled or not, by the cosine of their features."""
    cosine = advice.unit @ advice.unit[image]
    cosine[image] = -2
    cosine[labels < UNDECIDED] = -2
    order = np.argsort(-cosine, kind="stable")[:count]
    return [
        {
            "image": int(other),
            "cosine": rounded(cosine[other]),
            "label": names[labels[other]] if labels[other] >= 0 else None,
            **guess(advice, int(other), names),
        }
        for other in order
        if cosine[other] > -2
    ]


def surest(advice: Advice, label: str, free: Flags, start: int, count: int) -> Answer:
    """Return the free images that are believed to be of a class, surest first."""
    beliefs = advice.beliefs
    if beliefs is None or label not in advice.names:
        return {"total": 0, "images": []}
    images = np.flatnonzero((beliefs.top[:, 0] == advice.names.index(label)) & free)
    chances = beliefs.probabilities[images, 0]
    order = np.argsort(-chances, kind="stable")[start : start + count]
    found = [{"image": int(images[at]), "probability": rounded(chances[at])} for at in order]
    return {"total": len(images), "images": found}


def why(advice: Advice | None, one: Suggestion, names: Sequence[str]) -> Answer:
    """Return the kind and the reason of a suggestion."""
    likely = [name for name, _ in believed(advice, one.image, names)]
    return {"kind": one.kind, "reason": one.reason(likely)}


def rounded(number: Any) -> float:
    """Return a number with four decimals, for JSON."""
    return round(float(number), 4)
