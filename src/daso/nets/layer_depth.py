"""Find the depth of each parameter in an encoder, for learning rates that decay by block."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from daso.errors import OptionError

_BLOCK = re.compile(r"(Layer|Block|Bottleneck|Residual)$")
"""Class names of residual and transformer blocks, in daso, transformers and timm."""


def _blocks(module: nn.Module, within_list: bool = False) -> Iterator[nn.Module]:
    for child in module.children():
        if within_list and _BLOCK.search(type(child).__name__):
            yield child
        else:
            yield from _blocks(child, isinstance(child, nn.ModuleList | nn.Sequential))


def depths_from_top(encoder: nn.Module) -> dict[str, int]:
    """Count the blocks from each parameter to the heads, including its own block.

    Parameters after the last block, such as a norm, have depth 0; the last of n blocks has 1, the
    first n, and parameters before it, such as the patch embedding, n + 1. Parameters between two
    blocks belong to the earlier one.

    Raises:
        OptionError: the encoder has no recognizable blocks.
    """
    blocks = list(_blocks(encoder, isinstance(encoder, nn.ModuleList | nn.Sequential)))
    if not blocks:
        raise OptionError(
            f"--layer-decay: {type(encoder).__name__} has no recognizable blocks; leave it at 1, "
            "or use --backbone-rate"
        )
    own = {id(p): number for number, block in enumerate(blocks, 1) for p in block.parameters()}
    numbers = [(name, own.get(id(p))) for name, p in encoder.named_parameters()]
    last = max(place for place, (_, number) in enumerate(numbers) if number)
    depths: dict[str, int] = {}
    reached = 0
    for place, (name, number) in enumerate(numbers):
        reached = number or reached
        depths[name] = 0 if place > last else len(blocks) + 1 - reached
    return depths
