"""A trained classifier: images in, probabilities out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from daso.data.formats.arrays import as_images, refuse_one_image
from daso.data.images.decode import decode_for_model, to_picture
from daso.errors import DataError, OptionError
from daso.evaluate.metrics import Array
from daso.evaluate.prior import doubts, shift
from daso.export.facts import ModelFacts

Prior = str | Mapping[str, float] | Sequence[float] | Array

BATCH_PIXELS = 256 * 64 * 64
"""Pixels of the images that are decoded at a time."""
MAX_BATCH = 256
VECTOR_BATCH = 4096


@dataclass(frozen=True)
class Predictions:
    """The answers of a classifier to N inputs.

    Attributes:
        probabilities: float64, (N, K), rows sum to 1.
    """

    probabilities: Array
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> Array:
        """Most probable class of each input, int64 (N,)."""
        return np.asarray(self.probabilities.argmax(1))

    @property
    def classes(self) -> list[str]:
        """Names of the most probable classes."""
        return [self.class_names[label] for label in self.labels]

    @property
    def confidences(self) -> Array:
        """Probability of the most probable class, float64 (N,)."""
        return np.asarray(self.probabilities.max(1))


class Classifier:
    """A trained model: ``predict(images)``.

    Args:
        answer: returns probabilities, (N, K), of inputs as in training: uint8 (N, C, H, W), or
            float32 (N, D) for a model of vectors.
        features: returns the features, float32 (N, D), that *answer* classifies; None: the model
            has none to give.
    """

    def __init__(
        self,
        answer: Callable[[Array], Array],
        facts: ModelFacts,
        features: Callable[[Array], Array] | None = None,
    ) -> None:
        self._answer = answer
        self._features = features
        self.facts = facts

    def __repr__(self) -> str:
        facts = self.facts
        kind = "images" if facts.takes_images else "values"
        shape = "x".join(map(str, facts.input_shape))
        return f"<daso {facts.method}: {shape} {kind} to {len(facts.class_names)} classes>"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.facts.class_names

    @property
    def batch(self) -> int:
        if not self.facts.takes_images:
            return VECTOR_BATCH
        _, height, width = self.facts.input_shape
        return max(16, min(MAX_BATCH, BATCH_PIXELS // (height * width)))

    def predict(self, images: Any, *, prior: Prior | None = None) -> Predictions:
        """Classify images, or vectors if the model takes vectors.

        Args:
            images: an array of images, (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats
                from 0 to 1; a file name, the bytes of a file, a Pillow image, or an iterable of
                these and of arrays (H, W) or (H, W, C). Images of another size are cropped to the
                central square and resized, as in training. For a model of vectors: floats (N, D).
            prior: class distribution of these images: ``"uniform"``, ``"labeled"``,
                ``"logit-adjusted"`` (see ``ModelFacts.logit_adjusted``), ``"estimated"`` from them
                (see ``ModelFacts.estimate_distribution``), shares by class name, or K of them.
                None: the model's own, that of the labeled images unless its method balanced
                the classes.

        Raises:
            DataError: an image cannot be read, or an array has another form.
            OptionError: the prior does not fit the classes.

        Warns:
            UserWarning: the prior is estimated from few images or loses a class, or the classifier
                is balanced already, as ``daso predict`` says.
        """
        estimated = isinstance(prior, str) and prior == "estimated"
        target = None if prior is None or estimated else self.facts.read_prior(prior)
        if note := self.facts.balanced_already(prior):
            warnings.warn(note, UserWarning, stacklevel=2)
        parts = [self.probabilities(part) for part in self._batches(images)]
        probs = np.concatenate(parts) if parts else np.zeros((0, len(self.class_names)))
        if estimated and len(probs):
            target, _ = self.facts.estimate_distribution(lambda: [probs])
            for note in doubts(target, self.class_names, len(probs)):
                warnings.warn(note, UserWarning, stacklevel=2)
        if target is not None:
            probs = shift(probs, self.facts.prior, target)
        return Predictions(probs, self.class_names)

    def embed(self, images: Any) -> Array:
        """Return the features that the model classifies, float32 (N, D), of images or vectors.

        Args:
            images: as in ``predict``; they are decoded in the same way.

        Raises:
            DataError: see ``predict``.
            OptionError: the model is an ``.onnx`` file, which gives probabilities only.
        """
        if self._features is None:
            raise OptionError(
                "this model gives probabilities only: for features, load the run folder, or export "
                "it with --format safetensors"
            )
        parts = [self._features(part) for part in self._batches(images)]
        if not parts:
            zeros = np.zeros((1, *self.facts.input_shape))
            one = zeros.astype(np.uint8 if self.facts.takes_images else np.float32)
            return self._features(one)[:0]
        return np.concatenate(parts)

    def probabilities(self, inputs: Array) -> Array:
        """Return float64 (N, K) for prepared inputs: uint8 (N, C, H, W), or float32 (N, D)."""
        return np.asarray(self._answer(inputs), dtype=np.float64)

    def prepare(self, one: Any) -> Array:
        """Return one input as in training: uint8 (C, H, W), or float32 (D,).

        Args:
            one: a file name, the bytes of a file, a Pillow image or an array (H, W) or (H, W, C);
                for a model of vectors an array (D,).

        Raises:
            DataError: it cannot be read, or has another form; the message is the reason alone.
        """
        if not self.facts.takes_images:
            return self._vector(one)
        if isinstance(one, str | PathLike):
            one = Path(one)
            if one.is_dir():
                raise DataError(
                    "is a folder, and predict takes images: files, such as "
                    "sorted(Path(folder).rglob('*.jpg')), Pillow images or arrays; 'daso predict "
                    "MODEL FOLDER' takes folders"
                )
        elif isinstance(one, np.ndarray):
            if one.ndim not in (2, 3):
                raise DataError(f"an image must be an array (H, W) or (H, W, C), got {one.shape}")
            one = to_picture(as_images(one[None], "an image")[0])
        elif not isinstance(one, bytes | Image.Image):
            raise DataError(f"must be a file, a Pillow image or an array, not {type(one).__name__}")
        return decode_for_model(one, self.facts.input_shape)

    def prepare_all(self, images: Sequence[Any], first: int = 0) -> Array:
        """Return inputs, at least one, as one array, decoded by several threads.

        Raises:
            DataError: one cannot be read; the message names the file, or counts inputs from
                *first*.
        """
        with ThreadPoolExecutor() as executor:
            numbers = range(first, first + len(images))
            return np.stack(list(executor.map(self._prepare_named, numbers, images)))

    def _prepare_named(self, number: int, one: Any) -> Array:
        name = one if isinstance(one, str | PathLike) else f"input {number}"
        try:
            return self.prepare(one)
        # Pillow may raise any exception on damaged content that it reads late.
        except Exception as error:
            raise DataError(f"{name}: {str(error) or type(error).__name__}") from error

    def _vector(self, one: Any) -> Array:
        try:
            vector = np.asarray(one, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"is not a vector of numbers: {error}") from error
        if vector.shape != self.facts.input_shape:
            raise DataError(
                f"this model takes vectors of {self.facts.input_shape[0]} numbers, got "
                f"{vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise DataError("holds NaN or infinity")
        return vector

    def _batches(self, images: Any) -> Iterator[Array]:
        if isinstance(images, str | PathLike | bytes | Image.Image):
            images = [images]
        if hasattr(images, "to_numpy"):  # a table or a column
            images = images.to_numpy()
        are_names = isinstance(images, np.ndarray) and images.dtype.kind in "OUS"
        if (are_names and images.ndim == 1) or not hasattr(images, "__len__"):
            images = list(images)
        ready = False
        if isinstance(images, np.ndarray) and self.facts.takes_images:
            refuse_one_image(images.shape, self.facts.input_shape)
            images = as_images(images, "images")
            ready = images.shape[1:] == self.facts.input_shape
            if not ready:
                images = images.transpose(0, 2, 3, 1)
        elif isinstance(images, np.ndarray) and images.dtype.kind == "f":
            # An invalid row is left to ``prepare``, which names it.
            ready = images.shape[1:] == self.facts.input_shape and bool(np.isfinite(images).all())
            images = images.astype(np.float32, copy=False) if ready else images
        for start in range(0, len(images), self.batch):
            part = images[start : start + self.batch]
            yield part if ready else self.prepare_all(part, start)
