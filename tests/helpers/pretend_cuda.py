"""A pretended CUDA device: tensors on the host that claim to be on it, and errors for a GPU's mistakes.

Within ``pretend_cuda()``, everything computes as on the CPU, with the same numbers, but

* tensors created on, or moved to, ``"cuda"`` report that device, and so do results computed from them;
* computing with tensors of both devices is an error, as on a GPU;
* within ``step()``, reading a tensor of the device on the host, which would wait for the GPU, is an error,
  and so is copying to it from memory that is not pinned, which may wait;
* a CUDA graph is a list of operations that is replayed on the same tensors. Recording changes no existing
  tensor, as on a GPU, so the graph keeps the recorded values of everything a step takes from Python.

Only calls from Python are seen, which is where such mistakes are made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from daso.refine import darp

CUDA = torch.device("cuda", 0)
READS = {
    "item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__", "__complex__",
    "__array__", "__contains__", "__format__", "__repr__", "__reduce_ex__", "equal", "allclose",
    "is_nonzero", "nonzero", "argwhere", "unique", "unique_consecutive", "_unique2",
    "masked_select", "bincount",
}  # fmt: skip
"""Functions whose result depends, in value or in shape, on numbers that only the device has."""
FROM_HOST = {"tensor", "as_tensor", "new_tensor"}
OF_BOTH = {"_has_compatible_shallow_copy_type"}
"""Functions that may be given tensors of both devices."""


class DeviceMistakeError(AssertionError):
    """Something that fails, or waits, on a GPU."""


def is_on_device(tensor: Tensor) -> bool:
    return tensor.__dict__.get("_place") == "cuda"


def _mark(value: Any, place: str = "cuda") -> Any:
    for tensor in tree_leaves(value):
        if isinstance(tensor, Tensor):
            tensor.__dict__["_place"] = place
    return value


def _names_cuda(value: Any) -> bool:
    return isinstance(value, str | torch.device) and str(value).startswith("cuda")


class PretendCuda(TorchFunctionMode):
    """Watches calls of torch.

    Attributes:
        reads: how often the host has waited for the device.
        graphs: that have been recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._within_step = False
        self.reads = 0
        self.graphs: list[PretendGraph] = []

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Let nothing look at the device, or make it wait."""
        self._within_step = True
        try:
            yield
        finally:
            self._within_step = False

    @contextlib.contextmanager
    def record(
        self, graph: PretendGraph, stream: object, capture_error_mode: str
    ) -> Iterator[None]:
        """Record what is computed."""
        if capture_error_mode != "thread_local":
            raise DeviceMistakeError(
                "a thread that copies images to the device meanwhile would break the recording"
            )
        self.graphs.append(graph)
        with self.step(), graph:
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            return self._attribute(func, name, args)
        if (
            str(func) == "daso.darp.default"
        ):  # an operator written in Python: what it does counts as well
            with self:
                return darp.refine._init_fn(*args, **kwargs)
        if name == "pin_memory":
            return _mark(args[0].clone(), "pinned")
        if name in ("to", "cuda"):
            return self._to(*args, **({"device": CUDA} if name == "cuda" else {}), **kwargs)

        indexing = name in ("__getitem__", "__setitem__")
        if indexing:
            self._check_index(name, args)
        tensors = [
            value
            for value in tree_leaves((args[0], args[2:]) if indexing else (args, kwargs))
            if isinstance(value, Tensor)
        ]
        inside = [tensor for tensor in tensors if is_on_device(tensor)]
        wanted = _names_cuda(kwargs.get("device"))
        if inside and name in READS:
            self._waits(name)
        if wanted and name in FROM_HOST:
            self._waits(name)
        if name == "copy_" and len(inside) == 1:
            self._waits(name)
        elif inside and len(inside) < len(tensors) and name not in OF_BOTH:
            raise DeviceMistakeError(
                f"{name}: some of its tensors are on the device, some on the host"
            )
        if (inside or wanted) and isinstance(kwargs.get("generator"), torch.Generator):
            raise DeviceMistakeError(f"{name}: a generator of the host draws on the device")
        stays = wanted or (inside and kwargs.get("device") is None and name != "cpu")
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        result = func(*args, **kwargs)
        if name == "cpu" and inside:
            result = result.clone()
        return _mark(result) if stays else result

    def _waits(self, why: str) -> None:
        self.reads += 1
        if self._within_step:
            raise DeviceMistakeError(f"within a step host and device wait for each other: {why}")

    def _attribute(self, func: Any, name: str, args: Any) -> Any:
        inside = isinstance(args[0], Tensor) and is_on_device(args[0])
        if name == "__get__":
            if func.__self__ is Tensor.device:
                return CUDA if inside else torch.device("cpu")
            if func.__self__ is Tensor.is_cuda:
                return inside
            result = func(*args)
            return _mark(result) if inside else result
        if isinstance(args[1], Tensor) and is_on_device(args[1]):
            _mark(args[0])
        return func(*args)

    def _check_index(self, name: str, args: Any) -> None:
        on_device, index = is_on_device(args[0]), args[1]
        for part in index if isinstance(index, tuple) else (index,):
            given = isinstance(part, list | np.ndarray | Tensor)
            inside = isinstance(part, Tensor) and is_on_device(part)
            if inside and not on_device:
                raise DeviceMistakeError(
                    "an index is on the device, and what it indexes on the host"
                )
            if on_device and given and not inside:  # is copied to the device
                self._waits("an index of the host")
            elif inside and part.dtype is torch.bool and not self._fills(args):
                self._waits("a mask as index")

    @staticmethod
    def _fills(args: Any) -> bool:
        """Tell whether an item is set to one number, for which nobody asks how many the mask chooses."""
        return len(args) == 3 and not (isinstance(args[2], Tensor) and args[2].dim())

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        place, rest = kwargs.pop("device", None), []
        for value in args:
            if isinstance(value, Tensor):
                place, rest = CUDA if is_on_device(value) else "cpu", [*rest, value.dtype]
            elif isinstance(value, str | torch.device):
                place = value
            elif value is not None:
                rest.append(value)
        waits = not kwargs.pop("non_blocking", bool(rest) and rest[-1] is True)
        from_device = is_on_device(tensor)
        to_device = from_device if place is None else _names_cuda(place)
        if from_device and not to_device:
            self._waits("to")
        if to_device and not from_device and (waits or tensor.__dict__.get("_place") != "pinned"):
            self._waits("to, from memory that is not pinned or without non_blocking")
        rest = [value for value in rest if not isinstance(value, bool)]
        result = tensor.to(*rest, **kwargs) if rest or kwargs else tensor
        if from_device != to_device and result is tensor:
            result = tensor.clone()
        return result if result is tensor else _mark(result, "cuda" if to_device else "host")


class PretendGraph(TorchDispatchMode):
    """Operations on tensors, in order, to be played again on the same tensors.

    Attributes:
        played: how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.played = 0
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage._cdata not in self._made | self._before.keys():
                self._before[storage._cdata] = storage, storage.clone()
        result = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, result))
        self._made |= {storage._cdata for storage in _storages(result)} - self._before.keys()
        return result

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)
        for storage, content in self._before.values():
            storage.copy_(content)
        self._before.clear()

    def replay(self) -> None:
        self.played += 1
        with torch.no_grad(), torch._C.DisableTorchFunction():
            for func, args, kwargs, results in self._calls:
                aliases = [value.alias_info for value in func._schema.returns]
                if any(alias is not None and not alias.is_write for alias in aliases):
                    continue  # a view of what has been computed again
                again = func(*args, **kwargs)
                if not any(aliases):
                    for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                        if isinstance(old, Tensor):
                            old.copy_(new)


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor))


