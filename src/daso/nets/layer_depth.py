"""How deep in an encoder each parameter lies: for learning rates that fall from block to block."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from daso.errors import OptionError

_BLOCK = re.compile(r"(Layer|Block|Bottleneck|Residual)$")
"""What the classes of residual and transformer blocks are called, here, in transformers and in timm."""


def _blocks(module: nn.Module, within_list: bool = False) -> Iterator[nn.Module]:
    """Yield the outermost blocks that stand in lists or sequences, in order."""
    for child in module.children():
        if within_list and _BLOCK.search(type(child).__name__):
            yield child
        else:
            yield from _blocks(child, isinstance(child, nn.ModuleList | nn.Sequential))


def depths_from_top(encoder: nn.Module) -> dict[str, int]:
    """Return, for each parameter of an encoder, how many blocks lie between it and the heads, its own included.

    0 is what follows the last block, such as its norm; 1 is the last of n blocks, n the first one, n + 1 what comes
    before it, such as the patch embedding. What stands between two blocks goes with the one before it.

    Raises:
        OptionError: the encoder has no blocks that could be told.
    """
    blocks = list(_blocks(encoder, isinstance(encoder, nn.ModuleList | nn.Sequential)))
    if not blocks:
        raise OptionError(
            f"--layer-decay: the blocks of {type(encoder).__name__} cannot be told; leave it at 1, or use "
            f"--backbone-rate"
        )
    own = {id(p): number for number, block in enumerate(blocks, 1) for p in block.parameters()}
    names = [name for name, _ in encoder.named_parameters()]
    parameters = dict(encoder.named_parameters())
    first = next(n for n, name in enumerate(names) if id(parameters[name]) in own)
    last = max(n for n, name in enumerate(names) if id(parameters[name]) in own)
    depths: dict[str, int] = {}
    reached = 0
    for place, name in enumerate(names):
        if place > last:
            depths[name] = 0
            continue
        reached = own.get(id(parameters[name]), reached) if place >= first else 0
        depths[name] = len(blocks) + 1 - reached
    return depths
