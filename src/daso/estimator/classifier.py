"""``DASOClassifier``: semi-supervised training of arrays of images or features, in scikit-learn's contract."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)
from torch import nn

from daso.balance import balancing_parts
from daso.data.formats.arrays import as_images
from daso.errors import DataError, OptionError
from daso.estimator.defaults import configure, number_of_networks
from daso.estimator.inputs import Scaling, build_source
from daso.estimator.labels import read_labels, unlabeled_rows
from daso.estimator.networks import describe, log_probabilities, rebuild, to_arrays
from daso.estimator.training import EarlyStopping, train
from daso.evaluate.metrics import adjust_logits
from daso.train.prepare import prepare
from daso.train.step.state import choose_device

Array = npt.NDArray[Any]
_RANDOM_STATE = threading.RLock()
"""Held by the thread that trains: torch has one random state for all of them."""


class DASOClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learns a classifier from few, imbalanced labels and many unlabelled rows.

    ``X`` are images, uint8 or floats from 0 to 1, (N, H, W, C), (N, C, H, W) or (N, H, W), or features, floats (N, D),
    which are standardised inside. In ``y`` the rows without a label are -1 (if at least two other classes remain),
    ``None`` or NaN.

    Args:
        method: a method, then parts to add, as ``daso methods`` lists them.
        method_options: hyper-parameters of the method by name.
        network: a name (``"mlp-256"``, ``"linear"``, ``"wrn-28-2"`` ...); or, for images, a module that
            maps normalised ones, float (B, C, H, W), to features, float (B, dim), and is copied; None: by the data.
        n_networks: how many are trained, each from a seed of its own; their probabilities are averaged, which takes
            much of the chance out of so few labels. None: 3; of images 1.
        steps: of the training; None: 2 for each unlabelled row and 1/2 for each labelled one, at least 100 and at most
            600 or a tenth of the rows; of images at least 500 and at most 20,000.
        batch_size: labelled rows of a step; None: 16, of images 32.
        learning_rate: None: the method's.
        labeled_sampling: how labelled rows are drawn: ``"class-balanced"``, ``"uniform"`` or ``"effective-number"``.
        logit_adjustment: strength, >= 0, of post-hoc logit adjustment: the logs of the shares of the labelled classes,
            times this, are taken from the logits. Take 0 where rows to predict are distributed like the labelled ones.
            None: 1, or 0 where a part of the method balances its classifier (la, abc, crt ...).
        train_options: further options of the training by name, as of ``daso train``: ``ema_decay`` ...
        view_options: of the views by name: ``strong_noise``, ``strong_mask`` ... for features, ``flip``, ``cutout`` ...
            for images.
        early_stopping: set labelled rows aside, keep the network that has the best balanced accuracy on them, and end
            the training when *n_iter_no_change* evaluations (there are 20 in a training) brought nothing better.
        validation_fraction: of the labelled rows of each class, for *early_stopping*; a class keeps at least one.
        n_iter_no_change: see *early_stopping*.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
        random_state: seed of everything: initial weights, order, views.
        verbose: whether to print rows of the training.

    Attributes:
        classes_: (K,), sorted.
        class_counts_: int64, (K,), labelled rows of each.
        n_features_in_: D, or H * W * C.
        feature_names_in_: of the columns, where ``X`` is a data frame.
        history_: rows of the trainings, dictionaries, one for every 20th part of each, with the number of the
            ``"network"``; filled while it goes on.
        pseudo_labels_: classes that the fitted classifier gives the unlabelled rows, in their order: those of ``X``,
            then ``X_unlabeled``; empty if there are none.
        pseudo_label_confidence_: their probabilities, float64.
        networks_: the moving averages of the trained networks, in evaluation mode.
        n_steps_: steps that the network was trained which was trained longest.
    """

    def __init__(
        self,
        method: str = "fixmatch+daso",
        *,
        method_options: dict[str, Any] | None = None,
        network: str | nn.Module | None = None,
        n_networks: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        labeled_sampling: str = "class-balanced",
        logit_adjustment: float | None = None,
        train_options: dict[str, Any] | None = None,
        view_options: dict[str, Any] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.2,
        n_iter_no_change: int = 5,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = 0,
    ) -> None:
        self.method = method
        self.method_options = method_options
        self.network = network
        self.n_networks = n_networks
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.labeled_sampling = labeled_sampling
        self.logit_adjustment = logit_adjustment
        self.train_options = train_options
        self.view_options = view_options
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, X_unlabeled: Any = None) -> DASOClassifier:
        """Train on labelled and unlabelled rows.

        Without any unlabelled row, methods that need some take the labelled ones for unlabelled ones too.

        Args:
            X: images or features, (N, ...).
            y: labels, (N,).
            X_unlabeled: further rows without a label; there may be none in it.

        Raises:
            ValueError: an array or a label is none of these, there are fewer than two classes, or an option is unknown
                or out of range.
            RunError: the training diverged.
        """
        rows = self._read(X, reset=True)
        classes, codes = read_labels(y, type(self).__name__)
        check_consistent_length(rows, codes)
        unlabeled = rows[codes < 0]
        if X_unlabeled is not None and len(X_unlabeled):
            unlabeled = np.concatenate([unlabeled, self._read(X_unlabeled, reset=False)])
        labeled, codes = rows[codes >= 0], codes[codes >= 0]
        vectors = self.image_shape_ is None
        self._scaling = Scaling.of(np.concatenate([labeled, unlabeled])) if vectors else None
        source = build_source(
            self._inputs(labeled),
            codes,
            self._inputs(unlabeled),
            len(classes),
            validation_fraction=self.validation_fraction if self.early_stopping else None,
        )
        random = check_random_state(self.random_state)
        if self.logit_adjustment is not None and not 0 <= self.logit_adjustment < math.inf:
            raise OptionError(f"logit_adjustment = {self.logit_adjustment!r} must be at least 0")
        stopping = EarlyStopping(self.n_iter_no_change, adjusted=self._strength() >= 0.5)
        device = choose_device(self.device)
        self.history_: list[dict[str, Any]] = []
        trained = []
        for number in range(number_of_networks(self.n_networks, vectors=vectors)):
            config = configure(
                self.get_params(deep=False),
                seed=int(random.randint(2**31 - 1)),
                vectors=vectors,
                labeled=len(labeled),
                unlabeled=len(unlabeled),
            )
            devices = [] if device.type == "cpu" else [device]
            with _RANDOM_STATE, torch.random.fork_rng(devices, device_type=_random_of(device)):
                prepared = train(
                    prepare(config, source, encoder=self._own_module()),
                    self.history_,
                    number=number,
                    early=stopping if self.early_stopping else None,
                    verbose=bool(self.verbose),
                )
            trained.append(
                (prepared.training.average.network.eval(), prepared.step, describe(prepared))
            )
        self.networks_ = [network for network, _, _ in trained]
        self.n_steps_ = max(steps for _, steps, _ in trained)
        self._description = trained[0][2]
        self.classes_ = classes
        self.class_counts_ = np.bincount(codes, minlength=len(classes))
        probs = self._probabilities(unlabeled)
        self.pseudo_labels_ = classes[probs.argmax(1)]
        self.pseudo_label_confidence_ = probs.max(1)
        return self

    def decision_function(self, X: Any) -> Array:
        """Return the logits, float64 (N, K); with two classes (N,), that of the second above that of the first."""
        check_is_fitted(self)
        logits = self._logits(self._read(X, reset=False))
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, float64 (N, K)."""
        check_is_fitted(self)
        return self._probabilities(self._read(X, reset=False))

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row, (N,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self._logits(self._read(X, reset=False)).argmax(1)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on the rows that have a label; rows without one are passed over.

        So cross-validation and search work on data of which a part has no labels.
        """
        check_is_fitted(self)
        labels = column_or_1d(y)
        known = ~unlabeled_rows(labels, self.classes_)
        if not known.any():
            raise ValueError(f"{type(self).__name__}.score: no row has a label")
        rows = X[known] if isinstance(X, np.ndarray) else self._read(X, reset=False)[known]
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        hits = self.predict(rows) == labels[known]
        return float(np.average(hits, weights=weight))

    def _read(self, X: Any, *, reset: bool) -> Array:
        """Return images, uint8 (N, C, H, W), or features, float64 (N, D)."""
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        if len(shape) in (3, 4):
            images = as_images(X, "X")
            if reset:
                self.image_shape_: tuple[int, ...] | None = images.shape[1:]
                self.n_features_in_ = math.prod(images.shape[1:])
            elif images.shape[1:] != self.image_shape_:
                fitted = (
                    f"features, (N, {self.n_features_in_})"
                    if self.image_shape_ is None
                    else self.image_shape_
                )
                raise DataError(
                    f"X holds images of (channels, height, width) {images.shape[1:]}; {type(self).__name__} was fitted "
                    f"with {fitted}"
                )
            return images
        if reset:
            self.image_shape_ = None
        elif self.image_shape_ is not None:
            raise DataError(
                f"X is {shape}; {type(self).__name__} was fitted with images, {self.image_shape_} each"
            )
        return np.asarray(validate_data(self, X, reset=reset, dtype=np.float64))

    def _inputs(self, rows: Array) -> Array:
        """Return what a network is given: images as they are, features standardised, float64."""
        return rows if self._scaling is None else self._scaling(rows)

    def _own_module(self) -> nn.Module | None:
        return self.network if isinstance(self.network, nn.Module) else None

    def _strength(self) -> float:
        """Return the strength of logit adjustment that is in force."""
        if self.logit_adjustment is not None:
            return self.logit_adjustment
        return 0.0 if balancing_parts(self.method) else 1.0

    def _logits(self, rows: Array) -> Array:
        """Return the logits, adjusted, float64 (N, K)."""
        logits = log_probabilities(self.networks_, self._inputs(rows))
        return adjust_logits(logits, self.class_counts_, self._strength())

    def _probabilities(self, rows: Array) -> Array:
        logits = self._logits(rows)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state; of the networks arrays, so that opening it builds no tensor of the file's choice."""
        state = dict(super().__getstate__())
        if "networks_" in state:
            state["networks_"] = [to_arrays(network) for network in self.networks_]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state and build its networks, on the estimator's device or, where there is none such, the CPU."""
        super().__setstate__(state)
        if "networks_" in state:
            self.networks_ = [
                rebuild(self._description, weights, self.n_steps_, self.device, self._own_module())
                for weights in state["networks_"]
            ]


def _random_of(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type
