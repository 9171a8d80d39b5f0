"""The estimator: scikit-learn's contract, what unlabeled rows bring, chance, early stopping, pickles."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from estimators import small
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from daso import DASOClassifier
from daso.data.draws import split_holdout


@parametrize_with_checks([DASOClassifier("fixmatch+daso", steps=6, n_networks=1), DASOClassifier()])
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    # Where an accuracy is asked for, the training is longer.
    is_accurate = estimator.steps and check.func.__name__ == "check_classifiers_train"
    check(clone(estimator).set_params(steps=20) if is_accurate else estimator)


def test_unlabeled_rows_help_the_rare_classes(long_tailed: Any) -> None:
    X, y, test, truth = long_tailed
    model = small(steps=250, network="mlp-128").fit(X, y)
    alone = small(method="supervised", steps=250, network="mlp-128").fit(X, y)
    reached, without = (balanced_accuracy_score(truth, m.predict(test)) for m in (model, alone))
    assert reached > 0.8
    assert reached > without
    assert len(model.pseudo_labels_) == (y == -1).sum()
    np.testing.assert_array_equal(model.pseudo_labels_, model.predict(X[y == -1]))
    np.testing.assert_array_equal(
        model.pseudo_label_confidence_, model.predict_proba(X[y == -1]).max(1)
    )
    assert {"loss", "losses"} <= model.history_[0].keys()
    assert model.history_[-1]["step"] == model.n_steps_


def test_the_default_reads_the_unlabeled_rows_and_trains_nothing(long_tailed: Any) -> None:
    X, y, test, truth = long_tailed
    model = DASOClassifier(random_state=0, device="cpu").fit(X, y)
    with_rows, without = (
        clone(model).set_params(method_options={"mixture_weight": weight}).fit(X, y)
        for weight in (0.5, 0.0)
    )
    reached, less = (balanced_accuracy_score(truth, m.predict(test)) for m in (with_rows, without))
    assert reached > max(0.8, less)
    assert (model.n_steps_, len(model.networks_)) == (0, 1)
    np.testing.assert_array_equal(model.pseudo_labels_, model.predict(X[y == -1]))
    clone_of_it = clone(model).fit(X, y)
    np.testing.assert_array_equal(clone_of_it.predict_proba(test), model.predict_proba(test))


def test_the_random_state_decides_and_torchs_own_is_left_alone(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = small().fit(X, y).predict_proba(test)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    np.testing.assert_array_equal(first, small().fit(X, y).predict_proba(test))
    assert not np.array_equal(first, small(random_state=1).fit(X, y).predict_proba(test))


def test_probabilities_are_the_mean_of_several_networks_of_their_own_seeds(
    long_tailed: Any,
) -> None:
    X, y, test, _ = long_tailed
    model = small(n_networks=3, logit_adjustment=0).fit(X, y)
    assert len(model.networks_) == 3
    assert [row["network"] for row in model.history_] == sorted(
        row["network"] for row in model.history_
    )
    assert {row["network"] for row in model.history_} == {0, 1, 2}
    together = model.predict_proba(test)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(test), together)
    each = []
    for network in model.networks_:
        again.networks_ = [network]
        each.append(again.predict_proba(test))
    np.testing.assert_allclose(together, np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_array_equal(each[0], small(logit_adjustment=0).fit(X, y).predict_proba(test))
    assert np.abs(each[0] - each[1]).max() > 0.01
    assert np.abs(each[1] - each[2]).max() > 0.01


def test_search_pipelines_and_parallel_folds_pass_over_rows_without_a_label(
    long_tailed: Any,
) -> None:
    X, y, test, truth = long_tailed
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    with parallel_config("threading"):
        scores = cross_val_score(small(), X, y, cv=folds, n_jobs=2)
    expected = []
    for train, held in folds.split(X, y):
        model = small().fit(X[train], y[train])
        rows = held[y[held] >= 0]
        expected.append(np.mean(model.predict(X[rows]) == y[rows]))
    np.testing.assert_allclose(scores, expected)
    pipeline = make_pipeline(MinMaxScaler(), small(steps=60))
    grid = {"dasoclassifier__method_options": [{"threshold": 0.7}, {"threshold": 0.9}]}
    search = GridSearchCV(pipeline, grid, cv=folds).fit(X, y)
    assert search.best_params_["dasoclassifier__method_options"]["threshold"] in (0.7, 0.9)
    assert balanced_accuracy_score(truth, search.predict(test)) > 0.4


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("supervised", {}),
        ("pseudolabel", {}),
        ("mixmatch", {}),
        ("remixmatch+daso", {}),
        ("fixmatch+abc+daso", {}),
        ("fixmatch+la+crt", {}),
        ("fixmatch+crest", {}),
    ],
)
def test_every_kind_of_method(method: str, options: dict[str, Any], long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    model = small(method=method, method_options=options, steps=40).fit(X, y)
    assert model.predict_proba(test).shape == (len(test), 10)
    assert pickle.loads(pickle.dumps(model)).predict(test).tolist() == model.predict(test).tolist()
    steps = [row["step"] for row in model.history_ if row["event"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == model.n_steps_


def test_logit_adjustment_takes_the_logs_of_the_shares_from_the_logits(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    plain = small(logit_adjustment=0).fit(X, y).decision_function(test)
    counts = np.bincount(y[y >= 0])
    for strength, option in ((0.5, 0.5), (1.0, None)):
        adjusted = small(logit_adjustment=option).fit(X, y).decision_function(test)
        np.testing.assert_allclose(
            plain - adjusted, np.tile(strength * np.log(counts / counts.sum()), (len(test), 1))
        )
    balanced = small(method="fixmatch+la").fit(X, y)
    unadjusted = small(method="fixmatch+la", logit_adjustment=0).fit(X, y)
    np.testing.assert_array_equal(
        balanced.decision_function(test), unadjusted.decision_function(test)
    )


def test_early_stopping_keeps_the_network_that_was_best_on_the_rows_set_aside(
    long_tailed: Any,
) -> None:
    X, y, _, _ = long_tailed
    known = y >= 0
    model = small(steps=100, early_stopping=True, n_iter_no_change=2).fit(X, y)
    taken = np.minimum(np.rint(0.2 * model.class_counts_).astype(int), model.class_counts_ - 1)
    _, held = split_holdout(y[known], taken, 0)
    reached = [
        r["holdout"]["logit_adjusted"]["balanced_accuracy"]
        for r in model.history_
        if "holdout" in r
    ]
    network_alone = clone(model).set_params(logit_adjustment=0)
    network_alone.__setstate__({**model.__getstate__(), "logit_adjustment": 0})
    trained = model.class_counts_ - taken
    logits = network_alone.decision_function(X[known][held]) - np.log(trained / trained.sum())
    answers = logits.argmax(1)
    with np.errstate(invalid="ignore"):
        recalls = [np.mean(answers[y[known][held] == k] == k) for k in np.flatnonzero(taken)]
    assert max(reached) == pytest.approx(np.mean(recalls))
    assert model.n_steps_ < 100 or len(reached) - 1 - int(np.argmax(reached)) < 2


def test_a_pickle_holds_arrays_and_no_code_of_torch(long_tailed: Any, tmp_path: Any) -> None:
    X, y, test, _ = long_tailed
    model = small().fit(X, y)
    data = pickle.dumps(model, protocol=0)
    modules = {
        str(argument).split()[0].split(".")[0]
        for code, argument, _ in pickletools.genops(data)
        if code.name in ("GLOBAL", "INST")
    }
    assert modules <= {"daso", "numpy", "copyreg", "copy_reg", "builtins", "__builtin__", "_codecs"}
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (
        pickle.loads(data),
        joblib.load(tmp_path / "model.joblib"),
        pickle.load(io.BytesIO(data)),
    ):
        np.testing.assert_array_equal(again.predict_proba(test), model.predict_proba(test))
    with pytest.raises(Exception, match="not fitted"):
        clone(model).predict(test)


def test_a_pickle_of_daso_0_1_0_knows_whether_its_method_is_balanced(long_tailed: Any) -> None:
    X, y, test, _ = long_tailed
    for method in ("supervised", "supervised+la"):
        model = small(method=method, steps=5).fit(X, y)
        state = model.__getstate__()
        del state["_is_balanced"]
        old = clone(model)
        old.__setstate__(state)
        np.testing.assert_array_equal(old.decision_function(test), model.decision_function(test))


def test_verbose_prints_as_it_goes(long_tailed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    X, y, _, _ = long_tailed
    small().fit(X, y)
    assert not capsys.readouterr().out
    small(verbose=1, early_stopping=True, n_iter_no_change=30).fit(X, y)
    out = capsys.readouterr().out
    assert "step 30, loss" in out
    assert "hold-out balanced accuracy" in out


def test_trainings_in_threads_do_not_share_their_random_state(long_tailed: Any) -> None:
    X, y = long_tailed[0][:300], long_tailed[1][:300]
    model = small()
    alone = clone(model).fit(X, y).predict_proba(X)
    threads = Parallel(n_jobs=3, backend="threading")
    for fitted in threads(delayed(clone(model).fit)(X, y) for _ in range(3)):
        assert np.array_equal(fitted.predict_proba(X), alone)


def test_a_readout_classifies_is_pickled_and_stops_early(long_tailed: Any) -> None:
    X, y, test, truth = long_tailed
    model = small(method="supervised+la+mixture", early_stopping=True, n_iter_no_change=2).fit(X, y)
    assert [row["step"] for row in model.history_ if row["event"] == "evaluate"][:2] == [0, 6]
    assert model.networks_[0].output == "readout"
    probs = model.predict_proba(test)
    assert probs.dtype == np.float64
    assert balanced_accuracy_score(truth, model.predict(test)) > 0.7
    # An answer does not depend on the other rows.
    np.testing.assert_allclose(model.predict_proba(test[:1]), probs[:1], rtol=1e-12)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(test), probs)
    # The network with the best hold-out is kept.
    held_out = [row["holdout"] for row in model.history_ if row["event"] == "evaluate"]
    assert model.n_steps_ <= 30
    assert len(held_out) >= 3

    order = np.random.default_rng(0).permutation(len(test))
    images, truth = test[order].reshape(-1, 8, 8) / 16, truth[order]
    few = small(method="supervised+mixture", network="small-4", steps=2)
    few.fit(images[:60], truth[:60], images[60:120])
    again = pickle.loads(pickle.dumps(few))
    np.testing.assert_array_equal(again.predict(images[:30]), few.predict(images[:30]))
    assert balanced_accuracy_score(truth[120:], few.predict(images[120:])) > 0.6
