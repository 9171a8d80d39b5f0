"""Compute a frozen encoder's features on a CPU faster than operation by operation."""

from __future__ import annotations

import itertools
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from daso.nets.encoders import Encoder
from daso.nets.network import Network

WORTHWHILE = 2**26
"""Pixels of all passes from which on preparations of seconds pay: 1,300 images of 224."""
ENOUGH = 1.1
"""How many times as fast as torch an engine must be."""
MOST_DIFFERENT = 1e-4
"""Largest difference between features in float32, relative to the largest feature."""
MOST_DIFFERENT_BFLOAT16 = 0.1
"""The same in bfloat16, however torch rounds."""
BATCH, ROUNDS, FIRST_CALLS = 4, 3, 2


class Engine(Encoder):
    """Maps normalized images (B, C, H, W) to features (B, D), as an encoder does.

    Attributes:
        name: as a reader knows it.
        precisions: of networks that it can compute.
    """

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.dim = encoder.dim


class OnnxEncoder(Engine):
    """An encoder that ONNX Runtime computes.

    Raises:
        Exception: what the exporter or the runtime raises where it cannot express the encoder.
    """

    name, precisions = "ONNX Runtime", ("float32",)
    channels_first = True

    def __init__(self, encoder: Encoder, example: Tensor) -> None:
        super().__init__(encoder)
        import onnxruntime

        batch = torch.export.Dim("batch", min=1)
        with quiet_export(), torch.no_grad():
            program = torch.export.export(encoder, (example,), dynamic_shapes=({0: batch},))
            exported = torch.onnx.export(program, dynamo=True, optimize=True, verbose=False)
        assert exported is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            exported.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        (features,) = self._session.run(None, {self._input: x.contiguous().numpy()})
        return torch.from_numpy(features)


class FusedEncoder(Engine):
    """The recorded operations of an encoder, which oneDNN fuses: convolutions, norms, activations.

    Raises:
        Exception: what torch raises where it cannot record or fuse them, or where the values of
            images decide what is computed.
    """

    name, precisions = "oneDNN Graph", ("bfloat16", "float32")

    def __init__(self, encoder: Encoder, example: Tensor) -> None:
        super().__init__(encoder)
        with quiet_export(), torch.no_grad():
            tensors = itertools.chain(encoder.named_parameters(), encoder.named_buffers())
            without_values = {name: tensor.to("meta") for name, tensor in tensors}
            torch.func.functional_call(encoder, without_values, example.to("meta"))
            torch.jit.enable_onednn_fusion(True)
            recorded = torch.jit.trace(encoder, example, check_trace=False)  # type: ignore[no-untyped-call]
            self._graph = torch.jit.freeze(recorded)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # the casts are among the recorded operations
            features: Tensor = self._graph(x)
        return features


def accelerate(network: Network, shape: Sequence[int], passes: int) -> str:
    """Let a faster engine compute a frozen encoder, if one is installed and right.

    Args:
        network: in evaluation mode; its encoder is replaced.
        shape: of an image, (C, H, W).
        passes: images that will pass through the encoder.

    Returns:
        What computes it from now on. In float32 the features agree with torch's to
        ``MOST_DIFFERENT``; in bfloat16 they are at most twice as far from those in float32.
    """
    if network.mean.device.type != "cpu":
        return "torch"
    _, *normalized = network.normalize(torch.zeros(1, *shape, dtype=torch.uint8)).shape
    if passes * normalized[1] * normalized[2] < WORTHWHILE:
        return "torch"
    generator = torch.Generator().manual_seed(0)
    example, other = (torch.randn(BATCH, *normalized, generator=generator) for _ in range(2))
    encoder = network.encoder
    low = network.precision == "bfloat16"
    for kind in (OnnxEncoder, FusedEncoder):
        if network.precision not in kind.precisions:
            continue
        try:
            with torch.no_grad(), torch.autocast("cpu", enabled=low, cache_enabled=False):
                engine = kind(encoder, example)
                for _ in range(FIRST_CALLS):  # in which it is compiled
                    engine(example)
                fast = _is_right(engine, encoder, other)
                fast = fast and _times_as_fast(engine, encoder, example) > ENOUGH
        except Exception:  # it is missing, or cannot express the encoder: torch computes any
            continue
        if fast:
            network.encoder = engine
            return kind.name
    return "torch"


def _is_right(engine: Engine, encoder: Encoder, images: Tensor) -> bool:
    """Whether features of images that the engine has not seen are those of the encoder."""
    found, expected = engine(images).float(), encoder(images).float()
    most = MOST_DIFFERENT * float(expected.abs().max())
    if torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            exact = encoder(images)
        rounding = float((expected - exact).abs().max())
        expected = exact
        most = min(most + 2 * rounding, MOST_DIFFERENT_BFLOAT16 * float(exact.abs().max()))
    return float((expected - found).abs().nan_to_num(math.inf).max()) <= most


def _times_as_fast(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], example: Tensor
) -> float:
    taken: dict[Callable[[Tensor], Tensor], list[float]] = {one: [], other: []}
    for _ in range(ROUNDS):
        for encode, times in taken.items():
            started = time.perf_counter()
            encode(example)
            times.append(time.perf_counter() - started)
    return min(taken[other]) / min(taken[one])  # what other processes take away, both miss


@contextmanager
def quiet_export() -> Iterator[None]:
    """Silence the remarks of torch's exporters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
