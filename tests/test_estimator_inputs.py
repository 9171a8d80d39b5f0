"""What the estimator takes: labels that are missing, names of classes, images, and what it refuses."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from estimators import small
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from daso import DASOClassifier
from daso.errors import DataError, OptionError
from daso.estimator.labels import read_labels, unlabeled_rows


@pytest.mark.filterwarnings("ignore:it. ")
def test_which_labels_are_missing() -> None:
    for labels, classes, codes in (
        ([2, 0, -1, 2], [0, 2], [1, 0, -1, 1]),
        ([-1, 1, 1, -1], [-1, 1], [0, 1, 1, 0]),
        ([-1, 0, 1, 1], [0, 1], [-1, 0, 1, 1]),
        ([-1.0, 0.0, 1.0, 3.0], [0, 1, 3], [-1, 0, 1, 2]),
        ([np.nan, -1.0, 1.0, 1.0], [-1, 1], [-1, 0, 1, 1]),
        (["b", None, "a", np.nan], ["a", "b"], [1, -1, 0, -1]),
        (["-1", "a", "b", "b"], ["a", "b"], [-1, 0, 1, 1]),
        (["nan", "a", "b", "None"], ["a", "b"], [-1, 0, 1, -1]),
        (["-1", "1", "1", "-1"], ["-1", "1"], [0, 1, 1, 0]),
        (["-1", "0", "1", "1"], ["0", "1"], [-1, 0, 1, 1]),
        (["-1", None, -1, "a", "b"], ["a", "b"], [-1, -1, -1, 0, 1]),
        (["", " ", "null", "<NA>", "a", "b"], ["a", "b"], [-1, -1, -1, -1, 0, 1]),
        ([5, None, -1, 7], [5, 7], [0, -1, -1, 1]),
        (["1", "2", "nan", "-1"], ["1", "2"], [0, 1, -1, -1]),
        ([True, False, False, True], [False, True], [1, 0, 0, 1]),
    ):
        kind = object if any(value is None for value in labels) else None
        y = np.array(labels, dtype=kind)
        found, indices = read_labels(y, "it")
        assert (found.tolist(), indices.tolist()) == (classes, codes), labels
        assert unlabeled_rows(y, found).tolist() == [code < 0 for code in codes], labels


def test_gaps_in_columns_of_pandas_are_missing_and_types_stay(long_tailed: Any) -> None:
    pandas = pytest.importorskip("pandas")
    for column, classes in (
        (pandas.Series([1, 2, None, 2], dtype="Int64"), [1, 2]),
        (pandas.Series([True, False, None, False], dtype="boolean"), [False, True]),
        (pandas.Series(["a", "b", None, "b"], dtype="string"), ["a", "b"]),
        (pandas.Series(pandas.Categorical(["a", "b", None, "b"])), ["a", "b"]),
        (pandas.Categorical([1, 2, None, 2]), [1, 2]),
    ):
        found, indices = read_labels(column, "it")
        assert repr(found.tolist()) == repr(classes)
        assert np.flatnonzero(indices < 0).tolist() == [2]
    dates = pandas.to_datetime(pandas.Series(["2020-01-01", "2021-01-01", None, "2021-01-01"]))
    assert read_labels(dates, "it")[1].tolist() == [0, 1, -1, 1]
    X, y, test, truth = long_tailed
    model = small(steps=5).fit(X, y)
    column = pandas.Series(truth, dtype="Int64")
    column[truth == 2] = None
    expected = np.mean(model.predict(test[truth != 2]) == truth[truth != 2])
    assert model.score(test, column) == expected


def test_masked_labels_are_missing(long_tailed: Any) -> None:
    masked = np.ma.masked_array([0, 1, 2], [0, 0, 1])
    assert read_labels(masked, "it")[1].tolist() == [0, 1, -1]
    X, y, test, truth = long_tailed
    model = small(steps=5).fit(X, y)
    hidden = np.ma.masked_array(truth, truth == 2)
    expected = np.mean(model.predict(test[truth != 2]) == truth[truth != 2])
    assert model.score(test, hidden) == expected


def test_labels_that_are_no_classes_are_refused() -> None:
    for labels, message in (
        (None, "requires y to be passed"),
        ([None] * 4, "all 4 labels are missing"),
        ([-1] * 4, "all 4 labels are missing"),
        ([-1.0] * 4, "all 4 labels are missing"),
        (["a", None, "a", "a"], "one class: 'a'"),
        ([3, 3, 3, 3], "at least two classes"),
        (["a", 1, "a", 1], "several types"),
        ([0, "b", 2, None], "several types"),
        ([b"a", b"b"], "decode"),
        ([0.5, 1.5, 0.1, 0.2], "Unknown label type"),
    ):
        y: Any = labels
        if labels is not None:
            is_object = any(isinstance(label, str | None) for label in labels)
            y = np.array(labels, dtype=object if is_object else None)
        with pytest.raises(ValueError, match=message):
            read_labels(y, "it")
    # -1 and one other are two classes.
    assert read_labels(np.array([-1, 2, 2, 2]), "it")[0].tolist() == [-1, 2]


def test_doubtful_labels_are_warned_of_as_in_files() -> None:
    for extra, told in (
        ("nan", "read as missing: 'nan'"),
        ("NA", "'NA' reads like a missing label"),
        ("A", "'A' and 'a' differ only in case"),
    ):
        with pytest.warns(UserWarning, match=told):
            read_labels(np.array(["a", "b", extra, "a"], dtype=object), "it")
    for missing in (None, float("nan"), -1, "-1", ""):  # which say nothing else
        read_labels(np.array(["a", "b", missing, "a"], dtype=object), "it")


def test_unlabeled_rows_may_come_apart(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    together = small().fit(X, y)
    apart = small().fit(X[y >= 0], y[y >= 0], X_unlabeled=X[y < 0])
    np.testing.assert_array_equal(together.predict_proba(test), apart.predict_proba(test))
    np.testing.assert_array_equal(together.pseudo_labels_, apart.pseudo_labels_)


def test_names_of_classes_come_back(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    names = np.array([f"digit {k}" for k in range(10)], dtype=object)
    named = np.where(y < 0, None, names[y])
    model, numbered = small().fit(X, named), small().fit(X, y)
    assert model.classes_.tolist() == names.tolist()
    assert model.class_counts_.tolist() == np.bincount(y[y >= 0]).tolist()
    np.testing.assert_array_equal(model.predict(test), names[numbered.predict(test)])
    assert model.score(X, named) == np.mean(model.predict(X[y >= 0]) == named[y >= 0])


def test_nothing_depends_on_scale_or_offset_of_a_feature(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    scale, offset = np.logspace(-8, 8, 64), np.logspace(-3, 3, 64)
    supervised = small(method="supervised", steps=10)
    plain = supervised.fit(X, y).predict_proba(test)
    moved = supervised.fit(X * scale + scale * offset, y).predict_proba(
        test * scale + scale * offset
    )
    np.testing.assert_allclose(plain, moved, atol=1e-3)


def test_features_may_be_very_large_or_very_small(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    supervised = small(method="supervised", steps=10)
    plain = supervised.fit(X, y).predict_proba(test)
    for factor in (1e-200, 1e200):
        scaled = supervised.fit(X * factor, y).predict_proba(test * factor)
        np.testing.assert_allclose(plain, scaled, atol=1e-6)


def test_images_that_may_not_be_written_raise_no_warning() -> None:
    X, y = images()
    X.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(network="small-4", steps=3, batch_size=8).fit(X, y).predict(X)


class Rows(nn.Module):
    """Features of an image: a linear map of its rows' means."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x.mean((1, 3))))


