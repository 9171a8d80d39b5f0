"""The options of the views, and the views of several steps at once, each step with draws of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from daso.data.store import TrainingData
from daso.errors import OptionError
from daso.methods.method import View
from daso.views import crop, draw, draw_weak, join_draws, strong_from_draws
from daso.views.resized_crop import draw_resized, resize_parts
from daso.views.vectors import draw_vectors, view_vectors

Crop = Literal["pad", "resized"]
Drawn = tuple[Any, ...]
"""The draws of one view of a batch, in the order in which the view uses them."""


@dataclass(frozen=True)
class ViewOptions:
    """How images are augmented: RandAugment(2, 10) with probability 0.5 an operation, and cutout."""

    flip: bool | None = None
    """Mirror images at random (default: unless the classes forbid it, as with digits)."""
    crop: Crop = "pad"
    """Random crop of weak views and, before RandAugment, of strong ones. pad: of the image's size, out of the image
    with reflected pixels around it; resized: 8% to 100% of the image's area, resized to its size."""
    crop_padding: int | None = None
    """Reflected pixels around an image for --crop pad (default: an eighth of the side; stl10: 4)."""
    strong_operations: int = 2
    """Operations drawn for each strong view."""
    strong_magnitude: int = 10
    """Operation levels are 1 to this number less 1."""
    strong_probability: float = 0.5
    """Probability that a drawn operation is applied."""
    cutout: int | None = None
    """Size in pixels of the grey square of strong views (default: 16 at 32 pixels and in proportion,
    16 for stl10; 0: none)."""

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("crop", self.crop, self.crop in get_args(Crop)),
            ("crop_padding", self.crop_padding, self.crop_padding is None or self.crop_padding >= 0),
            ("strong_operations", self.strong_operations, self.strong_operations >= 0),
            ("strong_magnitude", self.strong_magnitude, 2 <= self.strong_magnitude <= 10),
            ("strong_probability", self.strong_probability, 0 <= self.strong_probability <= 1),
            ("cutout", self.cutout, self.cutout is None or self.cutout >= 0),
        ):
            if not valid:
                raise OptionError(f"{name} = {value!r} is out of range")


@dataclass(frozen=True)
class VectorViewOptions:
    """How feature vectors are augmented; noise is in standard deviations of each dimension."""

    weak_noise: float = 0.3
    """Noise added to weak views of vectors."""
    strong_noise: float = 0.5
    """Noise added to strong views of vectors."""
    strong_mask: float = 0.2
    """Probability that a dimension of a strong view is replaced by its mean."""
    strong_mix: float = 0.2
    """Strong views contain up to this share of another vector of the batch."""

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("weak_noise", self.weak_noise, 0 <= self.weak_noise < math.inf),
            ("strong_noise", self.strong_noise, 0 <= self.strong_noise < math.inf),
            ("strong_mask", self.strong_mask, 0 <= self.strong_mask < 1),
            ("strong_mix", self.strong_mix, 0 <= self.strong_mix <= 0.5),
        ):
            if not valid:
                raise OptionError(f"{name} = {value!r} is out of range")


class Views(Protocol):
    """Draws views on the host and makes them on the device of what is viewed."""

    def draw(self, view: View, count: int, generator: torch.Generator) -> Drawn:
        """Draw everything random in a view of *count* images."""

    def make(self, view: View, images: Tensor, batches: Sequence[Drawn]) -> Tensor:
        """Return a view of the images of several batches, those of each batch by that batch's draws."""


