"""A classifier in use: images in, probabilities out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from daso.data.formats.arrays import as_images
from daso.data.images.decode import decode, to_pixels
from daso.errors import DataError
from daso.evaluate.prior import shift
from daso.export.estimate import estimate_distribution
from daso.export.facts import ModelFacts

Array = npt.NDArray[Any]
Prior = str | Mapping[str, float] | Sequence[float] | Array

PIXELS = 256 * 64 * 64
"""Of the images that are decoded at a time."""
MOST = 256


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of N inputs.

    Attributes:
        probabilities: float64, (N, K), rows sum to 1.
        class_names: K names.
    """

    probabilities: Array
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> Array:
        """The most probable class of each, int64 (N,)."""
        return np.asarray(self.probabilities.argmax(1))

    @property
    def classes(self) -> list[str]:
        """Its name."""
        return [self.class_names[label] for label in self.labels]

    @property
    def confidences(self) -> Array:
        """Its probability, float64 (N,)."""
        return np.asarray(self.probabilities.max(1))


class Classifier:
    """A trained model: ``predict(images)``.

    Args:
        answer: gives probabilities, (N, K), of inputs as the model was trained on: uint8 (N, C, H, W) or, of a model
            of vectors, float32 (N, D).
        facts: of the model.
    """

    def __init__(self, answer: Callable[[Array], Array], facts: ModelFacts) -> None:
        self._answer = answer
        self.facts = facts

    def __repr__(self) -> str:
        facts = self.facts
        what = "x".join(map(str, facts.input_shape)) + (
            " images" if facts.takes_images else " values"
        )
        return f"<daso {facts.method}: {what} to {len(facts.class_names)} classes>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K class names."""
        return self.facts.class_names

    @property
    def batch(self) -> int:
        """Images to decode at a time."""
        if not self.facts.takes_images:
            return 16 * MOST
        _, height, width = self.facts.input_shape
        return max(16, min(MOST, PIXELS // (height * width)))

    def predict(self, images: Any, *, prior: Prior | None = None) -> Predictions:
        """Classify images, or vectors where the model is one of vectors.

        Args:
            images: an array of images, (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or floats from 0 to 1; a file
                name, a file's bytes, a Pillow image, or a sequence of these and of arrays (H, W) or (H, W, C).
                Images of another size than the model's are cut to the central square and resized, as in training.
                Of a model of vectors: floats (N, D).
            prior: class distribution of these images: ``"uniform"``, ``"labeled"``, ``"estimated"`` from them
                (see ``estimate_distribution``), shares by class name, or K of them; None: the probabilities are as the
                model learned to give them, for that of the labelled images unless its method has balanced the classes.

        Raises:
            DataError: an image cannot be read, or an array is none of these.
            OptionError: the prior does not fit the classes.
        """
        estimated = isinstance(prior, str) and prior == "estimated"
        wanted = None if prior is None or estimated else self.facts.read_prior(prior)
        parts = [self.probabilities(part) for part in self._prepared(images)]
        probs = np.concatenate(parts) if parts else np.zeros((0, len(self.class_names)))
        if estimated and len(probs):
            wanted, _ = estimate_distribution(self.facts, lambda: [probs])
        if wanted is not None:
            probs = shift(probs, self.facts.prior, wanted)
        return Predictions(probs, self.class_names)

    def probabilities(self, inputs: Array) -> Array:
        """Return float64 (N, K) of inputs as the model was trained on: uint8 (N, C, H, W), or float32 (N, D)."""
        return np.asarray(self._answer(inputs), dtype=np.float64)

    def prepare(self, one: Any) -> Array:
        """Return one input as the model takes it: uint8 (C, H, W), or float32 (D,).

        Args:
            one: a file name, a file's bytes, a Pillow image or an array (H, W) or (H, W, C); of a model of vectors an
                array (D,).

        Raises:
            DataError: it cannot be read, or is none of these; the message is the reason alone.
        """
        if not self.facts.takes_images:
            return self._vector(one)
        channels = self.facts.input_shape[0]
        if isinstance(one, str | PathLike) and os.path.isdir(one):  # noqa: PTH112 (not permitted: an error below)
            raise DataError(
                "is a folder, and predict takes images: files, such as sorted(Path(folder).rglob('*.jpg')), Pillow "
                "images or arrays; 'daso predict MODEL FOLDER' takes folders"
            )
        if isinstance(one, str | PathLike | bytes):
            source = one if isinstance(one, bytes) else Path(one)
            return self._fitting(lambda size: decode(source, channels=channels, size=size))
        if isinstance(one, np.ndarray):
            if one.ndim not in (2, 3):
                raise DataError(f"an image must be an array (H, W) or (H, W, C), got {one.shape}")
            pixels = as_images(one[None], "an image")[0].transpose(1, 2, 0)
            one = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        elif isinstance(one, Image.Image):
            one = one.copy()
        else:
            raise DataError(
                f"is neither a file, a Pillow image nor an array, but {type(one).__name__}"
            )
        return self._fitting(lambda size: to_pixels(one, channels=channels, size=size))

    def _vector(self, one: Any) -> Array:
        try:
            vector = np.asarray(one, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"is no vector of numbers: {error}") from error
        if vector.shape != self.facts.input_shape:
            raise DataError(
                f"this model takes vectors of {self.facts.input_shape[0]} numbers, got {vector.shape}"
            )
        if not np.isfinite(vector).all():
            raise DataError("holds NaN or infinity")
        return vector

    def _fitting(self, pixels_of: Callable[[int | None], Array]) -> Array:
        _, height, width = self.facts.input_shape
        pixels = pixels_of(height if height == width else None)
        if pixels.shape != self.facts.input_shape:
            raise DataError(
                f"is {pixels.shape[2]} x {pixels.shape[1]} pixels; this model, which was not trained on squares, "
                f"takes {width} x {height} only"
            )
        return pixels

    def _prepared(self, images: Any) -> Iterator[Array]:
        """Yield the inputs, some at a time."""
        if isinstance(images, str | PathLike | bytes | Image.Image):
            images = [images]
        if (
            not self.facts.takes_images
            and isinstance(images, np.ndarray)
            and images.dtype.kind == "f"
        ):
            fits = images.shape[1:] == self.facts.input_shape and np.isfinite(images).all()
            if fits:  # else the first row that does not is named below
                images = images.astype(np.float32, copy=False)
                yield from (
                    images[start : start + self.batch]
                    for start in range(0, len(images), self.batch)
                )
                return
        if isinstance(images, np.ndarray) and self.facts.takes_images:
            images = as_images(images, "images")
            if images.shape[1:] == self.facts.input_shape:
                yield from (
                    images[start : start + self.batch]
                    for start in range(0, len(images), self.batch)
                )
                return
            images = images.transpose(0, 2, 3, 1)
        with ThreadPoolExecutor() as executor:
            for start in range(0, len(images), self.batch):
                chunk = images[start : start + self.batch]
                yield np.stack(
                    list(executor.map(self._named, range(start, start + len(chunk)), chunk))
                )

    def _named(self, index: int, one: Any) -> Array:
        name = one if isinstance(one, str | PathLike) else f"input {index}"
        try:
            return self.prepare(one)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        # Pillow raises nearly anything on damaged content that it reads late.
        except Exception as error:
            raise DataError(f"{name}: {error or type(error).__name__}") from error
