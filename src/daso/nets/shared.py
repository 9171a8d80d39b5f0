"""One network over several processes: each computes its share of a batch's features, and all get all of them.

Every process draws the same batch, computes the features of every size-th image of it, and receives those of the
others; heads, losses, refiners and records then see the global batch in every process, as they do in one. What an
encoder's parameters get of the gradient are sums over a share of the images, to be summed over the processes; what the
heads get is whole already. Batch norms take their statistics from the global batch.

So the batch, the learning rate and the number of steps mean the same on any number of processes, and the state of the
training is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Processes:
    """This process among those of the default group of ``torch.distributed``.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
    """

    rank: int
    size: int

    @classmethod
    def of_group(cls) -> Processes:
        """Return this process's place in the default group, which must have been made."""
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, rows: Tensor) -> Tensor:
        """Return every size-th row from this process's first; as many in all processes, some twice if need be."""
        count = len(rows)
        if count % self.size == 0:
            return rows[self.rank :: self.size]
        padded = -(-count // self.size) * self.size
        return rows[torch.arange(self.rank, padded, self.size, device=rows.device) % count]

    def gather(self, share: Tensor, count: int) -> Tensor:
        """Return the *count* rows of which every process has its share, float (count, D), with their gradient."""
        return cast(Tensor, _Gather.apply(share, count, self))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of parameters over the processes."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        parts = [p.view_as(g) for p, g in zip(torch.split(flat, sizes), gradients, strict=True)]
        torch._foreach_copy_(gradients, parts)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        number = torch.tensor(int(flag))  # on the host: nobody waits for an accelerator
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return bool(number)

    @torch.no_grad()
    def differ(self, tensors: Iterable[Tensor]) -> bool:
        """Tell whether any process has other numbers in its tensors than the first one."""
        sums = torch.stack([tensor.double().sum() for tensor in tensors])
        lowest, highest = sums.clone(), sums.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return not torch.equal(lowest, highest)


class _Gather(torch.autograd.Function):
    """Rows of all processes; every process computes the same loss of them, so its share of the gradient is whole."""

    @staticmethod
    def forward(context: Any, share: Tensor, count: int, processes: Processes) -> Tensor:
        context.processes, context.rows = processes, len(share)
        parts = [
            torch.empty_like(share, memory_format=torch.contiguous_format) for _ in range(processes.size)
        ]
        dist.all_gather(parts, share.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)[:count]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        processes: Processes = context.processes
        own = gradient[processes.rank :: processes.size]
        missing = context.rows - len(own)
        return (torch.cat([own, own.new_zeros(missing, own.shape[1])]) if missing else own), None, None


class SharedBatchNorm(_BatchNorm):
    """Batch norm, of any number of dimensions, by the statistics of the batches of all processes together.

    ``torch.nn.SyncBatchNorm`` is the same for CUDA devices only.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Accept any shape (B, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, float (B, C, ...), in training by the statistics of all processes' x."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        y, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, cast(float, self.momentum))
            self.running_var.lerp_(variance * (count / (count - 1)), cast(float, self.momentum))
        return cast(Tensor, y)


class _Normalize(torch.autograd.Function):
    """The normalisation of ``SharedBatchNorm``; returns the mean, the variance and the number of values too."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean, variance = torch.ops.aten.batch_norm_update_stats(x.float(), None, None, 0.0)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / len(mean)])])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        means, variances, counts = torch.split(torch.stack(parts), [len(mean), len(mean), 1], 1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        context.eps = eps
        context.save_for_backward(x, weight, mean, variance, count)
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance, count = context.saved_tensors
        # As if the statistics were given; then what goes through them, per channel a number and a multiple of x.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, context.eps, [True, True, True]
        )
        sums = torch.stack([to_bias, to_weight])
        dist.all_reduce(sums)
        scale = (variance + context.eps).rsqrt()
        slope = weight * scale.square() * sums[1] / count
        offset = weight * scale * sums[0] / count - slope * mean
        shape = [1, -1, *[1] * (x.dim() - 2)]
        through = torch.addcmul(offset.view(shape), x, slope.view(shape))
        return direct.sub_(through.to(direct.dtype)), to_weight, to_bias, None


def share_batch_norms(module: nn.Module) -> None:
    """Let every batch norm within a module take its statistics from all processes; parameters stay the same objects."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SharedBatchNorm | nn.SyncBatchNorm):
            kind = nn.SyncBatchNorm if child.weight is not None and child.weight.is_cuda else SharedBatchNorm
            shared = kind(child.num_features, child.eps, child.momentum)
            for attribute in ("weight", "bias"):
                setattr(shared, attribute, getattr(child, attribute))
            for attribute in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(shared, attribute, getattr(child, attribute))
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)
