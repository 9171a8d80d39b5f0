"""What the processes of one training tell one another in a step, counted, and what that takes on paper.

    python benchmarks/communication.py
    python benchmarks/communication.py --network resnet50 --side 224 --teraflops 200

One step of FixMatch + DASO is trained here, on a few random images, as the only process of a group: its messages are
counted with their bytes, and its floating-point operations. Those that grow with the batch are scaled to the batch
that is asked for. The table is a model, nothing in it is measured: a device computes its share of the operations at a
given rate; a message takes its latency and its bytes over the bandwidth, one after the other, nothing overlapping.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tyro

IMAGES = 2
"""Labelled images of the step that is counted."""


@dataclass(frozen=True)
class Model:
    """Count the messages of a step, and print how long it would take on several devices."""

    network: str = "wrn-28-2"
    """Name of the network."""
    side: int = 32
    """Of the images, in pixels."""
    batch: int = 64
    """Labelled images of a step; twice as many are unlabelled, in two views."""
    teraflops: float = 20.0
    """What a device computes in a second, 10^12 operations: a tenth of a current GPU's bfloat16 rate for small images
    and thin layers."""
    inside: tuple[float, float] = (25, 450)
    """Microseconds of a message between devices of a machine, and GB/s of each: NVLink."""
    between: tuple[float, float] = (50, 25)
    """The same between machines: 200 Gb/s."""
    per_machine: int = 8
    """Devices of a machine."""
    devices: tuple[int, ...] = (1, 2, 8, 64)
    """Numbers of devices."""


@dataclass
class Count:
    """Messages of a step.

    Attributes:
        features: bytes of each gathering of features, of all images together; they grow with the batch.
        norms: messages of batch norms.
        norm_bytes: of these together, of one process.
        gradients: bytes of the encoder's gradient.
        operations: floating-point operations of the step.
        parameters: of the encoder.
    """

    features: list[int] = field(default_factory=list)
    norms: int = 0
    norm_bytes: int = 0
    gradients: int = 0
    operations: float = 0.0
    parameters: int = 0


def count(options: Model) -> Count:
    """Train a step of a few images as the only process of a group, and count."""
    import numpy as np
    import torch.distributed as dist
    from torch.utils.flop_counter import FlopCounterMode

    from daso.data.images.decoded import DecodedImages
    from daso.data.source import Source
    from daso.nets.distributed import Processes
    from daso.train.config import RunConfig
    from daso.train.options import TrainOptions
    from daso.train.prepare import prepare

    random = np.random.default_rng(0)

    def pool(size: int) -> DecodedImages:
        pixels = random.integers(256, size=(size, 3, options.side, options.side)).astype(np.uint8)
        return DecodedImages(pixels, np.arange(size) % 10)

    source = Source("random", tuple("0123456789"), pool(20), unlabeled=pool(20), test=pool(10))
    train = TrainOptions(steps=1000, batch=IMAGES, network=options.network, device="cpu")
    found, started = Count(), False

    def counted(function: Callable[..., Any], payload: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            tensor = payload(*arguments)
            size = tensor.numel() * tensor.element_size()
            if started and function is sums and tensor.numel() == found.parameters:
                found.gradients += size
            elif started and function is gathers and tensor.dim() == 2:
                found.features.append(size)
            elif started:
                found.norms += 1
                found.norm_bytes += size
            return function(*arguments, **named)

        return call

    sums, gathers = dist.all_reduce, dist.all_gather
    with tempfile.TemporaryDirectory() as place:
        dist.init_process_group("gloo", f"file://{place}/meeting", rank=0, world_size=1)
        setattr(dist, "all_reduce", counted(sums, lambda tensor, *_: tensor))  # noqa: B010
        setattr(dist, "all_gather", counted(gathers, lambda _, tensor, *__: tensor))  # noqa: B010
        config = RunConfig("random", "fixmatch+daso", train=train)
        processes = Processes.of_group()
        prepared = prepare(config, source, processes=processes)
        encoder: Any = prepared.training.network.encoder
        found.parameters = sum(parameter.numel() for parameter in encoder.parameters())
        batch, started = prepared.batches(0), True
        with FlopCounterMode(display=False) as flops:
            prepared.training.advance(batch)
        found.operations = float(flops.get_total_flops())
        processes.leave()
    return found


def message(size: float, devices: int, options: Model, *, reduced: bool) -> float:
    """Return the seconds of a message of *size* bytes, the whole of it in the end in every device."""
    latency, speed = options.inside if devices <= options.per_machine else options.between
    travels = (2 if reduced else 1) * size * (devices - 1) / devices
    return latency * 1e-6 + travels / (speed * 1e9)


def main(options: Model) -> None:
    """Count, and print the model."""
    found = count(options)
    scale = options.batch / IMAGES
    operations = found.operations * scale
    features = [size * scale for size in found.features]
    print(
        f"{options.network}, {options.side} pixels, {options.batch} + {2 * options.batch} images a step, "
        f"{found.parameters / 1e6:.1f} million parameters, {operations / 1e12:.2f} x 10^12 operations\n"
        f"messages of a step: {found.norms} of batch norms ({found.norm_bytes / 1e3:.0f} kB), {len(features)} of "
        f"features ({sum(features) / 1e3:.0f} kB), 1 of gradients ({found.gradients / 1e6:.1f} MB)\n\n"
        "| devices | compute | batch norms | features | gradients | a step | communication | times as fast |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    alone = operations / (options.teraflops * 1e12)
    for devices in options.devices:
        norms = gathered = gradients = 0.0
        if devices > 1:
            each = found.norm_bytes / max(found.norms, 1)
            norms = found.norms * message(each * devices, devices, options, reduced=False)
            gathered = sum(message(size, devices, options, reduced=False) for size in features)
            gradients = message(found.gradients, devices, options, reduced=True)
        talk, compute = norms + gathered + gradients, alone / devices
        cells = [
            f"{1e3 * seconds:.2f} ms"
            for seconds in (compute, norms, gathered, gradients, compute + talk)
        ]
        print(
            f"| {devices} | {' | '.join(cells)} | {talk / (compute + talk):.0%} | {alone / (compute + talk):.1f} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Model))
