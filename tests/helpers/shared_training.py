"""Train in one of several processes and save the result.

Everything is computed in float64. Processes round differently from one process, by 1e-16, and a training
amplifies that to 1e-10; a true difference is larger by far.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import safetensors.torch
import torch
import torch.distributed as dist

from daso.data.longtail import SplitOptions
from daso.data.open import open_source
from daso.nets.distributed import Processes
from daso.train.config import RunConfig
from daso.train.loop import fit
from daso.train.options import TrainOptions
from daso.train.prepare import prepare

SPLIT = SplitOptions(
    labeled_head=20, unlabeled_head=40, gamma_labeled=10, gamma_unlabeled=10, holdout=50
)
DASO: dict[str, Any] = {"warmup_steps": 4, "histogram_period": 4, "queue_length": 16}
METHODS: dict[str, tuple[int, dict[str, Any]]] = {
    "fixmatch+abc+daso": (18, DASO | {"threshold": 0.2}),
    "remixmatch+daso": (18, DASO),
    "fixmatch+estimate+darp": (18, {"threshold": 0.2, "darp_start": 0.1, "darp_period": 5}),
    "fixmatch+la+align": (18, {"threshold": 0.2, "weak_pass": "apart"}),
    "mixmatch": (8, {}),
    "mixtureteacher+la+mixture": (6, {"dimensions": 16}),
    "usadtm": (8, {}),
}
"""Steps and hyper-parameters of each method."""


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Compute in float64 what is otherwise computed in float32."""
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = single


def train(method: str, processes: Processes | None) -> dict[str, torch.Tensor]:
    """Return the losses of every step, the final metrics and the final state."""
    steps, method_options = METHODS[method]
    options = TrainOptions(
        steps=steps,
        batch=8,
        network="small-4",
        device="cpu",
        precision="float32",
        evaluate_every=steps,
        log_every=1,
        learning_rate=0.01,
    )
    config = RunConfig("digits", method, split=SPLIT, method_options=method_options, train=options)
    prepared = prepare(config, open_source("digits"), processes=processes)
    while not prepared.is_last_stage:
        prepared = prepared.next_stage()
    data, readout = prepared.data, prepared.readout
    rows = list(fit(prepared.training, prepared.batches, data, readout=readout))
    if processes is not None:
        sums = [float(value.double().sum()) for value in prepared.training.tensors().values()]
        (_, first), *others = processes.tell(sums)
        assert all(told == first for _, told in others)
    losses = [list(row["losses"].values()) for row in rows if row["event"] == "train"]
    measured = {part: rows[-1].get(part) for part in ("test", "holdout", "pseudo_labels")}
    return {
        "losses": torch.tensor(losses),
        "measured": torch.tensor(list(numbers(measured))),
        **prepared.training.tensors(),
    }


def numbers(value: Any) -> Iterator[float]:
    """Yield the numbers of nested dictionaries and lists; -1 for missing ones."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif not isinstance(value, str):
        yield -1.0 if value is None or value != value else float(value)


def threads() -> list[str]:
    """Return the names of this process's threads; none where the system does not list them."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has just ended
            names.append(task.read_text().strip())
    return names


def assert_no_threads_of_the_group() -> None:
    """Check that the group's threads have ended; the system may list them for a moment longer."""
    deadline = time.monotonic() + 20
    while (left := [name for name in threads() if "gloo" in name]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"threads of the group are left and may abort the interpreter: {left}"


def main(rank: int, size: int, out: Path, methods: list[str]) -> None:
    """Train methods in one of *size* processes; the first one saves."""
    torch.set_num_threads(1)
    processes = None
    if size > 1:
        meeting = f"file://{out}/processes-{size}"
        dist.init_process_group("gloo", meeting, rank=rank, world_size=size)
        processes = Processes(dist.get_rank(), dist.get_world_size())
    with float64():
        for method in methods:
            result = {k: v.contiguous() for k, v in train(method, processes).items()}
            if rank == 0:
                safetensors.torch.save_file(result, out / f"{method}-{size}")
    if processes is not None:
        dist.barrier()  # no process leaves while another still listens
        processes.leave()
        assert_no_threads_of_the_group()
