"""Cross-validation: folds, and what is measured on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from daso.data.draws import deal_folds
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.errors import OptionError
from daso.evaluate.metrics import wilson_interval
from daso.files import read_json
from daso.train.cross_validation import ANSWERS, answer_fold, fold_config, summarize_folds
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig


def test_folds_share_every_class_evenly_and_leave_some_of_it() -> None:
    labels = np.repeat(np.arange(6), [40, 11, 5, 3, 2, 1])
    for folds in (2, 3, 5):
        dealt = deal_folds(labels, folds, seed=3)
        assert dealt[labels == 5].tolist() == [-1], folds
        assert (dealt[labels < 5] >= 0).all(), folds
        sizes = np.bincount(dealt[dealt >= 0], minlength=folds)
        assert sizes.max() - sizes.min() <= 1, folds
        for k in range(6):
            own = np.bincount(dealt[(labels == k) & (dealt >= 0)], minlength=folds)
            assert own.max() - own.min() <= 1
            assert own.max() < (labels == k).sum()
        assert not np.array_equal(dealt, deal_folds(labels, folds, seed=4))


def test_intervals_are_those_of_scipy() -> None:
    for hits, count in ((0, 3), (2, 3), (7, 7), (50, 80)):
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert wilson_interval(hits, count) == pytest.approx(
            (expected.low, expected.high), abs=1e-6
        )
    for count in range(1, 200):
        assert wilson_interval(count, count)[1] == 1
        assert wilson_interval(0, count)[0] == 0


@pytest.fixture(scope="module")
def few_digits(digits: Source) -> Source:
    """Return 4 to 22 labeled digits of each class, and one of the last."""
    keep = np.concatenate(
        [np.flatnonzero(digits.train.labels == k)[: 1 if k == 9 else 22 - 2 * k] for k in range(10)]
    )
    images, labels = digits.train.images, digits.train.labels
    train = dataclasses.replace(digits.train, images=images[keep], labels=labels[keep])
    return dataclasses.replace(digits, train=train)


def test_every_labeled_image_is_measured_once_by_a_training_without_it(
    few_digits: Source, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config("supervised", split=SplitOptions(), steps=60, evaluate_every=30)
    seen, folders = [], []
    for fold in range(3):
        prepared = prepare(fold_config(config, 3, fold), few_digits)
        split = prepared.data.split
        assert not set(split.labeled) & set(split.holdout)
        assert len(split.labeled) + len(split.holdout) == len(few_digits.train)
        seen += split.holdout.tolist()
        folders.append(tmp_path / str(fold))
        list(train_run(prepared, folders[-1]))
        answer_fold(folders[-1], prepared.data, {})
        rows = (folders[-1] / "metrics.jsonl").read_text().splitlines()
        answers = read_json(folders[-1] / ANSWERS)
        hits = np.array(answers["labels"]) == np.array(answers["answers"])
        assert f'"accuracy": {hits.mean()}' in rows[-1]
    known = np.flatnonzero(few_digits.train.labels != 9)
    assert sorted(seen) == known.tolist()

    counts = np.bincount(few_digits.train.labels, minlength=10)
    result = summarize_folds(folders, few_digits.class_names, counts.tolist())
    assert result["measured"] == [*counts[:9].tolist(), 0]
    assert (result["recall"][9], result["recall_interval"][9]) == (None, None)
    right = sum(result["counts"][k][k] for k in range(10))
    assert result["accuracy"] == pytest.approx(right / len(known))
    recall = [result["counts"][k][k] / counts[k] for k in range(9)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recall))
    low, high = result["recall_interval"][8]
    assert low < recall[8] + 1e-9
    assert high - low > 0.3


def test_folds_are_of_given_labels_only(tiny_config: MakeConfig, few_digits: Source) -> None:
    with pytest.raises(OptionError, match="drawn from a larger set"):
        fold_config(tiny_config(), 5, 0)
    with pytest.raises(
        OptionError, match=r"fold = 5 \(--fold\) must be one of folds = 5, from 0 to 4"
    ):
        fold_config(tiny_config(split=SplitOptions()), 5, 5)
    config = tiny_config(split=SplitOptions(folds=2, fold=0, holdout=20))
    with pytest.raises(OptionError, match=r"labeled_head.* and holdout.* out"):
        prepare(config, few_digits)
