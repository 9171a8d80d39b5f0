from __future__ import annotations

import numpy as np

from daso.data.benchmarks.digits import read_digits


def test_digits_and_their_fixed_test_set() -> None:
    source, again = read_digits(), read_digits()
    assert source.test is not None
    assert again.test is not None
    assert source.train.images.shape == (1352, 1, 8, 8)
    assert source.test.images.shape == (445, 1, 8, 8)
    assert source.train.images.max() == 255
    assert not source.flip
    assert np.array_equal(source.test.images, again.test.images)
    in_train, in_test = (np.bincount(pool.labels) for pool in (source.train, source.test))
    assert np.array_equal(in_test, (in_train + in_test) // 4)
