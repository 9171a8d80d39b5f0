"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import numpy as np

from daso.data.images.decoded import DecodedImages
from daso.data.source import Source


def read_digits() -> Source:
    """Read the 1,797 gray 8 x 8 digits, their values 0 to 16 scaled to 0 to 255.

    There is no published test set: every 4th image of each class is a test image, 445 in all.
    """
    from sklearn.datasets import load_digits

    published = load_digits()
    images = np.rint(np.asarray(published.images) * (255 / 16)).astype(np.uint8)[:, None]
    labels = np.asarray(published.target).astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[3::4]] = True
    return Source(
        name="digits",
        class_names=tuple(map(str, range(10))),
        train=DecodedImages(images[~is_test], labels[~is_test]),
        test=DecodedImages(images[is_test], labels[is_test]),
        flip=False,
    )
