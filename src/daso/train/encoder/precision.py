"""Choose the precision that trains fastest on a device; on a CPU by measuring it."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import platform
import statistics
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.data.benchmarks.download import cache_folder
from daso.errors import RunError
from daso.files import make_folder, save_json
from daso.nets.distributed import Processes
from daso.nets.network import Precision
from daso.train.folder.environment import processor
from daso.train.options import TrainOptions

ENOUGH = 1.1
"""How many times as fast bfloat16 must be to be chosen."""
MEASURED_SECONDS = 1.0
FEWEST_ROUNDS = 3
FILE = "precision.json"
"""File in the cache folder: how many times as fast bfloat16 is, by processor and torch."""


@dataclass(frozen=True)
class Choice:
    """A precision, and one line that says why."""

    precision: Precision
    reason: str


def resolve_precision(
    options: TrainOptions, device: torch.device, vectors: bool, processes: Processes | None = None
) -> TrainOptions:
    """Return options in which the precision is decided; of several processes the first decides.

    Encoders of vectors are too small to gain from bfloat16.
    """
    if options.precision != "auto":
        return options
    chosen: Precision = "float32"
    if not vectors:
        leads = processes is None or processes.rank == 0
        chosen = choose_precision(device, options.freeze).precision if leads else chosen
        if processes is not None:
            chosen = processes.tell(chosen)[0][1]
    return replace(options, precision=chosen)


def choose_precision(device: torch.device, frozen: bool = False) -> Choice:
    """Return bfloat16 where a training in it is faster, else float32.

    On a CPU, about a second of measuring decides, and the result is kept in the cache folder; x86
    without units for bfloat16 emulates it, so nothing is measured there. A *frozen* encoder gains
    more than a training (1.3 to 3.5 times where it was measured, LOG.md): units are enough.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.get_device_capability(device) >= (8, 0):
            return Choice("bfloat16", f"precision bfloat16: this GPU ({name}) has units for it")
        return Choice("float32", f"precision float32: this GPU ({name}) has no bfloat16 units")
    if device.type != "cpu":
        return Choice("float32", f"precision float32: bfloat16 is not used on {device.type}")
    if frozen and (units := _units()):
        return Choice("bfloat16", f"precision bfloat16: {processor()} has {units[0]} units for it")
    return _choose_on_cpu()


@functools.cache
def _choose_on_cpu() -> Choice:
    name = processor()
    if platform.machine() in ("x86_64", "AMD64") and not _units():
        return Choice("float32", f"precision float32: {name} has no bfloat16 units")
    kept: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):  # missing or broken
        read = dict(json.loads((cache_folder() / FILE).read_bytes()))
        kept = {k: t for k, t in read.items() if isinstance(t, float | int) and 0 < t < math.inf}
    key = f"{name}, {' '.join(_units())}, torch {torch.__version__}"
    times = kept.get(key)
    if times is None:
        times = measure_gain()
        with contextlib.suppress(RunError):  # it is measured again the next time
            make_folder(cache_folder())
            save_json(cache_folder() / FILE, {**kept, key: round(times, 2)})
    chosen: Precision = "bfloat16" if times >= ENOUGH else "float32"
    reason = f"bfloat16 is {times:.1f} times as fast as float32 on this processor ({name})"
    return Choice(chosen, f"precision {chosen}: {reason}")


def _units() -> tuple[str, ...]:
    """Return the instruction sets for bfloat16 that torch finds in an x86 processor."""
    questions = {"amx": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
    return tuple(unit for unit, name in questions.items() if getattr(torch.cpu, name, bool)())


def measure_gain(seconds: float = MEASURED_SECONDS) -> float:
    """Return how many times as fast as float32 a layer of a network runs in bfloat16 on the CPU.

    The layer is a convolution, batch norm and ReLU of a WRN-28-2, forward and backward, of 32
    images of 32 pixels. Both precisions take turns on one thread, and the median of its processor
    time counts: other work on the machine hardly changes it.
    """
    random = torch.Generator().manual_seed(0)
    layout = torch.channels_last
    x = torch.randn(32, 32, 32, 32, generator=random).contiguous(memory_format=layout)
    weight = torch.randn(32, 32, 3, 3, generator=random).contiguous(memory_format=layout)
    scale, shift = torch.ones(32), torch.zeros(32)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, scale, shift)]

    def run(*, low: bool) -> float:
        started = time.thread_time()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            y: Tensor = F.conv2d(x, weight, padding=1)
            y = F.relu(F.batch_norm(y, None, None, scale, shift, training=True)).sum()
        torch.autograd.grad(y, leaves)
        return time.thread_time() - started

    taken: dict[bool, list[float]] = {False: [], True: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for low in taken:
            run(low=low)  # the first call prepares
        end = time.perf_counter() + seconds
        while len(taken[True]) < FEWEST_ROUNDS or time.perf_counter() < end:
            for low, times in taken.items():
                times.append(run(low=low))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken[False]) / statistics.median(taken[True])
