"""Facts about a trained model, and the class distributions that follow from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from daso.errors import OptionError, RunError, nearest, same_name
from daso.evaluate.metrics import Array
from daso.evaluate.prior import estimate_prior
from daso.plans.estimate import nearest_distribution


@dataclass(frozen=True)
class ModelFacts:
    """What is known about a classifier besides its weights.

    Attributes:
        labeled_counts: labeled training images of each class.
        input_shape: channels, height and width of an image; for vectors their length alone.
        temperature: divisor of the logits before the softmax.
        calibration_note: why the temperature was not fitted, or None.
        balanced_by: parts of the method that balanced the classifier.
        step: number of training steps.
        confusion: see ``Calibration``, or None.
        provenance: version, commit, data and seed, as JSON values.
    """

    class_names: tuple[str, ...]
    labeled_counts: tuple[int, ...]
    input_shape: tuple[int, ...]
    temperature: float = 1.0
    calibration_note: str | None = None
    balanced_by: tuple[str, ...] = ()
    method: str = ""
    step: int = 0
    confusion: list[list[float]] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes, counts, shape = len(self.class_names), len(self.labeled_counts), self.input_shape
        if classes < 2 or counts != classes or len(shape) not in (1, 3):
            raise ValueError(f"{classes} class names, {counts} counts, input {shape}")
        if self.confusion is not None and np.shape(self.confusion) != (classes, classes):
            raise ValueError(f"a confusion of {np.shape(self.confusion)} for {classes} classes")

    @property
    def takes_images(self) -> bool:
        return len(self.input_shape) == 3

    @property
    def prior(self) -> Array:
        """Class distribution that the model's probabilities assume, float64 (K,).

        That of the labeled images; uniform if the method balanced the classifier.
        """
        return self.uniform if self.balanced_by else self.labeled

    @property
    def uniform(self) -> Array:
        """Distribution of balanced classes, float64 (K,)."""
        return np.full(len(self.class_names), 1 / len(self.class_names))

    @property
    def labeled(self) -> Array:
        """Distribution of the labeled images, float64 (K,)."""
        counts = np.array(self.labeled_counts, dtype=np.float64)
        return np.asarray(counts / counts.sum())

    @property
    def logit_adjusted(self) -> Array:
        """Distribution for which the classes are those of post-hoc logit adjustment, float64 (K,).

        With p_k in proportion to exp(z_k / T), Menon et al., ICLR 2021, equation 9, takes the class
        with the largest z_k - log prior_k, hence of p_k / prior_k^(1/T): with T = 1, ``uniform``.
        """
        logs = (1 - 1 / self.temperature) * np.log(self.prior)
        shares = np.exp(logs - logs.max())
        return np.asarray(shares / shares.sum())

    def balanced_already(self, prior: object) -> str | None:
        """Return why a prior that favors no class corrects nothing; None if it does."""
        balances = isinstance(prior, str) and prior in ("uniform", "logit-adjusted")
        if not (balances and self.balanced_by):
            return None
        return (
            f"{self.method} has balanced its classifier already ({', '.join(self.balanced_by)}); "
            "no bias towards frequent classes is left to correct"
        )

    def read_prior(self, prior: str | Mapping[str, float] | Sequence[float] | Array) -> Array:
        """Return a class distribution as float64 (K,).

        Args:
            prior: ``"uniform"``, ``"labeled"``, ``"logit-adjusted"``, shares (or counts) by class
                name, or K of them in class order.

        Raises:
            OptionError: a class is missing or unknown, a share is negative, or none is positive.
        """
        if isinstance(prior, str):
            named = {
                "uniform": self.uniform,
                "labeled": self.labeled,
                "logit-adjusted": self.logit_adjusted,
            }
            if prior not in named:
                raise OptionError(
                    f"unknown prior {prior!r}; choose from {', '.join(named)}, "
                    f"estimated.{nearest(prior, named)}"
                )
            return named[prior]
        if isinstance(prior, Mapping):
            prior = {same_name(str(name), self.class_names): of for name, of in prior.items()}
            for name in map(str, prior.keys() - set(self.class_names)):
                hint = nearest(name, self.class_names)
                raise OptionError(f"the prior names an unknown class: {name!r}.{hint}")
            if missing := [name for name in self.class_names if name not in prior]:
                raise OptionError(f"the prior has no share of {', '.join(map(repr, missing[:10]))}")
            prior = [prior[name] for name in self.class_names]
        try:
            shares = np.asarray(prior, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise OptionError(f"the shares of a prior must be numbers: {error}") from error
        if shares.shape != (len(self.class_names),):
            raise OptionError(
                f"a prior must have one share for each of {len(self.class_names)} classes"
            )
        if not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() == 0:
            raise OptionError("the shares of a prior must be at least 0, and one of them positive")
        return np.asarray(shares / shares.sum())

    def estimate_distribution(self, chunks: Callable[[], Iterable[Array]]) -> tuple[Array, str]:
        """Estimate the class distribution of N unlabeled images, float64 (K,), and name the method.

        If the hold-out, or what ``daso calibrate`` was given, had at least ten images of every
        class, the estimate is the distribution q for which C q is nearest to the mean of the
        probabilities, where C is the confusion on them (Lipton, Wang, Smola, ICML 2018, with
        probabilities in place of answers). It allows for a network that hardly ever names a rare
        class. Otherwise it comes from the expectation-maximization of Saerens et al., 2002, which
        takes the probabilities at face value and may lose such a class.

        Args:
            chunks: starts a pass over the calibrated probabilities, (n, K) each, N >= 1 rows in
                all.

        Raises:
            DataError: there is no row.
        """
        if self.confusion is None:
            return estimate_prior(chunks, self.prior), "expectation-maximization"
        total, count = np.zeros(len(self.class_names)), 0
        for probs in chunks():
            total, count = total + probs.sum(0, dtype=np.float64), count + len(probs)
        mean = torch.from_numpy(total / max(count, 1))
        confusion = torch.tensor(self.confusion, dtype=torch.float64)
        how = "the confusion on the images of its calibration"
        return nearest_distribution(confusion, mean).numpy(), how

    def to_metadata(self) -> dict[str, str]:
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> ModelFacts:
        """Read facts back from the metadata of the file *where*.

        Raises:
            RunError: facts are missing or damaged.
        """
        try:
            values = {
                f.name: json.loads(metadata[f.name]) for f in fields(cls) if f.name in metadata
            }
            for name in ("class_names", "balanced_by"):
                values[name] = tuple(map(str, values[name]))
            for name in ("labeled_counts", "input_shape"):
                values[name] = tuple(map(int, values[name]))
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{where} was not exported by daso: {error!r}") from error
