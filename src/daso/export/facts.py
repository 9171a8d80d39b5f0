"""What a model says of itself, in a run folder or in the metadata of an exported file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from daso.errors import OptionError, RunError, nearest

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a classifier beside its weights.

    Attributes:
        class_names: K names.
        labeled_counts: labelled training images of each class.
        input_shape: channels, height and width of an image; of vectors their length alone.
        temperature: that the logits are divided by before the softmax.
        calibration_note: why the temperature is 1 without having been fitted, or None.
        balanced_by: parts of the method that have balanced the classifier.
        method: as it was named.
        step: training steps it had.
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
        classes = len(self.class_names)
        if (
            classes < 2
            or len(self.labeled_counts) != classes
            or len(self.input_shape) not in (1, 3)
        ):
            raise ValueError(
                f"{classes} class names, {len(self.labeled_counts)} counts, input {self.input_shape}"
            )
        if self.confusion is not None and np.shape(self.confusion) != (classes, classes):
            raise ValueError(f"a confusion of {np.shape(self.confusion)} for {classes} classes")

    @property
    def takes_images(self) -> bool:
        """Whether the model takes images, not vectors."""
        return len(self.input_shape) == 3

    @property
    def prior(self) -> Array:
        """Class distribution that the model's probabilities are for, float64 (K,).

        That of the labelled images, as the network learned from them; uniform, if the method has balanced it.
        """
        return self.uniform if self.balanced_by else self.labeled

    @property
    def uniform(self) -> Array:
        """The distribution of balanced classes, float64 (K,)."""
        return np.full(len(self.class_names), 1 / len(self.class_names))

    @property
    def labeled(self) -> Array:
        """The distribution of the labelled images, float64 (K,)."""
        counts = np.array(self.labeled_counts, dtype=np.float64)
        return np.asarray(counts / counts.sum())

    def read_prior(self, prior: str | Mapping[str, float] | Sequence[float] | Array) -> Array:
        """Return a class distribution as float64 (K,).

        Args:
            prior: ``"uniform"``, ``"labeled"``, shares (or counts) by class name, or K of them in the classes' order.

        Raises:
            OptionError: a class is missing or unknown, a share is negative, or none is positive.
        """
        if isinstance(prior, str):
            named = {"uniform": self.uniform, "labeled": self.labeled}
            if prior not in named:
                raise OptionError(
                    f"unknown prior {prior!r}; valid: uniform, labeled, estimated.{nearest(prior, named)}"
                )
            return named[prior]
        if isinstance(prior, Mapping):
            unknown = [str(name) for name in prior if name not in self.class_names]
            missing = [name for name in self.class_names if name not in prior]
            if unknown:
                raise OptionError(
                    f"the prior names a class {unknown[0]!r} that the model does not know."
                    f"{nearest(unknown[0], self.class_names)}"
                )
            if missing:
                raise OptionError(
                    f"the prior gives no share of {', '.join(map(repr, missing[:10]))}"
                )
            prior = [prior[name] for name in self.class_names]
        try:
            shares = np.asarray(prior, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise OptionError(f"the shares of a prior must be numbers: {error}") from error
        if shares.shape != (len(self.class_names),):
            raise OptionError(f"a prior has one share for each of {len(self.class_names)} classes")
        if not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() == 0:
            raise OptionError("the shares of a prior must be at least 0, and one greater")
        return np.asarray(shares / shares.sum())

    def to_metadata(self) -> dict[str, str]:
        """Return every fact as JSON by its name."""
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], where: str) -> ModelFacts:
        """Read facts back.

        Raises:
            RunError: they are not there, or damaged; *where* names the file.
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
