"""Choose the side at which a pretrained encoder sees images smaller than its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from daso.nets.pretrained.huggingface import transformers_side
from daso.nets.pretrained.timm_models import timm_side
from daso.train.encoder.pretrained import is_folder
from daso.train.options import TrainOptions

ENLARGED = 4
"""Factor by which images are enlarged; docs/backbones.md has the measurements."""


class Resolution(NamedTuple):
    """A chosen side and the encoder's own side, in pixels."""

    chosen: int
    own: int


def choose_resolution(options: TrainOptions, side: int) -> Resolution | None:
    """Return a side, smaller than the encoder's own, that saves time on small images.

    Returns None if the encoder's own side is at most four times *side*, that of the images, a
    resolution is given, the encoder is unknown, or it accepts no other side.
    """
    name = options.network or ""
    if options.resolution is not None:
        return None
    if name.startswith("timm:"):
        sides = timm_side(name.removeprefix("timm:"))
    elif name.startswith("hf:"):
        sides = transformers_side(name.removeprefix("hf:"), None)
    elif is_folder(name):
        sides = transformers_side(name, Path(name).expanduser())
    else:
        return None
    if sides is None:
        return None
    own, multiple = sides
    chosen = multiple * math.ceil(ENLARGED * side / multiple)
    return Resolution(chosen, own) if chosen < own else None
