"""Rename the tensors of widely used weights to timm's names."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

_OUTSIDE = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
    "_fc": "classifier",
}  # fmt: skip
_WITHIN = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_WITHIN_UNEXPANDED = {**_WITHIN, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""For blocks that do not widen their input: they lack one convolution and one batch norm."""


def to_timm_names(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Rename tensors to a timm model's names; unknown tensors keep their names.

    Accepted are timm's own names, those that timm converts for this model (mostly of the weights'
    original repository, such as DINOv2 and ConvNeXt), and for EfficientNet and EfficientNet-Lite
    those of the package efficientnet-pytorch.
    """
    renamed = dict(tensors)
    if "_conv_stem.weight" in renamed and hasattr(model, "blocks"):
        return _from_efficientnet_pytorch(renamed, model)
    rename = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if rename is None or renamed.keys() >= {name for name, _ in model.named_parameters()}:
        return renamed
    try:
        return dict(rename(renamed, model))
    except (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError):
        return renamed  # loading reports what does not fit


def _from_efficientnet_pytorch(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    stages: list[nn.Module] = list(model.blocks)
    ends = list(accumulate(len(stage) for stage in stages))  # type: ignore[arg-type]

    def name_of(name: str) -> str:
        block = re.fullmatch(r"_blocks\.(\d+)\.(_[a-z_0-9]+)\.(.+)", name)
        if block is None:
            layer, _, rest = name.partition(".")
            return f"{_OUTSIDE.get(layer, layer)}.{rest}"
        number, layer, rest = int(block[1]), block[2], block[3]
        if number >= ends[-1]:
            return name
        stage = next(s for s, end in enumerate(ends) if number < end)
        within = number - (ends[stage - 1] if stage else 0)
        widened = f"_blocks.{number}._expand_conv.weight" in tensors
        names = _WITHIN if widened else _WITHIN_UNEXPANDED
        return f"blocks.{stage}.{within}.{names.get(layer, layer)}.{rest}"

    return {name_of(name): tensor for name, tensor in tensors.items()}
