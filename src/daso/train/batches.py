"""Batches: a pure function of the seed and the step, so a resumed run sees what an undisturbed one sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from daso import views
from daso.data.order import Order, WeightedOrder, derive_seed
from daso.data.store import Pool, TrainingData
from daso.errors import OptionError
from daso.methods.method import Batch, Method, View
from daso.plans.plan import Sampling
from daso.train.options import TrainOptions
from daso.views.geometry import move

Crop = Literal["pad", "resized"]


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


EFFECTIVE_NUMBER_BETA = 0.999


def sampling_weights(labels: Tensor, sampling: Sampling) -> Tensor:
    """Return how likely each labelled image is to be drawn, float64 (N,), up to a factor.

    ``"class-balanced"``: 1 / n_k, so that all classes are equally likely (Kang et al., ICLR 2020);
    ``"effective-number"``: (1 - beta) / (1 - beta^n_k) with beta = 0.999 (Cui et al., CVPR 2019), as the DASO
    authors' code samples; ``"uniform"``: 1.
    """
    counts = torch.bincount(labels).double()
    per_class = {
        "uniform": torch.ones_like(counts),
        "class-balanced": 1 / counts,
        "effective-number": (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**counts),
    }[sampling]
    return per_class[labels]


class Batches:
    """Draws the images of a step and puts them into the views that a method names.

    Args:
        data: the pools.
        method: names its views.
        options: batch size and seed.
        augmentation: of the views.

    Attributes:
        augmentation: of the views, defaults worked out.

    Raises:
        OptionError: the method learns from unlabelled images and there are none.
    """

    def __init__(
        self, data: TrainingData, method: Method, options: TrainOptions, augmentation: ViewOptions
    ) -> None:
        self.labeled, self.labeled_views = data.labeled, method.labeled_views
        self.unlabeled, self.unlabeled_views = data.unlabeled, method.unlabeled_views
        if self.unlabeled_views and data.unlabeled is None:
            raise OptionError(
                f"{type(method).__name__} learns from unlabelled images and the data has none: give some "
                f"(an unlabelled folder, --unlabeled-head) or use --method supervised"
            )
        self.device = data.labeled.images.device
        self.seed = options.seed
        side = min(data.labeled.images.shape[2:])
        padding = augmentation.crop_padding
        flip = data.flip if augmentation.flip is None else augmentation.flip
        padding = side // 8 if padding is None else padding
        if padding >= side:
            raise OptionError(f"crop_padding = {padding} must be less than the images' side, {side} pixels")
        # A cutout of 16 covers 17 pixels of 32, both borders included: the same share of any side.
        cutout = round(side * 17 / 32) - 1 if augmentation.cutout is None else augmentation.cutout
        self.augmentation = replace(augmentation, flip=flip, crop_padding=padding, cutout=cutout)
        strong = partial(
            views.strong,
            operations=augmentation.strong_operations,
            magnitude=augmentation.strong_magnitude,
            probability=augmentation.strong_probability,
            cutout=cutout,
        )
        self._make: dict[View, Callable[[Tensor, torch.Generator], Tensor]] = {
            "identity": lambda images, generator: images,
            "weak": partial(views.weak, flip=flip, padding=padding),
            "strong": partial(strong, flip=flip, padding=padding),
        }
        if augmentation.crop == "resized":
            weak = self._make["weak"] = partial(views.resized_crop, flip=flip)
            self._make["strong"] = lambda images, generator: strong(
                weak(images, generator), generator, flip=False, padding=0
            )
        self._draw = method.draw
        self.batch = options.batch
        self.unlabeled_batch = options.batch * (options.unlabeled_ratio or method.unlabeled_ratio)
        if options.labeled_sampling == "uniform":
            self._labeled_order: Callable[[int], Tensor] = Order(
                len(data.labeled), options.batch, options.seed, "labeled"
            )
        else:
            weights = sampling_weights(data.labeled.labels.cpu(), options.labeled_sampling)
            self._labeled_order = WeightedOrder(weights, options.batch, options.seed, "labeled")
        if data.unlabeled is not None:
            self._unlabeled_order = Order(
                len(data.unlabeled), self.unlabeled_batch, options.seed, "unlabeled"
            )

    def __call__(self, step: int) -> Batch:
        """Return the batch of step *step*, counted from 0."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "views", step))
        at = move(self._labeled_order(step), self.device)
        labeled = self._views(self.labeled, at, self.labeled_views, generator)
        labels = self.labeled.labels[at]
        unlabeled: tuple[Tensor, ...] = ()
        indices = at[:0]
        if self.unlabeled_views and self.unlabeled is not None:
            indices = move(self._unlabeled_order(step), self.device)
            unlabeled = self._views(self.unlabeled, indices, self.unlabeled_views, generator)
        chance = torch.Generator().manual_seed(derive_seed(self.seed, "draws", step))
        drawn = self._draw(len(labels), len(indices), chance)
        draws = {name: move(value, self.device) for name, value in drawn.items()}
        return Batch(labeled, labels, unlabeled, indices, move(torch.tensor(step), self.device), draws)

    def _views(
        self, pool: Pool, at: Tensor, names: tuple[View, ...], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        images = pool.images[at]
        return tuple(self._make[name](images, generator) for name in names)
