"""Train one network in several processes, which share the computation of features.

Every process draws the same batch, computes the features of every size-th image, and receives the
others. Heads, losses, refiners and records then see the global batch in every process. An encoder's
gradients are sums over a share of the images and are summed over the processes; those of the heads
are whole already. Batch norms take their statistics from the global batch.

Batch, learning rate and number of steps therefore mean the same for any number of processes, and
all processes have the same state.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.nn  # before any group: its default arguments would keep the group
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from daso.errors import DasoError, RunError

Result = TypeVar("Result")


class TeamError(RunError):
    """An error in one process, or between two, that all processes know."""


@dataclass
class Processes:
    """This process among those of the default group of ``torch.distributed``.

    Attributes:
        leads: whether this process is the first on its machine.
        patient: group of all processes with a timeout of days, for reading and embedding images;
            None: the default group.
    """

    rank: int
    size: int
    leads: bool = True
    patient: dist.ProcessGroup | None = None

    def leave(self) -> None:
        """Leave the groups and end their threads, which could abort the interpreter at exit."""
        self.patient = None
        dist.destroy_process_group()

    def __deepcopy__(self, memo: dict[int, Any]) -> Processes:
        """Return self: a copied network is computed by the same processes."""
        return self

    def share(self, rows: Tensor) -> Tensor:
        """Return this process's share: every size-th row; rows repeat so that shares are equal."""
        count = len(rows)
        if count % self.size == 0:
            return rows[self.rank :: self.size]
        padded = -(-count // self.size) * self.size
        return rows[torch.arange(self.rank, padded, self.size, device=rows.device) % count]

    def gather(self, share: Tensor, count: int) -> Tensor:
        """Return all *count* rows, float (count, D), with their gradient."""
        return cast(Tensor, _Gather.apply(share, count, self.rank, self.size))  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in gradients]
        parts = [p.view_as(g) for p, g in zip(torch.split(flat, sizes), gradients, strict=True)]
        torch._foreach_copy_(gradients, parts)

    def any(self, flag: bool) -> bool:
        number = torch.tensor(int(flag))  # on the host: no process waits for an accelerator
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return bool(number)

    def tell(self, value: Any) -> list[tuple[str, Any]]:
        """Exchange picklable values: return the machine and the value of each process.

        Raises:
            TeamError: a process called ``fail`` instead.
        """
        return self._exchange(value, None)

    def fail(self, error: Exception) -> NoReturn:
        """Report a failure to processes that call ``tell`` or ``fail``.

        Raises:
            TeamError: always; its cause is *error* if all failed alike.
        """
        self._exchange(None, error)
        raise AssertionError

    def _exchange(self, value: Any, error: Exception | None) -> list[tuple[str, Any]]:
        said = (
            str(error)
            if error is None or isinstance(error, DasoError)
            else f"{type(error).__name__}: {error}"
        )
        answers: list[Any] = [None] * self.size
        mine = (platform.node(), value, None if error is None else said)
        dist.all_gather_object(answers, mine, self.patient)
        if error is not None and all(message == said for _, _, message in answers):
            raise TeamError(said) from error
        for rank, (host, _, message) in enumerate(answers):
            if message is not None:
                raise TeamError(f"process {rank} on {host}: {message}")
        return [(host, told) for host, told, _ in answers]

    def in_turn(self, work: Callable[[], Result]) -> Result:
        """Run work in turn, so that later processes can use results on disk.

        The first process goes first, then the first of every other machine, then the rest.

        Raises:
            TeamError: another process failed meanwhile.
        """
        own = 0 if self.rank == 0 else 1 if self.leads else 2
        results = []
        for turn in range(3):
            if turn == own:
                results.append(work())
            self.tell(None)
        return results[0]

    @torch.no_grad()
    def align(self, tensors: Iterable[Tensor]) -> None:
        """Copy the first process's numbers to all processes.

        They agree already unless an accelerator sums in varying order; then tensors that every
        process computes for itself, such as heads, would drift apart over a long training.
        """
        for tensor in tensors:
            if tensor.numel():
                first = tensor.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(first.flatten().view(torch.uint8), 0)
                if not torch.equal(first, tensor):  # tables on disk are written only if needed
                    tensor.copy_(first)


