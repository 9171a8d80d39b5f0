"""The side at which a pretrained encoder sees images that are smaller than what it was trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from daso.nets.pretrained.huggingface import transformers_side
from daso.nets.pretrained.timm_models import timm_side
from daso.train.options import TrainOptions

ENLARGED = 4
"""Times the images' own side: measured in docs/backbones.md."""


class Resolution(NamedTuple):
    """A side in pixels, chosen, and the encoder's own."""

    chosen: int
    own: int


def choose_resolution(options: TrainOptions, side: int) -> Resolution | None:
    """Return the side, less than the encoder's own, at which it sees images of *side* pixels where time is short.

    None: its own; that is four times the images' side or less, is given, or nothing is known of the encoder, or it
    takes images of no other side.

    Args:
        options: ``network``, ``weights`` and ``resolution``.
        side: the longer one of the images, in pixels.

    Raises:
        DasoError: the encoder is looked up where it will be loaded from, with the same errors.
    """
    name = options.network or ""
    if options.resolution is not None:
        return None
    folder = Path(name).expanduser()
    if name.startswith("timm:"):
        found = timm_side(name.removeprefix("timm:"))
    elif name.startswith("hf:"):
        found = transformers_side(name.removeprefix("hf:"), None)
    elif "/" in name or folder.is_dir():
        found = transformers_side(name, folder)
    else:
        return None
    if found is None:
        return None
    own, multiple = found
    chosen = multiple * math.ceil(ENLARGED * side / multiple)
    return Resolution(chosen, own) if chosen < own else None
