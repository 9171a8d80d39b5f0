"""Sessions of labeling on scikit-learn's handwritten digits, whose classes are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from unittest import mock

import numpy as np
from quick_defaults import FILTERS
from sklearn.datasets import load_digits

from daso.data.journal import Journal
from daso.data.labeling import LabelingData, open_for_labeling
from daso.label.features import embed, of_patches
from daso.label.images import Embedding, Images
from daso.label.session import Session
from daso.nets.encoders import patches

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass
class Digits:
    """Digits in a file, with labels for some; truth[i] is the class of image i of a session."""

    data: LabelingData
    embedding: Embedding
    truth: np.ndarray

    def open(self) -> Session:
        session = Session(self.data, Journal.open(self.data.journal), self.embedding)
        session.wait()
        return session

    def reopen(self, session: Session) -> Session:
        session.journal.close()
        return self.open()

    def name(self, image: int) -> str:
        return NAMES[self.truth[image]]


def make_digits(
    folder: Path,
    each: int = 3,
    wrong: int = 0,
    images: int = 600,
    keep: Mapping[int, int] = MappingProxyType({}),
) -> Digits:
    """Write a file of digits, of which *each* of every class have a label, and *wrong* a wrong one.

    Of the classes in *keep*, only so many images are there.
    """
    digits = load_digits()
    truth = digits.target[:images].astype(np.int64)
    left_out = [np.flatnonzero(truth == k)[number:] for k, number in keep.items()]
    rows = np.setdiff1d(np.arange(images), np.concatenate([np.zeros(0, dtype=int), *left_out]))
    pixels, truth = (digits.images[rows] * 15.9).astype(np.uint8)[:, None], truth[rows]
    images = len(rows)
    labels = np.full(images, -1)
    for k in range(10):
        labels[np.flatnonzero(truth == k)[:each]] = k
    known = np.flatnonzero(labels >= 0)
    for row in known[:: max(1, len(known) // max(1, wrong))][:wrong]:
        labels[row] = (labels[row] + 1) % 10
    path = folder / "digits.npz"
    np.savez(path, images=pixels, labels=labels, class_names=np.array(NAMES))
    data = open_for_labeling(str(path))
    numbered = np.concatenate([known, np.flatnonzero(labels < 0)])
    with mock.patch.object(patches, "FILTERS", FILTERS):
        embedding = embed(found := Images(data), of_patches(found))
    return Digits(data, embedding, truth[numbered])
