"""The options of the views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from daso.errors import OptionError

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
    strong_side: int | None = None
    """Side in pixels to which views are resized right after the crop, so that the operations and the cutout of strong
    ones work at it; goes with --resolution (default: they are resized on their way into the network; stl10 with
    remixmatch: 32, as its authors have it)."""

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("crop", self.crop, self.crop in get_args(Crop)),
            (
                "crop_padding",
                self.crop_padding,
                self.crop_padding is None or self.crop_padding >= 0,
            ),
            ("strong_operations", self.strong_operations, self.strong_operations >= 0),
            ("strong_magnitude", self.strong_magnitude, 2 <= self.strong_magnitude <= 10),
            ("strong_probability", self.strong_probability, 0 <= self.strong_probability <= 1),
            ("cutout", self.cutout, self.cutout is None or self.cutout >= 0),
            ("strong_side", self.strong_side, self.strong_side is None or self.strong_side >= 8),
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
