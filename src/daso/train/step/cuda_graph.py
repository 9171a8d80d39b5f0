"""A training step recorded as a CUDA graph: hundreds of kernels started by one call, not one by one from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from daso.errors import OptionError
from daso.methods.method import Batch, Method
from daso.parts import Part

Result = TypeVar("Result")

WARM_UP_STEPS = 3
"""Steps that run one kernel after the other first: they make the optimiser's state, and whatever is made only once."""


def check_recordable(method: Method, device: torch.device, shared: bool) -> None:
    """Make sure that every step of a training does the same work, on a device that can record it.

    Raises:
        OptionError: it cannot; the message says why.
    """
    reason = None
    if device.type != "cuda":
        reason = f"records steps on a CUDA device, and this training is on {device.type}"
    elif shared:
        reason = "is for a training in one process"
    else:
        for part in method.modules():
            if isinstance(part, Part) and type(part).begin_step is not Part.begin_step:
                reason = f"records one step for all, and {type(part).__name__} does more in some steps than in others"
    if reason is not None:
        raise OptionError(f"--cuda-graph {reason}: leave it out")


class RecordedStep(Generic[Result]):
    """A function of a batch that is recorded once and then replayed, on the numbers of each new batch.

    What a replay reads and writes has a fixed address: the batch is copied into the recorded one, and the result is the
    same tensors every time, with new numbers: it counts until the next call. Whatever else the function reads must be
    tensors that are changed in place; Python numbers are as they were when it was recorded.

    Args:
        step: does not look at a tensor's values from the host.
    """

    def __init__(self, step: Callable[[Batch], Result]) -> None:
        self._step = step
        self._calls = 0
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Result:
        """Return the result for a batch, of the same shapes every time."""
        self._calls += 1
        if self._calls <= WARM_UP_STEPS:
            return self._warm_up(batch)
        if self._graph is None:
            self._record(batch)
        assert self._graph is not None
        torch._foreach_copy_(self._inputs, tree_leaves(batch))
        self._graph.replay()
        return self._result

    def _warm_up(self, batch: Batch) -> Result:
        # As a recording does, not on the default stream, whose work a recording may not wait for.
        current = torch.cuda.current_stream()
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            result = self._step(batch)
        current.wait_stream(self._aside)
        return result

    def _record(self, batch: Batch) -> None:
        inputs = cast(Batch, tree_map_only(Tensor, torch.clone, batch))
        self._inputs: list[Tensor] = tree_leaves(inputs)
        graph = torch.cuda.CUDAGraph()
        # Other threads may read images, and copy them to the device, meanwhile.
        with torch.cuda.graph(graph, stream=self._aside, capture_error_mode="thread_local"):
            self._result = self._step(inputs)
        self._graph = graph
