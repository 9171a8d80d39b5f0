"""The options of the views."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from daso.constraints import check_options
from daso.errors import Range

Crop = Literal["pad", "resized"]


@dataclass(frozen=True)
class ViewOptions:
    """Views of images: RandAugment(2, 10), each operation with probability 0.5, and cutout."""

    flip: bool | None = None
    """Mirror images at random (default: unless the classes forbid it, as digits do)."""
    crop: Crop = "pad"
    """Random crop of weak views and, before RandAugment, of strong ones. pad: of the image's size,
    out of the image with reflected pixels around it; resized: 8% to 100% of the image's area,
    resized to its size."""
    crop_padding: Annotated[int, Range(0)] | None = None
    """With --crop pad: reflected pixels around an image (default: an eighth of the side; stl10:
    4)."""
    strong_operations: Annotated[int, Range(0)] = 2
    """Operations drawn for each strong view."""
    strong_magnitude: Annotated[int, Range(2, 10)] = 10
    """Operation levels are 1 to this number less 1."""
    strong_probability: Annotated[float, Range(0, 1)] = 0.5
    """Probability that a drawn operation is applied."""
    cutout: Annotated[int, Range(0)] | None = None
    """Side in pixels of the gray square of strong views; 0: none (default: 16 at 32 pixels and in
    proportion; 16 for stl10)."""
    strong_side: Annotated[int, Range(8)] | None = None
    """With --resolution: side in pixels to which views are resized right after the crop, so that
    the operations and the cutout of strong views work at it (default: views are resized before the
    network; stl10 with remixmatch: 32, as its authors do)."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class VectorViewOptions:
    """How feature vectors are augmented; noise is in standard deviations of each dimension."""

    weak_noise: Annotated[float, Range(0)] = 0.3
    """Noise added to weak views of vectors."""
    strong_noise: Annotated[float, Range(0)] = 0.5
    """Noise added to strong views of vectors."""
    strong_mask: Annotated[float, Range(0, 1, below=True)] = 0.2
    """Probability that a dimension of a strong view is replaced by its mean."""
    strong_mix: Annotated[float, Range(0, 0.5)] = 0.2
    """Largest share of another vector of the batch in a strong view."""

    def __post_init__(self) -> None:
        check_options(self)
