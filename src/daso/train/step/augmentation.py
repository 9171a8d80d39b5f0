"""The views of several steps at once; each step has draws of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.data.training_data import TrainingData
from daso.errors import OptionError, flag
from daso.methods.method import View
from daso.train.view_options import VectorViewOptions, ViewOptions
from daso.views import crop, draw, draw_weak, join_draws, strong_from_draws
from daso.views.resized_crop import draw_resized, resize_parts
from daso.views.vectors import draw_vectors, view_vectors

Drawn = tuple[Any, ...]
"""The draws of one view of a batch, in the order in which the view uses them."""


class VectorAugmentation:
    """Views of feature vectors, without the components of patches that may follow embeddings.

    A store may hold several versions of a vector: views of one image through a frozen network. Weak
    views start from the plain version or a weak one, strong views from a strong one if there is
    any.
    """

    def __init__(self, options: VectorViewOptions, data: TrainingData) -> None:
        self.options = options
        versions, self.dim = data.labeled.images.shape[1], len(data.mean)
        strong = range(1 + data.weak_versions, versions)
        self.versions = {"weak": range(1 + data.weak_versions), "strong": strong or range(1)}
        device = data.labeled.images.device
        self.mean, self.std = (
            torch.tensor(values, device=device) for values in (data.mean, data.std)
        )

    def draw(self, view: View, count: int, generator: torch.Generator) -> Drawn:
        """Draw everything random in a view of *count* vectors, on the host."""
        if view == "identity":
            return ()
        strong = view == "strong"
        mask = self.options.strong_mask if strong else 0.0
        mix = self.options.strong_mix if strong else 0.0
        versions = self.versions[view]
        return (draw_vectors(count, self.dim, generator, versions=versions, mask=mask, mix=mix),)

    def make(self, view: View, images: Tensor, batches: Sequence[Drawn]) -> Tensor:
        """Return a view, float32 (N, D), of vectors (N, V, D), each batch by its own draws."""
        if view == "identity":
            return images[:, 0]
        noise = self.options.strong_noise if view == "strong" else self.options.weak_noise
        drawn = [draws for (draws,) in batches]
        embeddings = images[:, :, : self.dim]
        return view_vectors(embeddings, drawn, noise=noise, mean=self.mean, std=self.std)


class Augmentation:
    """Views of images.

    Args:
        flip: whether a mirrored image keeps its class, where the options leave that open.

    Attributes:
        options: the options with their defaults resolved.

    Raises:
        OptionError: the padding is too large for the images.
    """

    def __init__(self, options: ViewOptions, height: int, width: int, flip: bool) -> None:
        side = min(height, width)
        self.padding = side // 8 if options.crop_padding is None else options.crop_padding
        if self.padding >= side:
            raise OptionError(
                f"crop_padding = {self.padding} ({flag('crop_padding')}) must be less than the "
                f"images' side, {side} pixels"
            )
        self.flip = flip if options.flip is None else options.flip
        self.side = options.strong_side
        # A cutout of 16 covers 17 of 32 pixels, both borders included: the same share of any side.
        share = round((self.side or side) * 17 / 32) - 1
        self.cutout = share if options.cutout is None else options.cutout
        self.height, self.width = height, width
        self.options = replace(options, flip=self.flip, crop_padding=self.padding)
        self.options = replace(self.options, cutout=self.cutout)

    def draw(self, view: View, count: int, generator: torch.Generator) -> Drawn:
        """Draw everything random in a view of *count* images, on the host."""
        if view == "identity":
            return ()
        if self.options.crop == "pad" and self.side is None and view == "strong":
            return (self._draw_strong(count, generator, self.flip, self.padding),)
        cropped: Any
        if self.options.crop == "resized":
            cropped = draw_resized(count, self.height, self.width, generator, flip=self.flip)
        else:
            cropped = draw_weak(count, generator, flip=self.flip, padding=self.padding)
        if view == "weak":
            return (cropped,)
        return cropped, self._draw_strong(count, generator, False, 0)

    def _draw_strong(self, count: int, generator: torch.Generator, flip: bool, padding: int) -> Any:
        return draw(
            count,
            self.side or self.height,
            self.side or self.width,
            generator,
            flip=flip,
            padding=padding,
            operations=self.options.strong_operations,
            magnitude=self.options.strong_magnitude,
            probability=self.options.strong_probability,
        )

    def make(self, view: View, images: Tensor, batches: Sequence[Drawn]) -> Tensor:
        """Return a view of images, uint8 (N, C, H, W), each batch by its own draws.

        With ``strong_side``, every view has that side.
        """
        drawn = [join_draws(parts) for parts in zip(*batches, strict=True)]
        if view == "identity":
            return self._resize(images)
        if self.options.crop == "resized":
            height, width = self.side or self.height, self.side or self.width
            images = resize_parts(images, drawn[0], height=height, width=width)
        elif view == "weak" or self.side is not None:
            images = self._resize(crop(images, drawn[0]))
        else:
            return strong_from_draws(images, drawn[0], cutout=self.cutout)
        return images if view == "weak" else strong_from_draws(images, drawn[1], cutout=self.cutout)

    def _resize(self, images: Tensor) -> Tensor:
        if self.side is None or images.shape[2:] == (self.side, self.side):
            return images
        size = (self.side, self.side)
        pixels = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        return pixels.round_().clamp_(0, 255).to(torch.uint8)
