"""A training step recorded as a CUDA graph: one call starts hundreds of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from daso.errors import OptionError, named
from daso.methods.method import Batch, Method
from daso.parts import Part

Result = TypeVar("Result")

WARM_UP_STEPS = 3
"""Steps before the recording, which create the optimizer's state."""


def check_recordable(method: Method, device: torch.device, shared: bool) -> None:
    """Raise an ``OptionError`` if steps differ in their work or the device cannot record them."""
    parts = {type(part) for part in method.modules() if isinstance(part, Part)}
    uneven = sorted(part.__name__ for part in parts if part.begin_step is not Part.begin_step)
    reason = None
    if device.type != "cuda":
        reason = f"needs a CUDA device, this training is on {device.type}"
    elif shared:
        reason = "needs a training in one process"
    elif uneven:
        reason = f"needs equal steps, {uneven[0]} does more in some steps than in others"
    if reason is not None:
        raise OptionError(f"{named('cuda_graph')} {reason}; leave it out")


class RecordedStep(Generic[Result]):
    """A function of a batch, recorded once and then replayed for each new batch.

    A replay reads and writes fixed addresses. The batch is copied into the recorded one, and the
    result is the same tensors every time, valid until the next call. Other inputs must be tensors
    that are changed in place; Python numbers keep their recorded values.

    Args:
        step: function that never reads a tensor's values on the host.
    """

    def __init__(self, step: Callable[[Batch], Result]) -> None:
        self._step = step
        self._calls = 0
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Result:
        """Return the result for a batch, whose shapes must not change."""
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
        # On the stream of the recording, which must not wait for the default stream.
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
        # Other threads may copy images to the device meanwhile.
        with torch.cuda.graph(graph, stream=self._aside, capture_error_mode="thread_local"):
            self._result = self._step(inputs)
        self._graph = graph
