"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import numpy as np

from daso.data.images.decoded import DecodedImages
from daso.data.source import Source

TEST_EVERY = 4
"""Every 4th image of each class, in the published order, is a test image."""


def read_digits() -> Source:
    """Read the 1,797 gray 8 x 8 digits, their values 0 to 16 scaled to 0 to 255.

    There is no published test set. The 4th, 8th, 12th ... image of each class is one here, 445 in all.
    Digits are not flipped.
    """
    from sklearn.datasets import load_digits

    published = load_digits()
    images = np.rint(np.asarray(published.images) * (255 / 16)).astype(np.uint8)[:, None]
    labels = np.asarray(published.target).astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return Source(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        train=DecodedImages(images[~is_test], labels[~is_test]),
        test=DecodedImages(images[is_test], labels[is_test]),
        flip=False,
    )