@torch.library.custom_op("daso::gather", mutates_args=())
def _gather(own: Tensor, size: int) -> Tensor:
    """Gather a tensor of each process, (size, ...); custom operators are opaque to the compiler."""
    all_of_them = own.new_empty((size, *own.shape))
    dist.all_gather(list(all_of_them.unbind()), own.contiguous())
    return all_of_them


@_gather.register_fake
def _(own: Tensor, size: int) -> Tensor:
    return own.new_empty((size, *own.shape))


@torch.library.custom_op("daso::total", mutates_args=())
def _total(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@_total.register_fake
def _(own: Tensor) -> Tensor:
    return torch.empty_like(own, memory_format=torch.contiguous_format)


class _Gather(torch.autograd.Function):
    """Gathers rows; every process computes the same loss, so its own gradient is whole."""

    @staticmethod
    def forward(context: Any, share: Tensor, count: int, rank: int, size: int) -> Tensor:
        context.rank, context.size, context.rows = rank, size, len(share)
        rows: Tensor = _gather(share, size).transpose(0, 1).flatten(0, 1)
        return rows[:count]

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        own = gradient[context.rank :: context.size]
        missing = context.rows - len(own)
        own = torch.cat([own, own.new_zeros(missing, own.shape[1])]) if missing else own
        return own, None, None, None


class SharedBatchNorm(_BatchNorm):
    """Batch norm of any number of dimensions with the statistics of the global batch.

    ``torch.nn.SyncBatchNorm`` is for CUDA devices only and cannot be compiled.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Accept any shape (B, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        weight = (
            torch.ones(self.num_features, device=x.device) if self.weight is None else self.weight
        )
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        y, mean, variance, count = _Normalize.apply(x, weight, bias, self.eps)  # type: ignore[no-untyped-call]
        running_mean, running_var = self.running_mean, self.running_var
        steps = self.num_batches_tracked
        if running_mean is not None and running_var is not None and steps is not None:
            with torch.no_grad():
                steps.add_(1)
                share = 1 / steps if self.momentum is None else self.momentum
                running_mean.lerp_(mean, share)
                running_var.lerp_(variance * (count / (count - 1)), share)
        return cast(Tensor, y)


class _Normalize(torch.autograd.Function):
    """Normalization of ``SharedBatchNorm``; also returns mean, variance and number of values."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        mean, variance = torch.ops.aten.batch_norm_update_stats(x.float(), None, None, 0.0)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / len(mean)])])
        parts = _gather(own, dist.get_world_size())
        means, variances, counts = torch.split(parts, [len(mean), len(mean), 1], 1)
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
        # First with fixed statistics; then their part, per channel a number and a multiple of x.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, context.eps, [True, True, True]
        )
        sums = _total(torch.stack([to_bias, to_weight]))
        scale = (variance + context.eps).rsqrt()
        slope = weight * scale.square() * sums[1] / count
        offset = weight * scale * sums[0] / count - slope * mean
        shape = [1, -1, *[1] * (x.dim() - 2)]
        through = torch.addcmul(offset.view(shape), x, slope.view(shape))
        return direct.sub_(through.to(direct.dtype)), to_weight, to_bias, None


def share_batch_norms(module: nn.Module, *, compiled: bool = False) -> None:
    """Make every batch norm take its statistics from all processes.

    *module* is changed in place; its parameters stay the same objects. *compiled* says whether it
    will be compiled.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(
            child, SharedBatchNorm | nn.SyncBatchNorm
        ):
            of_torch = child.weight is not None and child.weight.is_cuda and not compiled
            kind = nn.SyncBatchNorm if of_torch else SharedBatchNorm
            shared = kind(child.num_features, child.eps, child.momentum)
            for attribute in (
                "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
            ):  # fmt: skip
                setattr(shared, attribute, getattr(child, attribute))
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child, compiled=compiled)
