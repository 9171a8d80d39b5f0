"""The costs around the network: DASO's own work, evaluations, checkpoints, memory."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import environment_with
from conventional import Conventional, ConventionalDASO, ImageBatch
from steps import Case, Variant
from timing import Stopwatch
from torch import Tensor, nn

from daso.data.benchmarks.cifar import CIFAR10
from daso.methods.method import Batch
from daso.nets.encoders import Encoder
from daso.train.allocator import keep_freed_memory
from daso.train.run import train_run

TRAIN = "import daso.cli\nassert daso.cli.main(sys.argv[1:]) == 0\n"
SPLIT = "--labeled-head 500 --unlabeled-head 4000 --gamma-labeled 100 --gamma-unlabeled 100"
RUN = f"{SPLIT} --network wrn-28-2 --steps 6 --evaluate-every 6"
QUICK_SPLIT = (
    "--labeled-head 8 --unlabeled-head 16 --gamma-labeled 4 --gamma-unlabeled 4 --holdout 10"
)
QUICK_RUN = f"{QUICK_SPLIT} --network small-4 --batch 4 --steps 2 --evaluate-every 2"


class FixedFeatures(Encoder):
    """Replaces an encoder whose time should not count: the same features for any images."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.values = nn.Parameter(torch.randn(count, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.values[: len(x)]


class OwnWork:
    """The time that DASO adds to FixMatch beyond the EMA features: steps without an encoder.

    Args:
        case: its network should be small, and have as many features as the one of interest.
    """

    def __init__(self, case: Case) -> None:
        self.steps: dict[tuple[str, str], Callable[[], object]] = {}
        self.watch = Stopwatch(torch.device(case.device), case.clock)
        batch = case.setting.batch
        for method in ("fixmatch", "fixmatch+daso"):
            case = dataclasses.replace(case, method=method)
            training = (prepared := case.prepare(Variant(), case.source())).training
            dim = training.network.dim
            device = next(training.network.parameters()).device

            def encoder(dim: int = dim, device: torch.device = device) -> FixedFeatures:
                return FixedFeatures(5 * batch, dim).to(device)

            training.network.encoder = encoder()
            training.average.network.encoder = encoder().requires_grad_(False)
            # Float images pass the normalization: no work on pixels is left.
            labeled, unlabeled = (
                torch.zeros(count, 1, 1, 1, device=device) for count in (batch, 2 * batch)
            )
            ours = prepared.batches(0)
            ours = ours._replace(labeled=(labeled,), unlabeled=(unlabeled, unlabeled))
            self.steps["ours", method] = partial(training.advance, ours)
            daso = ConventionalDASO(case.num_classes) if "daso" in method else None
            pipeline = Conventional(encoder(), training.network.heads["class"], daso)
            theirs = ImageBatch(labeled, ours.labels, unlabeled, unlabeled)
            self.steps["conventional", method] = partial(pipeline.advance, theirs)

    def milliseconds(self, rounds: int) -> dict[str, float]:
        times: dict[tuple[str, str], list[float]] = {key: [] for key in self.steps}
        for number in range(rounds + 3):
            for key, step in self.steps.items():
                seconds = self.watch.time(step)
                if number >= 3:
                    times[key].append(seconds)
        median = {key: 1000 * statistics.median(values) for key, values in times.items()}
        return {
            side: median[side, "fixmatch+daso"] - median[side, "fixmatch"]
            for side in ("conventional", "ours")
        }


class Constant:
    """Batches that are all the same."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, step: int) -> Batch:
        return self.batch

    def close(self) -> None:
        pass


class Overhead:
    """The time of evaluations, checkpoints and logging around steps that take no time."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.case, self.variant = case, variant

    def _period(self, period: int, test: int) -> float:
        source = self.case.source(test)
        prepared = self.case.prepare(self.variant, source, steps=2 * period, evaluate_every=period)
        training, batch = prepared.training, prepared.batches(0)
        result = training.advance(batch)
        training.step = 0

        def advance(_: object) -> object:
            training.step += 1
            return result

        setattr(training, "advance", advance)  # noqa: B010 - mypy forbids assigning a method
        constant: Any = {"batches": Constant(batch)}
        watch = Stopwatch(batch.labels.device, self.case.clock)
        with tempfile.TemporaryDirectory() as folder:
            for row in train_run(dataclasses.replace(prepared, **constant), Path(folder) / "run"):
                if row["event"] == "evaluate":
                    watch.lap("")
        return watch.take()["step"]

    def seconds(self, period: int, test: int, images: int) -> dict[str, float]:
        """Return the seconds of an evaluation of some *images*, and of the rest of a *period*.

        Evaluations of *test* and of three times as many images separate the two.
        """
        few, many = self._period(period, test), self._period(period, 3 * test)
        evaluation = max(0.0, many - few) / (2 * test)
        rest = max(0.0, few - evaluation * test)
        return {"evaluation": evaluation * images, "checkpoint and logging": rest}


def peak_megabytes() -> float:
    import pathlib
    import resource
    import sys

    status = pathlib.Path("/proc/self/status")
    if status.exists():  # getrusage may report that of the parent process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_of(code: str, arguments: Sequence[str] = (), *, threads: int = 1) -> float:
    """Return the peak in MB of a process that runs *code*."""
    code = f"import sys\n{code}\n{inspect.getsource(peak_megabytes)}\nprint(peak_megabytes())"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment_with(threads),
    )
    if result.returncode:
        raise RuntimeError(f"{code.splitlines()[1]} {' '.join(arguments)} failed:\n{result.stderr}")
    return float(result.stdout.splitlines()[-1])


def write_noise(place: Path, *, quick: bool) -> None:
    """Write images of noise in CIFAR-10's files: as many as it has, or a few if *quick*."""
    random = np.random.default_rng(0)
    folder = place / CIFAR10.folder
    folder.mkdir(parents=True)
    for name in CIFAR10.batches:
        count = (40 if name == CIFAR10.test else 80) if quick else 10_000
        labels = [index % 10 for index in range(count)]
        data = random.integers(0, 256, (count, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))


def peak_of_training(
    folder: Path, variant: Variant, name: str, *, device: str, quick: bool, threads: int
) -> float:
    """Return the peak in MB of six steps of ``daso train cifar10`` and their evaluation."""
    command = ["train", "cifar10", "--data", str(folder), "--out", str(folder / name)]
    command += ["--method", "fixmatch+daso", "--device", device, "--quiet", *variant.options()]
    command += (QUICK_RUN if quick else RUN).split()
    return peak_of(TRAIN, command, threads=threads)