def images(count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    X, y = load_digits(return_X_y=True)
    y = np.where(np.arange(len(y)) % 2, y, -1)
    return np.rint(X[:count].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), y[:count]


@pytest.mark.parametrize("network", ["small-4", Rows()], ids=["named", "own"])
def test_images(network: Any) -> None:
    X, y = images()
    model = small(network=network, view_options={"flip": False}, steps=10, batch_size=8).fit(X, y)
    assert model.n_features_in_ == 64
    probs = model.predict_proba(X)
    np.testing.assert_allclose(probs.sum(1), 1)
    for same in (X / 255.0, X.transpose(0, 3, 1, 2), X[..., 0]):
        np.testing.assert_array_equal(model.predict_proba(same), probs)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), probs)
    assert model.score(X, y) == np.mean(model.predict(X[y >= 0]) == y[y >= 0])
    with pytest.raises(DataError, match="was fitted with"):
        model.predict(X[:, :6])
    with pytest.raises(DataError, match="was fitted with images"):
        model.predict(X.reshape(len(X), -1))


def test_pillow_images_are_decoded_as_files_are() -> None:
    X, y = images()
    gray = [Image.fromarray(image[..., 0]) for image in X]
    turned = [image.transpose(Image.Transpose.ROTATE_90) for image in gray]
    for image in turned:
        image.getexif()[0x0112] = 6
    model = small(network="small-4", view_options={"flip": False}, steps=1, batch_size=8)
    expected = model.fit(X, y).predict_proba(X)
    palette = [image.convert("P", colors=256) for image in gray]
    for same in (gray, palette, [image.convert("RGBA") for image in gray], turned):
        np.testing.assert_array_equal(model.predict_proba(same), expected)
    assert model.fit([*gray[:-1], gray[-1].convert("RGB")], y).image_shape_ == (3, 8, 8)
    with pytest.raises(DataError, match="image 1 is 8 x 6 pixels, image 0 8 x 8"):
        model.fit([gray[0], gray[1].crop((0, 0, 8, 6))], y[:2])
    for names in (["0.png", "1.png"], [Path("0.png")], np.array(["0.png"])):
        with pytest.raises(DataError, match=r"names of files, such as '0\.png'"):
            model.predict(names)