class VectorAugmentation:
    """Draws views of feature vectors on the host and makes them on the vectors' device.

    The versions of a vector that its store holds (views of an image through a frozen network) are what the views start
    from: weak ones from the plain version and the weak ones, strong ones from the strong ones if there are any.

    Args:
        options: of the views.
        data: tells the versions, and the mean and the standard deviation of each dimension.
    """

    def __init__(self, options: VectorViewOptions, data: TrainingData) -> None:
        self.options = options
        versions, self.dim = data.labeled.images.shape[1:]
        strong = range(1 + data.weak_versions, versions)
        self.versions = {"weak": range(1 + data.weak_versions), "strong": strong if len(strong) else range(1)}
        device = data.labeled.images.device
        self.mean, self.std = (torch.tensor(values, device=device) for values in (data.mean, data.std))

    def draw(self, view: View, count: int, generator: torch.Generator) -> Drawn:
        """Draw everything random in a view of *count* vectors."""
        if view == "identity":
            return ()
        strong = view == "strong"
        return (
            draw_vectors(
                count,
                self.dim,
                generator,
                versions=self.versions[view],
                mask=self.options.strong_mask if strong else 0.0,
                mix=self.options.strong_mix if strong else 0.0,
            ),
        )

    def make(self, view: View, images: Tensor, batches: Sequence[Drawn]) -> Tensor:
        """Return a view, float32 (N, D), of vectors, float32 (N, V, D), those of each batch by that batch's draws."""
        if view == "identity":
            return images[:, 0]
        noise = self.options.strong_noise if view == "strong" else self.options.weak_noise
        drawn = [draws for (draws,) in batches]
        return view_vectors(images, drawn, noise=noise, mean=self.mean, std=self.std)


class Augmentation:
    """Draws views on the host and makes them on the images' device.

    Args:
        options: of the views.
        height, width: of the images.
        flip: whether a mirrored image keeps its class, for options that leave it open.

    Attributes:
        options: defaults worked out.

    Raises:
        OptionError: the padding is too large for the images.
    """

    def __init__(self, options: ViewOptions, height: int, width: int, flip: bool) -> None:
        side = min(height, width)
        self.padding = side // 8 if options.crop_padding is None else options.crop_padding
        if self.padding >= side:
            raise OptionError(
                f"crop_padding = {self.padding} must be less than the images' side, {side} pixels"
            )
        self.flip = flip if options.flip is None else options.flip
        # A cutout of 16 covers 17 pixels of 32, both borders included: the same share of any side.
        self.cutout = round(side * 17 / 32) - 1 if options.cutout is None else options.cutout
        self.height, self.width = height, width
        self.options = replace(options, flip=self.flip, crop_padding=self.padding, cutout=self.cutout)

    def draw(self, view: View, count: int, generator: torch.Generator) -> Drawn:
        """Draw everything random in a view of *count* images."""
        if view == "identity":
            return ()
        if self.options.crop == "resized":
            resized = draw_resized(count, self.height, self.width, generator, flip=self.flip)
            return (resized,) if view == "weak" else (resized, self._draw_strong(count, generator, False, 0))
        if view == "weak":
            return (draw_weak(count, generator, flip=self.flip, padding=self.padding),)
        return (self._draw_strong(count, generator, self.flip, self.padding),)

    def _draw_strong(self, count: int, generator: torch.Generator, flip: bool, padding: int) -> Any:
        return draw(
            count,
            self.height,
            self.width,
            generator,
            flip=flip,
            padding=padding,
            operations=self.options.strong_operations,
            magnitude=self.options.strong_magnitude,
            probability=self.options.strong_probability,
        )

    def make(self, view: View, images: Tensor, batches: Sequence[Drawn]) -> Tensor:
        """Return a view of images, uint8 (N, C, H, W), those of each batch by that batch's draws."""
        drawn = [join_draws(parts) for parts in zip(*batches, strict=True)]
        if view == "identity":
            return images
        if self.options.crop == "resized":
            images = resize_parts(images, drawn[0], height=self.height, width=self.width)
            return images if view == "weak" else strong_from_draws(images, drawn[1], cutout=self.cutout)
        return (
            crop(images, drawn[0])
            if view == "weak"
            else strong_from_draws(images, drawn[0], cutout=self.cutout)
        )