@contextlib.contextmanager
def pretend_cuda() -> Iterator[PretendCuda]:
    """Let there be a CUDA device."""
    device, stream = PretendCuda(), mock.MagicMock()
    deepcopy, autocast = nn.Parameter.__deepcopy__, torch.autocast
    group = torch.optim.Optimizer._group_tensors_by_device_and_dtype

    def copied(parameter: nn.Parameter, memo: dict[int, Any]) -> Any:
        result = deepcopy(parameter, memo)
        return _mark(result) if is_on_device(parameter) else result

    def on_host(device_type: str, *arguments: Any, **options: Any) -> Any:
        if device_type != "cuda" and options.get("enabled", True):
            raise DeviceMistakeError(f"autocast for {device_type}")
        return autocast("cpu", *arguments, **options)

    def grouped(
        *arguments: Any, **options: Any
    ) -> Any:  # asks tensors where they are, not by way of Python
        return {(CUDA, kind): rest for (_, kind), rest in group(*arguments, **options).items()}

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (nn.Parameter, "__deepcopy__", copied),
        (torch, "autocast", on_host),
        (torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped)),
        (torch.cuda, "get_device_name", lambda device=None: "pretended"),
        (torch.cuda, "get_rng_state", lambda device=None: torch.zeros(0)),
        (torch.cuda, "set_rng_state", lambda state, device=None: None),
        (torch.cuda, "mem_get_info", lambda device=None: (2**36, 2**36)),
        (torch.cuda, "Stream", lambda *_: stream),
        (torch.cuda, "current_stream", lambda *_: stream),
        (torch.cuda, "stream", lambda _: contextlib.nullcontext()),
        (torch.cuda, "CUDAGraph", PretendGraph),
        (torch.cuda, "graph", device.record),
    ]
    with contextlib.ExitStack() as patches:
        for owner, name, replacement in replaced:
            patches.enter_context(mock.patch.object(owner, name, replacement))
        with device:
            yield device