def test_a_score_of_texts_and_numbers_is_refused(long_tailed: Any) -> None:
    X, y, test, truth = long_tailed
    model = small(steps=5).fit(X, y)
    with pytest.raises(ValueError, match="no texts, and y holds texts"):
        model.score(test, truth.astype(str))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(test, truth[1:])
    with pytest.raises(ValueError, match="are texts, and y holds other values"):
        model.fit(X, np.where(y < 0, "-1", np.char.add("class ", y.astype(str)))).score(test, truth)


def test_a_module_of_ones_own_is_copied() -> None:
    X, y = images()
    own = Rows()
    before = own.linear.weight.detach().clone()
    model = small(network=own, steps=10, batch_size=8).fit(X, y)
    assert torch.equal(own.linear.weight, before)
    learned = next(iter(model.networks_[0].encoder.parameters()))
    assert not torch.equal(learned, before)


def test_features_where_images_were(long_tailed: Any) -> None:
    X, y, _, _ = long_tailed
    with pytest.raises(DataError, match=r"features, \(N, 64\)"):
        small().fit(X, y).predict(images()[0])


def test_options_that_do_not_fit_are_refused(long_tailed: Any) -> None:
    X, y, _, _ = long_tailed
    for options, message in (
        ({"method": "fixmatch+dasso"}, "Did you mean 'daso'"),
        ({"method_options": {"treshold": 0.9}}, "no option 'treshold'"),
        ({"network": "mpl-256"}, "Did you mean"),
        ({"steps": 0}, "steps = 0"),
        ({"n_networks": 0}, "n_networks = 0"),
        (
            {"train_options": {"wieght_decay": 0}},
            "train_options: .*'wieght_decay'. Did you mean 'weight_decay'",
        ),
        ({"train_options": {"weight_decay": "a"}}, "train_options: .*type"),
        ({"view_options": {"cutout": 3}}, "view_options: .*'cutout'"),
        ({"view_options": {"strong_nose": 0.3}}, "Did you mean 'strong_noise'"),
        ({"logit_adjustment": -1}, "logit_adjustment"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "validation_fraction"),
        ({"labeled_sampling": "evenly"}, "labeled_sampling"),
    ):
        with pytest.raises(OptionError, match=message):
            small(**options).fit(X, y)


def test_there_may_be_no_unlabeled_rows_in_the_array_of_them(long_tailed: Any) -> None:
    X, y = long_tailed[0], long_tailed[1]
    model = small(steps=5).fit(X[y >= 0], y[y >= 0], X_unlabeled=X[:0])
    assert len(model.pseudo_labels_) == 0


def test_a_score_of_a_data_frame_warns_of_nothing(long_tailed: Any) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    frame = pandas.DataFrame(X, columns=list("abcd"))
    model = DASOClassifier(steps=3, n_networks=1).fit(frame, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.score(frame, np.where(y == 2, -1, y)) == np.mean(
            model.predict(frame)[y < 2] == y[y < 2]
        )


def test_a_batch_of_one_names_the_option() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    with pytest.raises(OptionError, match=r"batch_size.*batch norms.*2 images"):
        DASOClassifier("supervised", steps=3, n_networks=1, batch_size=1).fit(X, y)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(long_tailed: Any) -> None:
    X, y, *_ = long_tailed
    images = np.zeros((len(X), 8, 8), dtype=np.uint8)
    failing: list[tuple[Any, Any, dict[str, Any]]] = [
        (X[:, :2] * np.nan, y, {}),
        (X[:, :2], y[:-1], {}),
        (X[:, :2], np.zeros(len(X)), {}),
        (X[:, :2], y, {"method_options": {"dimensions": 1}}),
        (X[:, :2], y, {"logit_adjustment": -1}),
        (images, y, {"steps": -1}),
    ]
    new = DASOClassifier()
    fitted = DASOClassifier(random_state=0).fit(X, y)
    answers, state = fitted.predict_proba(X), dict(vars(fitted))
    for rows, labels, options in failing:
        for estimator in (new, fitted):
            estimator.set_params(**options)
            with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
                estimator.fit(rows, labels)
            estimator.set_params(**dict.fromkeys(options))
        assert not [name for name in vars(new) if name.endswith("_")]
        assert vars(fitted) == state
        np.testing.assert_array_equal(fitted.predict_proba(X), answers)
