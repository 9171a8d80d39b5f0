"""``DASOClassifier``: semi-supervised training of arrays of images or features, in scikit-learn's contract."""

from __future__ import annotations

import copy
import math
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from daso.compose import Recipe
from daso.data.arrays import as_images
from daso.data.longtail import SplitOptions, split_holdout
from daso.data.source import UNLABELED, Images, Source
from daso.errors import DataError, OptionError
from daso.estimator.labels import read_labels, unlabeled_rows
from daso.evaluate.metrics import adjust_logits
from daso.evaluate.predict import predict_logits
from daso.evaluate.prior import balancing_parts
from daso.nets.network import Network
from daso.train.augmentation import VectorViewOptions, ViewOptions
from daso.train.config import RunConfig
from daso.train.fit import fit
from daso.train.model import rebuild_model
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, describe_data, prepare
from daso.train.training import choose_device

Array = npt.NDArray[Any]

VECTOR_OPTIONS = {"threshold": 0.8, "rotation_weight": 0.0}
"""Hyper-parameters of methods that have other defaults on feature vectors."""


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
        history_: rows of the training, dictionaries, one for every 20th part of it; filled while it goes on.
        pseudo_labels_: classes that the fitted classifier gives the unlabelled rows, in their order: those of ``X``,
            then ``X_unlabeled``; empty if there are none.
        pseudo_label_confidence_: their probabilities, float64.
        network_: the moving average of the trained network, in evaluation mode.
        n_steps_: steps trained.
    """

    def __init__(
        self,
        method: str = "fixmatch+daso",
        *,
        method_options: dict[str, Any] | None = None,
        network: str | nn.Module | None = None,
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
            X_unlabeled: further rows without a label.

        Raises:
            ValueError: an array or a label is none of these, there are fewer than two classes, or an option is unknown
                or out of range.
            RunError: the training diverged.
        """
        rows = self._read(X, reset=True)
        classes, codes = read_labels(y, type(self).__name__)
        check_consistent_length(rows, codes)
        unlabeled = rows[codes < 0]
        if X_unlabeled is not None:
            unlabeled = np.concatenate([unlabeled, self._read(X_unlabeled, reset=False)])
        self._standardize(np.concatenate([rows[codes >= 0], unlabeled]))
        source = self._source(rows[codes >= 0], codes[codes >= 0], unlabeled, len(classes))
        config = self._config(int((codes >= 0).sum()), len(unlabeled))

        if self.logit_adjustment is not None and not 0 <= self.logit_adjustment < math.inf:
            raise OptionError(f"logit_adjustment = {self.logit_adjustment!r} must be at least 0")
        device = choose_device(self.device)
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=_random_of(device)):
            prepared = prepare(config, source, encoder=self._own_module())
            self._train(prepared)
        self.classes_ = classes
        self.class_counts_ = np.bincount(codes[codes >= 0], minlength=len(classes))
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

    def _standardize(self, rows: Array) -> None:
        """Keep mean and standard deviation of each feature; those of images are the network's matter."""
        self._mean = self._scale = None
        if self.image_shape_ is None:
            self._mean, scale = rows.mean(0), rows.std(0)
            # Nothing was learned of a feature that did not vary (but for rounding): it shall say nothing.
            self._scale = np.where(scale > 1e-12 * np.abs(self._mean), scale, np.inf)

    def _inputs(self, rows: Array) -> Array:
        """Return what a network is given: images as they are, features standardised, float64."""
        return rows if self._mean is None else (rows - self._mean) / self._scale

    def _source(self, rows: Array, codes: Array, unlabeled: Array, classes: int) -> Source:
        def pool(members: Array, labels: Array) -> Images:
            inputs = self._inputs(members)
            return Images(inputs if self._mean is None else inputs.astype(np.float32)[:, None], labels)

        validation = None
        if self.early_stopping:
            if not 0 < self.validation_fraction < 1:
                raise OptionError(
                    f"validation_fraction = {self.validation_fraction!r} must be between 0 and 1"
                )
            counts = np.bincount(codes, minlength=classes)
            taken = np.minimum(np.rint(self.validation_fraction * counts).astype(np.int64), counts - 1)
            if not taken.any():
                raise DataError(f"early_stopping: {len(codes)} labelled rows are too few to set some aside")
            kept, held = split_holdout(codes, taken, seed=0)
            validation = pool(rows[held], codes[held])
            rows, codes = rows[kept], codes[kept]
        if not len(unlabeled):
            unlabeled = rows
        return Source(
            name="arrays",
            class_names=tuple(map(str, range(classes))),
            train=pool(rows, codes),
            unlabeled=pool(unlabeled, np.full(len(unlabeled), UNLABELED)),
            validation=validation,
        )

    def _own_module(self) -> nn.Module | None:
        return self.network if isinstance(self.network, nn.Module) else None

    def _config(self, labeled: int, unlabeled: int) -> RunConfig:
        """Return the configuration of a training on so many rows."""
        vectors = self.image_shape_ is None
        least, most = (100, max(600, (labeled + unlabeled) // 10)) if vectors else (500, 20_000)
        by_data = min(most, max(least, 2 * unlabeled + labeled // 2))
        steps: Any = by_data if self.steps is None else self.steps
        if not isinstance(steps, Integral) or steps < 1:
            raise OptionError(f"steps = {steps!r} must be a whole number of at least 1")
        recipe = Recipe.parse(self.method)
        own = VECTOR_OPTIONS if vectors else {}
        known = recipe.hyperparameters()
        options: dict[str, Any] = {
            "steps": int(steps),
            "batch": (16 if vectors else 32) if self.batch_size is None else self.batch_size,
            "learning_rate": self.learning_rate,
            "labeled_sampling": self.labeled_sampling,
            "ema_decay": 0.99 if steps < 5000 else 0.999,
            "network": None if self._own_module() is not None else self.network,
            "device": self.device,
            "seed": int(check_random_state(self.random_state).randint(2**31 - 1)),
            "evaluate_every": max(1, int(steps) // 20),
            "log_every": int(steps),
        }
        views: Any = VectorViewOptions if vectors else ViewOptions
        try:
            train = TrainOptions(**{**options, **(self.train_options or {})})
            view = views(**(self.view_options or {}))
        except TypeError as error:
            raise OptionError(f"train_options or view_options: {error}") from error
        return RunConfig(
            source="arrays",
            method=self.method,
            method_options={
                **{name: value for name, value in own.items() if name in known},
                **(self.method_options or {}),
            },
            split=SplitOptions(holdout=0),
            train=train,
            **{"vectors" if vectors else "augmentation": view},
        )

    def _train(self, prepared: Prepared) -> None:
        """Train all stages, then keep the network."""
        self.history_: list[dict[str, Any]] = []
        last = len(prepared.plan.stages()) - 1
        while True:
            kept = self._train_stage(prepared, early=self.early_stopping and prepared.stage == last)
            if prepared.stage == last:
                break
            prepared.plan.conclude(prepared.stage, prepared.training.average.network, prepared.data)
            prepared = prepared.begin_stage(prepared.stage + 1)
        self.n_steps_ = prepared.step
        network = prepared.training.average.network
        if kept is not None:
            network.load_state_dict(kept)
        self.network_ = network.eval()
        self._description: dict[str, Any] = {
            "config": prepared.config.to_dict(),
            "data": {
                k: v
                for k, v in describe_data(prepared.data, prepared.backbone).items()
                if "fingerprint" not in k
            },
            "output": network.output,
        }

    def _train_stage(self, prepared: Prepared, *, early: bool) -> dict[str, Tensor] | None:
        """Train a stage; return the best state of the network on the rows that were set aside, if it is to be kept."""
        best, since, kept = -math.inf, 0, None
        for row in fit(prepared.training, prepared.batches, prepared.data):
            row = row | {"step": row["step"] + prepared.first_step}
            self.history_.append(row)
            if self.verbose and (row["event"] == "train" or "holdout" in row):
                print(_line(row), flush=True)
            if not early or row["event"] != "evaluate":
                continue
            numbers = row["holdout"]["logit_adjusted"] if self._strength() >= 0.5 else row["holdout"]
            reached = numbers["balanced_accuracy"]
            if reached > best:
                best, since = reached, 0
                kept = copy.deepcopy(prepared.training.average.network.state_dict())
            else:
                since += 1
                if since >= self.n_iter_no_change:
                    break
        return kept

    def _strength(self) -> float:
        """Return the strength of logit adjustment that is in force."""
        if self.logit_adjustment is not None:
            return self.logit_adjustment
        return 0.0 if balancing_parts(self.method) else 1.0

    def _logits(self, rows: Array) -> Array:
        """Return the logits, adjusted, float64 (N, K)."""
        return adjust_logits(self._raw_logits(rows), self.class_counts_, self._strength())

    def _raw_logits(self, rows: Array) -> Array:
        """Return the logits of the network, float64 (N, K).

        Features go through it in double precision, so that the answer to a row does not depend on those beside it.
        """
        inputs = torch.from_numpy(np.ascontiguousarray(self._inputs(rows)))
        if self._mean is None:
            return predict_logits(self.network_, inputs).double().numpy()
        network = copy.deepcopy(self.network_).cpu().double()
        head = network.heads[network.output]
        with torch.no_grad():
            parts = [head(network.encoder(chunk)) for chunk in torch.split(inputs, 4096)]
        return np.asarray(torch.cat(parts).numpy())

    def _probabilities(self, rows: Array) -> Array:
        logits = self._logits(rows)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state; of the network arrays, so that opening it builds no tensor of the file's choice."""
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = {n: t.cpu().numpy() for n, t in self.network_.state_dict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state and build its network, on the estimator's device or, where there is none such, the CPU."""
        super().__setstate__(state)
        if "network_" in state:
            self.network_ = self._rebuild({n: torch.from_numpy(a) for n, a in state["network_"].items()})

    def _rebuild(self, weights: dict[str, Tensor]) -> Network:
        try:
            device = choose_device(self.device)
        except OptionError:
            device = torch.device("cpu")
        about = self._description
        config = RunConfig.from_dict(about["config"], "a pickled DASOClassifier")
        with torch.random.fork_rng([]):
            return rebuild_model(
                config,
                about["data"],
                weights,
                about["output"],
                self.n_steps_,
                device,
                "a pickled DASOClassifier",
                self._own_module(),
            ).network


def _line(row: dict[str, Any]) -> str:
    """Return a row of the training in words."""
    parts = [f"step {row['step']}"]
    if row["event"] == "train":
        parts.append(f"loss {row['loss']:.4f}")
        if "share_confident" in row:
            parts.append(f"confident {100 * row['share_confident']:.0f}%")
    else:
        parts.append(f"hold-out balanced accuracy {100 * row['holdout']['balanced_accuracy']:.1f}%")
    return ", ".join(parts)


def _random_of(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type
