"""Compute activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from daso.errors import OptionError, named

Result = TypeVar("Result")
Activation = Callable[[Tensor], Tensor]


class Recomputing(nn.Module):
    """A part of a network that can drop activated batch norms and compute them again.

    A convolution needs its input for the gradient of its weights, and the activation needs its
    output: one tensor, as large as the input of the batch norm. That input is kept anyway, and
    element-wise operations restore the tensor from it.

    Attributes:
        recompute: whether activations are computed again; the results are equal bit for bit.
    """

    recompute = False

    def through(
        self, norm: nn.Module, activate: Activation, x: Tensor, use: Callable[[Tensor], Result]
    ) -> Result:
        """Return ``use(activate(norm(x)))``; *x* must not change later.

        Only the activations of batch norms are computed again.
        """
        y = norm(x)
        learns = self.training and torch.is_grad_enabled()
        if not (self.recompute and learns and type(norm) is nn.BatchNorm2d):
            return use(activate(y))
        again = _Again(norm, activate, x.detach())
        place = y.data_ptr()

        def pack(tensor: Tensor) -> Tensor | _Again:
            if tensor.data_ptr() != place or tensor.shape != x.shape:
                return tensor
            again.users += 1
            return again

        with saved_tensors_hooks(pack, _unpack):
            return use(activate(y))


def _unpack(kept: Tensor | _Again) -> Tensor:
    return kept.take() if isinstance(kept, _Again) else kept


class _Again:
    """An activated batch norm: computed at its first use, dropped after its last one.

    Attributes:
        users: number of uses in one backward pass.
    """

    def __init__(self, norm: nn.BatchNorm2d, activate: Activation, x: Tensor) -> None:
        self.norm, self.activate, self.x = norm, activate, x
        self.users = self.taken = 0
        self.value: Tensor | None = None

    @torch.no_grad()
    def take(self) -> Tensor:
        if self.value is None:
            # By the statistics of x again: the running ones have moved already.
            norm, x = self.norm, self.x
            y = F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            self.value = self.activate(y)
        value = self.value
        self.taken += 1
        if self.taken % self.users == 0:
            self.value = None
        return value


def recompute_activations(encoder: nn.Module) -> None:
    """Make an encoder compute activations again; an ``OptionError`` if no part supports it."""
    parts = [part for part in encoder.modules() if isinstance(part, Recomputing)]
    if not parts:
        raise OptionError(
            f"{named('recompute')} is for wrn-DEPTH-WIDTH, resnet18, resnet34, resnet50 and small, "
            f"not for {type(encoder).__name__}; leave it out"
        )
    for part in parts:
        part.recompute = True
