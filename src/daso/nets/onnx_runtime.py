"""Compute a frozen encoder's features by ONNX Runtime, in about half of torch's time on a CPU."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from daso.nets.network import Network

WORTHWHILE = 2**26
"""Pixels of all passes from which on the ten seconds of an export pay: 1,300 images of 224."""
ENOUGH = 1.2
"""How many times as fast as torch ONNX Runtime must be."""
MOST_DIFFERENT = 1e-4
"""Largest difference between features, relative to the largest feature."""
BATCH, ROUNDS = 8, 5


class OnnxEncoder(nn.Module):
    """Maps normalized images, float32 (B, C, H, W), to features (B, D), on the CPU.

    Raises:
        Exception: what the exporter or the runtime raises where it cannot express the encoder.
    """

    channels_first = True

    def __init__(self, encoder: nn.Module, example: Tensor) -> None:
        super().__init__()
        import onnxruntime

        self.dim = int(encoder.dim)  # type: ignore[arg-type]
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


def accelerate(network: Network, shape: Sequence[int], passes: int) -> bool:
    """Let ONNX Runtime compute a frozen encoder if it is installed, right and faster.

    Args:
        network: in evaluation mode; its encoder is replaced.
        shape: of an image, (C, H, W).
        passes: images that will pass through the encoder.

    Returns:
        Whether it does. Features agree with torch's to ``MOST_DIFFERENT``.
    """
    if network.mean.device.type != "cpu" or network.precision != "float32":
        return False
    _, *normalized = network.normalize(torch.zeros(1, *shape, dtype=torch.uint8)).shape
    if passes * normalized[1] * normalized[2] < WORTHWHILE:
        return False
    example = torch.randn(BATCH, *normalized, generator=torch.Generator().manual_seed(0))
    encoder = cast(nn.Module, network.encoder)
    try:
        other = OnnxEncoder(encoder, example)
        with torch.no_grad():
            expected, found = encoder(example), other(example)
    except Exception:  # onnx is missing, or cannot express the encoder: torch computes any
        return False
    if float((expected - found).abs().max()) > MOST_DIFFERENT * float(expected.abs().max()):
        return False
    if _times_as_fast(other, encoder, example) < ENOUGH:
        return False
    network.encoder = other
    return True


def _times_as_fast(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], example: Tensor
) -> float:
    taken: dict[Callable[[Tensor], Tensor], list[float]] = {one: [], other: []}
    for _ in range(ROUNDS):
        for encode, times in taken.items():
            started = time.perf_counter()
            with torch.no_grad():
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
