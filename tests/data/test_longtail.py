"""Long-tailed splits: the authors' index sets, counts, disjointness, errors, fingerprints."""

import json
from pathlib import Path

import numpy as np
import pytest

from daso.data.draws import Split, longtail_split
from daso.data.longtail import SplitOptions, longtail_counts, unlabeled_counts
from daso.errors import DataError, OptionError

REFERENCE = Path(__file__).parent.parent / "reference"
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 200)).astype(np.int64)


def test_the_authors_seed_gives_the_authors_split() -> None:
    vectors = np.load(REFERENCE / "splits.npz")
    config = json.loads(str(vectors["config"]))
    for seed in (0, 3):
        shape = "reversed" if seed == 3 else "consistent"
        split = longtail_split(
            vectors["labels"],
            longtail_counts(config["labeled_head"], config["gamma_l"], 10),
            unlabeled_counts(shape, config["unlabeled_head"], config["gamma_u"], 10),
            holdout=config["num_valid"],
            seed=seed,
        )
        assert np.array_equal(split.labeled, vectors[f"s{seed}_labeled"])
        assert np.array_equal(split.unlabeled, vectors[f"s{seed}_unlabeled"])
        assert np.array_equal(split.holdout, vectors[f"s{seed}_valid"])


def test_counts_are_the_published_ones() -> None:
    for key, counts in json.loads((REFERENCE / "longtail_counts.json").read_text()).items():
        classes, head, gamma = map(int, key.split("_"))
        assert longtail_counts(head, gamma, classes).tolist() == counts


def test_totals_are_the_published_ones() -> None:
    for head, gamma, classes, total, tail in (
        (500, 100, 10, 1236, 5),
        (1500, 150, 10, 3496, 10),
        (50, 20, 100, 1545, 2),
        (450, 20, 10, 1528, 22),
    ):
        counts = longtail_counts(head, gamma, classes)
        assert (counts.sum(), counts[-1]) == (total, tail)


def test_shapes_of_the_unlabeled_distribution() -> None:
    consistent = unlabeled_counts("consistent", 100, 10, 5)
    assert consistent.tolist() == longtail_counts(100, 10, 5).tolist()
    assert unlabeled_counts("reversed", 100, 10, 5).tolist() == consistent[::-1].tolist()
    assert unlabeled_counts("uniform", 100, 10, 5).tolist() == [100] * 5
    # Ranks from the most frequent on, as SimPro's authors order them.
    for shape, ranks in (("middle", [4, 2, 0, 1, 3]), ("head-tail", [1, 3, 4, 2, 0])):
        assert unlabeled_counts(shape, 100, 10, 5).tolist() == consistent[ranks].tolist()
        assert SplitOptions(unlabeled_head=100, unlabeled_shape=shape).mismatched
    with pytest.raises(OptionError, match="consistent, uniform"):
        SplitOptions(unlabeled_shape="sideways")  # type: ignore[arg-type]


def test_parts_are_disjoint_and_have_their_counts() -> None:
    labeled = longtail_counts(60, 20, 5)
    for counts in ([90, 60, 30, 10, 5], [5, 10, 30, 60, 90], [40] * 5, [0, 80, 3, 80, 0]):
        split = longtail_split(LABELS, labeled, np.array(counts), holdout=100, seed=7)
        assert np.bincount(LABELS[split.labeled], minlength=5).tolist() == labeled.tolist(), counts
        assert np.bincount(LABELS[split.unlabeled], minlength=5).tolist() == counts
        assert np.bincount(LABELS[split.holdout], minlength=5).tolist() == [20] * 5, counts
        together = np.concatenate([split.labeled, split.unlabeled, split.holdout])
        assert len(np.unique(together)) == len(together), counts


def test_the_labeled_part_does_not_depend_on_the_unlabeled_shape() -> None:
    labeled = longtail_counts(60, 20, 5)
    splits = [
        longtail_split(LABELS, labeled, unlabeled_counts(shape, 90, 20, 5), seed=1)
        for shape in ("consistent", "uniform", "reversed")
    ]
    assert all(np.array_equal(split.labeled, splits[0].labeled) for split in splits)


def test_a_fingerprint_changes_with_an_index_or_a_label_but_not_with_the_order() -> None:
    split = longtail_split(LABELS, longtail_counts(60, 20, 5), None, seed=0)
    other = longtail_split(LABELS, longtail_counts(60, 20, 5), None, seed=1)
    shuffled = Split(split.labeled[::-1].copy(), split.unlabeled, split.holdout)
    relabeled = LABELS.copy()
    relabeled[split.labeled[0]] = (relabeled[split.labeled[0]] + 1) % 5
    fingerprint = split.fingerprint(LABELS)
    assert len(fingerprint) == 16
    assert shuffled.fingerprint(LABELS) == fingerprint
    assert other.fingerprint(LABELS) != fingerprint
    assert split.fingerprint(relabeled) != fingerprint


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(DataError, match="class 0 has 200 images"):
        longtail_split(LABELS, longtail_counts(150, 10, 5), longtail_counts(100, 10, 5), seed=0)
    names = [f"c{k}" for k in range(5)]
    with pytest.raises(DataError, match="class 'c0' has 200 images"):
        longtail_split(LABELS, longtail_counts(300, 10, 5), None, class_names=names)
    with pytest.raises(DataError, match="hold-out of 200 per class leaves none"):
        longtail_split(LABELS, longtail_counts(10, 2, 5), None, holdout=1000)
    with pytest.raises(OptionError, match="leaves class 2 empty"):
        longtail_counts(3, 10, 5)
    for gamma in (0.5, float("nan")):
        with pytest.raises(OptionError, match=f"gamma_labeled = {gamma} .* at least 1"):
            SplitOptions(gamma_labeled=gamma)
