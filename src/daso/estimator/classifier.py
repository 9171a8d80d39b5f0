"""``DASOClassifier``: semi-supervised learning from arrays, as a scikit-learn estimator."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import nn

from daso.balance import balanced_by
from daso.compose import Recipe
from daso.data.formats.arrays import as_images, from_pillow
from daso.errors import DataError, OptionError
from daso.estimator.inputs import Scaling, build_source
from daso.estimator.labels import as_column, read_labels, unlabeled_rows
from daso.estimator.networks import describe, log_probabilities, rebuild
from daso.estimator.training import configure, train, whole_number
from daso.evaluate.metrics import Array, adjust_logits
from daso.files import Row
from daso.train.prepare import prepare
from daso.train.step.state import choose_device

_RANDOM_STATE = threading.RLock()
"""Held by the thread that trains, since torch has one random state for all threads."""
NETWORKS = 3
"""Default number of networks that are trained on features."""


class DASOClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Learn a classifier from few, imbalanced labels and many unlabeled rows.

    ``X`` are images, uint8 or floats from 0 to 1, (N, H, W, C), (N, C, H, W) or (N, H, W), or
    features, floats (N, D), which are standardized. Unlabeled rows are marked in ``y`` by -1 (if at
    least two other classes remain), ``None`` or NaN.

    Args:
        method: a method, then parts to add, as ``daso methods`` lists them. The default fits a
            mixture to labeled and unlabeled features: to the rows themselves, or to patches of
            images and the features of a network that learns from the labels.
        method_options: hyper-parameters of the method by name.
        network: a name (``"mlp-256"``, ``"linear"``, ``"wrn-28-2"`` ...); or, for images, a module
            that maps normalized images, float (B, C, H, W), to features, float (B, dim), and is
            copied; None: chosen by the data.
        n_networks: number of networks that are trained, each with its own seed. Averaging their
            probabilities removes much of the variance of so few labels. None: 3; 1 for images, and
            where nothing is trained.
        steps: training steps; None: 2 for each unlabeled row and 1/2 for each labeled one, or 100
            passes over the labels where the method uses no others; at least 100 and at most 600 or
            a tenth of the rows; for images at least 500 and at most 20,000. The default method
            trains nothing on features: 0 steps.
        batch_size: labeled rows per step; None: 16, for images 32.
        learning_rate: None: the method's.
        labeled_sampling: how labeled rows are drawn: ``"class-balanced"``, ``"uniform"`` or
            ``"effective-number"``; None: class-balanced, but uniform with a mixture.
        logit_adjustment: strength, >= 0, of post-hoc logit adjustment: this factor times the log
            shares of the labeled classes is subtracted from the logits. Use 0 if the rows to
            predict are distributed like the labeled ones. None: 1, or 0 if a part of the method
            balances its classifier (la, abc, crt ...).
        train_options: further options of the training by name, as of ``daso train``: ``ema_decay``
            ...
        view_options: of the views by name: ``strong_noise``, ``strong_mask`` ... for features,
            ``flip``, ``cutout`` ... for images.
        early_stopping: whether to hold out labeled rows, keep the network with the best balanced
            accuracy on them, and stop after *n_iter_no_change* evaluations (of 20; with a mixture
            of 5) without improvement.
        validation_fraction: share of each class's labeled rows that *early_stopping* holds out; a
            class keeps at least one.
        n_iter_no_change: see *early_stopping*.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
        random_state: seed of initial weights, order and views.
        verbose: whether to print the progress.

    Attributes:
        classes_: (K,), sorted.
        class_counts_: int64, (K,), labeled rows of each class.
        n_features_in_: D, or H * W * C.
        feature_names_in_: names of the columns, if ``X`` is a data frame.
        history_: rows of the trainings, dictionaries, one for every 20th part of each (with a
            mixture every fifth), with the number of the ``"network"``; filled during training.
        pseudo_labels_: predicted classes of the unlabeled rows, first those of ``X``, then those of
            ``X_unlabeled``.
        pseudo_label_confidence_: their probabilities, float64.
        networks_: the moving averages of the trained networks, in evaluation mode.
        n_steps_: largest number of steps that a network was trained.
    """

    def __init__(
        self,
        method: str = "supervised+la+mixture",
        *,
        method_options: dict[str, Any] | None = None,
        network: str | nn.Module | None = None,
        n_networks: int | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        labeled_sampling: str | None = None,
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
        """Train on labeled and unlabeled rows.

        If there are no unlabeled rows, the labeled ones are used in their place. If it fails, the
        estimator stays as it was.

        Args:
            X: images or features, (N, ...); or a list of Pillow images of one size.
            y: labels, (N,).
            X_unlabeled: further rows without a label; may be empty.

        Raises:
            ValueError: an array or a label is invalid, there are fewer than two classes, or an
                option is unknown or out of range.
            RunError: the training diverged.
        """
        before = dict(vars(self))
        try:
            self._fit(X, y, X_unlabeled)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
        return self

    def _fit(self, X: Any, y: Any, X_unlabeled: Any) -> None:
        rows = self._read(X, reset=True)
        classes, codes = read_labels(y, type(self).__name__)
        check_consistent_length(rows, codes)
        unlabeled = rows[codes < 0]
        if X_unlabeled is not None and len(X_unlabeled):
            unlabeled = np.concatenate([unlabeled, self._read(X_unlabeled, reset=False)])
        labeled, codes = rows[codes >= 0], codes[codes >= 0]
        vectors = self.image_shape_ is None
        self._scaling = Scaling.of(np.concatenate([labeled, unlabeled])) if vectors else None
        inputs = (self._inputs(labeled), codes, self._inputs(unlabeled), len(classes))
        fraction = self.validation_fraction if self.early_stopping else None
        source = build_source(*inputs, validation_fraction=fraction)
        random = check_random_state(self.random_state)
        self._is_balanced = bool(Recipe.parse(self.method).balanced_by())
        if self.logit_adjustment is not None and not 0 <= self.logit_adjustment < math.inf:
            what = f"logit_adjustment = {self.logit_adjustment!r}"
            raise OptionError(f"{what}: must be at least 0 and finite")
        device = choose_device(self.device)
        sizes = {"labeled": len(labeled), "unlabeled": len(unlabeled)}
        config = configure(self.get_params(deep=False), vectors=vectors, **sizes)
        count = NETWORKS if vectors and config.train.steps else 1
        if self.n_networks is not None:
            count = whole_number("n_networks", self.n_networks)
        self.history_: list[Row] = []
        networks, steps = [], []
        for number in range(count):
            seed = int(random.randint(2**31 - 1))
            config = replace(config, train=replace(config.train, seed=seed))
            devices = [] if device.type == "cpu" else [device]
            kind = "cuda" if device.type == "cpu" else device.type
            with _RANDOM_STATE, torch.random.fork_rng(devices, device_type=kind):
                prepared = train(
                    prepare(config, source, encoder=self._custom_module()),
                    self.history_,
                    number=number,
                    patience=self.n_iter_no_change if self.early_stopping else None,
                    adjusted=self._strength() >= 0.5,
                    verbose=bool(self.verbose),
                )
            networks.append(prepared.training.average.network.eval())
            steps.append(prepared.step)
        self.networks_ = networks
        self.n_steps_ = max(steps)
        self._description = describe(prepared)
        self.classes_ = classes
        self.class_counts_ = np.bincount(codes, minlength=len(classes))
        probs = self._probabilities(unlabeled)
        self.pseudo_labels_ = classes[probs.argmax(1)]
        self.pseudo_label_confidence_ = probs.max(1)

    def decision_function(self, X: Any) -> Array:
        """Return the logits, float64 (N, K); for two classes their difference, (N,)."""
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
        """Return the accuracy on the labeled rows.

        Unlabeled rows are ignored, so that cross-validation and search work on partly labeled data.
        """
        check_is_fitted(self)
        labels = as_column(y)
        check_consistent_length(X, labels)
        labeled = ~unlabeled_rows(labels, self.classes_)
        called = f"{type(self).__name__}.score"
        if not labeled.any():
            raise ValueError(f"{called}: no row has a label")
        texts = isinstance(self.classes_.tolist()[0], str)
        if any(isinstance(label, str) != texts for label in labels[labeled].tolist()):
            kinds = ("texts", "other values") if texts else ("no texts", "texts")
            raise ValueError(f"{called}: the classes are {kinds[0]}, and y holds {kinds[1]}")
        answers = self._logits(self._read(X, reset=False)[labeled]).argmax(1)
        weights = None if sample_weight is None else np.asarray(sample_weight)[labeled]
        return float(np.average(self.classes_[answers] == labels[labeled], weights=weights))

    def _read(self, X: Any, *, reset: bool) -> Array:
        """Return images, uint8 (N, C, H, W), or features, float64 (N, D)."""
        fitted = None if reset else self.image_shape_
        rows = from_pillow(X, "X", None if fitted is None else fitted[0])
        shape = rows.shape if hasattr(rows, "shape") else np.asarray(rows).shape
        if len(shape) in (3, 4):
            images = as_images(rows, "X")
            if reset:
                self.image_shape_: tuple[int, ...] | None = images.shape[1:]
                self.n_features_in_ = math.prod(images.shape[1:])
            elif images.shape[1:] != self.image_shape_:
                features = f"features, (N, {self.n_features_in_})"
                raise DataError(
                    f"X holds images of (channels, height, width) {images.shape[1:]}; "
                    f"{type(self).__name__} was fitted with {self.image_shape_ or features}"
                )
            return images
        if reset:
            self.image_shape_ = None
        elif self.image_shape_ is not None:
            raise DataError(
                f"X has the shape {shape}; {type(self).__name__} was fitted with images of "
                f"(channels, height, width) {self.image_shape_}"
            )
        return np.asarray(validate_data(self, X, reset=reset, dtype=np.float64))

    def _inputs(self, rows: Array) -> Array:
        return rows if self._scaling is None else self._scaling(rows)

    def _custom_module(self) -> nn.Module | None:
        return self.network if isinstance(self.network, nn.Module) else None

    def _strength(self) -> float:
        if self.logit_adjustment is not None:
            return self.logit_adjustment
        return 0.0 if self._is_balanced else 1.0

    def _logits(self, rows: Array) -> Array:
        logits = log_probabilities(self.networks_, self._inputs(rows))
        return adjust_logits(logits, self.class_counts_, self._strength())

    def _probabilities(self, rows: Array) -> Array:
        return np.asarray(softmax(self._logits(rows), axis=1))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state, with arrays for the networks, so that unpickling builds no tensors."""
        state = dict(super().__getstate__())
        if "networks_" in state:
            weights = [network.state_dict() for network in self.networks_]
            state["networks_"] = [
                {name: tensor.cpu().numpy() for name, tensor in each.items()} for each in weights
            ]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, with its networks on the estimator's device or, if missing, the CPU."""
        super().__setstate__(state)
        if "networks_" in state:
            if "_is_balanced" not in state:  # a pickle of daso 0.1.0
                self._is_balanced = bool(balanced_by({"method": self.method}, {}))
            common = (self.n_steps_, self.device, self._custom_module())
            self.networks_ = [
                rebuild(self._description, weights, *common) for weights in state["networks_"]
            ]
