"""What benchmarks/speed.py measures: both sides of a step, each in a process of its own, and the machine's limits."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from conventional import Conventional, ConventionalDASO, ImageBatch, Images, Normalization, load_batches
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from daso.data.longtail import SplitOptions
from daso.data.source import Images as Pool
from daso.data.source import Source
from daso.train.allocator import keep_freed_memory
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import Prepared, prepare
from daso.train.run import train_run

Clock = Literal["wall", "processor"]
MEAN, STD = 0.5, 0.25
VIEW_STEPS = 16
"""Steps over which the time of making views is averaged."""


@dataclass(frozen=True)
class Setting:
    """Sizes of a step: *batch* labelled and twice as many unlabelled images, channels x side x side."""

    network: str
    batch: int
    channels: int
    side: int
    needs_cuda: bool = False


@dataclass(frozen=True)
class Variant:
    """A way to compute our step."""

    precision: str
    weak_pass: str = "joint"
    compile: bool = False

    def __str__(self) -> str:
        norm = "joint batch norm" if self.weak_pass == "joint" else "weak view apart"
        return f"{self.precision}, {norm}, {'compiled' if self.compile else 'eager'}"


@dataclass(frozen=True)
class Case:
    """What is trained and by which clock: a setting, a method, K classes, a device."""

    setting: Setting
    method: str
    num_classes: int
    device: str
    clock: Clock

    def source(self, test: int = 1) -> Source:
        """Return images of noise: their content does not matter to the time that a step takes."""
        random, setting = np.random.default_rng(0), self.setting

        def pool(count: int) -> Pool:
            shape = (count, setting.channels, setting.side, setting.side)
            labels = np.arange(count, dtype=np.int64) % self.num_classes
            return Pool(random.integers(0, 256, shape, np.uint8), labels)

        labeled = max(4 * setting.batch, 2 * self.num_classes)
        names = tuple(map(str, range(self.num_classes)))
        mean, std = (MEAN,) * setting.channels, (STD,) * setting.channels
        return Source(
            "noise", names, pool(labeled), pool(8 * setting.batch), test=pool(test), mean=mean, std=std
        )

    def prepare(
        self, variant: Variant, source: Source, options: Mapping[str, Any] | None = None, **train: Any
    ) -> Prepared:
        """Build our training through its public entrance, with *options* of the method.

        Unless they say otherwise, DASO acts from the first step on.
        """
        hyperparameters: dict[str, Any] = {"warmup_steps": 0} if "daso" in self.method else {}
        if variant.weak_pass != "joint":
            hyperparameters |= {"weak_pass": variant.weak_pass}
        hyperparameters |= options or {}
        values: dict[str, Any] = {
            "batch": self.setting.batch,
            "unlabeled_ratio": 2,
            "network": self.setting.network,
            "precision": variant.precision,
            "compile": variant.compile,
            "device": self.device,
            **train,
        }
        config = RunConfig("noise", self.method, method_options=hyperparameters, train=TrainOptions(**values))
        return prepare(config, source)


def processor_seconds() -> float:
    """Return the processor time of this process's threads and of the processes that load data for it."""
    children = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        children += int(fields[11]) + int(fields[12])
    return time.process_time() + children / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Splits time into named parts; on CUDA by events in the stream, so that no part waits for the one before.

    Args:
        device: whose time is taken.
        clock: on a CPU; ``"processor"`` does not count what a busy machine makes a process wait.
    """

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.cuda = device.type == "cuda"
        self.now = processor_seconds if clock == "processor" else time.perf_counter
        self._marks: list[tuple[str, Any]] = []

    def lap(self, name: str) -> None:
        """Charge the time since the last lap to *name*."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((name, event))
        else:
            self._marks.append((name, self.now()))

    def take(self) -> dict[str, float]:
        """Return the seconds of each name, and of all as ``"step"``; the first lap only started the watch."""
        if self.cuda:
            torch.cuda.synchronize()
        seconds: dict[str, float] = {}
        for (_, begin), (name, end) in itertools.pairwise(self._marks):
            passed = begin.elapsed_time(end) / 1000 if self.cuda else end - begin
            seconds[name] = seconds.get(name, 0.0) + passed
        self._marks.clear()
        return {"step": sum(seconds.values()), **seconds}

    def wrap(self, function: Callable[..., Any], after: str, before: str | None = None) -> Callable[..., Any]:
        """Return *function* with a lap after it, and one before it if that has a name."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if before is not None:
                self.lap(before)
            result = function(*arguments, **options)
            self.lap(after)
            return result

        return timed


class Side:
    """One of the things compared: it can train a step, from the images in the data set to the moving average."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.device = device
        self.watch = Stopwatch(device, clock)

    def step(self) -> None:
        raise NotImplementedError

    def features(self) -> None:
        """Compute the moving average's features of a labelled batch."""
        raise NotImplementedError

    @contextmanager
    def _watched(self, optimizer: torch.optim.Optimizer, average: object, update: str) -> Iterator[None]:
        """Take laps around the backward pass, the optimiser and the moving average."""
        backward = Tensor.backward
        inside = {
            "backward": (Tensor, self.watch.wrap(backward, "backward", "forward")),
            "step": (optimizer, self.watch.wrap(optimizer.step, "optimizer")),
            update: (average, self.watch.wrap(getattr(average, update), "moving average")),
        }
        for name, (owner, function) in inside.items():
            setattr(owner, name, function)
        try:
            yield
        finally:
            setattr(Tensor, "backward", backward)  # noqa: B010 - a method cannot be assigned to, for mypy
            del optimizer.step, average.__dict__[update]

    def round(self, steps: int) -> dict[str, float]:
        """Return the seconds of each part of a step, means of *steps*; those of the EMA features on top."""
        self.watch.lap("")
        for _ in range(steps):
            self.step()
        seconds = {name: value / steps for name, value in self.watch.take().items()}
        self.watch.lap("")
        self.features()
        self.watch.lap("EMA features")
        return seconds | {"EMA features": self.watch.take()["EMA features"]}

    def flops(self) -> int:
        """Count the operations of a step."""
        with FlopCounterMode(display=False) as counter:
            self.step()
        return int(counter.get_total_flops())


class Ours(Side):
    """The package's step, in a process set up as the commands that train set up theirs."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.prepared = case.prepare(variant, case.source())
        self.training = self.prepared.training
        super().__init__(next(self.training.network.parameters()).device, case.clock)
        self.ready = [self.prepared.batches(0)]
        self.drawn = 1

    def round(self, steps: int) -> dict[str, float]:
        # Views are made for several steps at once: over a few steps, their time would be that of none or of many.
        count = max(steps, VIEW_STEPS)
        self.watch.lap("")
        self.ready = [self.prepared.batches(self.drawn + number) for number in range(count)]
        self.watch.lap("data")
        self.drawn += count
        data = self.watch.take()["data"] / count
        seconds = super().round(steps)
        return {**seconds, "data": data, "step": seconds["step"] + data}

    def step(self) -> None:
        with self._watched(self.training.optimizer, self.training.average, "update"):
            self.training.advance(self.ready[self.training.step % len(self.ready)])
        self.watch.lap("other")

    @torch.no_grad()
    def features(self) -> None:
        self.training.average.network.train()
        self.training.average.network(self._labeled())

    def _labeled(self) -> Tensor:
        return self.prepared.data.labeled.images[: self.prepared.config.train.batch]


class Theirs(Side):
    """The conventional step."""

    def __init__(self, case: Case, workers: int) -> None:
        source = case.source()
        assert source.unlabeled is not None
        prepared = case.prepare(Variant("float32"), source)
        super().__init__(next(prepared.training.network.parameters()).device, case.clock)
        augmentation, size = prepared.config.augmentation, case.setting.batch
        assert augmentation.crop_padding is not None
        assert augmentation.cutout is not None
        daso = ConventionalDASO(case.num_classes) if "daso" in case.method else None
        network = prepared.training.network
        self.pipeline = Conventional(cast(nn.Module, network.encoder), network.heads["class"], daso)
        sizes = augmentation.crop_padding, augmentation.cutout
        normalization = Normalization(prepared.data.mean, prepared.data.std)
        labels = torch.from_numpy(source.train.labels)
        self.batches = load_batches(
            Images(pillow_layout(source.train.images), labels, normalization, *sizes),
            Images(pillow_layout(source.unlabeled.images), None, normalization, *sizes),
            size,
            2,
            workers,
        )
        self.labeled = next(self.batches).labeled.to(self.device)

    def step(self) -> None:
        batch = ImageBatch(*(part.to(self.device, non_blocking=True) for part in next(self.batches)))
        self.watch.lap("data")
        with self._watched(self.pipeline.optimizer, self.pipeline, "update_average"):
            self.pipeline.advance(batch)
        self.watch.lap("other")

    def features(self) -> None:
        self.pipeline.teacher_features(self.labeled)


def pillow_layout(images: Any) -> Any:
    """Turn (N, C, H, W) into what Pillow takes, one image after another: (N, H, W, 3), or (N, H, W) of one channel."""
    return images[:, 0] if images.shape[1] == 1 else np.ascontiguousarray(images.transpose(0, 2, 3, 1))


class Limits:
    """What the machine can do at best."""

    def __init__(self, device: str, clock: Clock, size: int) -> None:
        self.device = torch.device(device)
        self.size = size
        self.watch = Stopwatch(self.device, clock)

    def _seconds(self, function: Callable[[], object]) -> float:
        times = []
        for _ in range(4):
            self.watch.lap("")
            function()
            self.watch.lap("work")
            times.append(self.watch.take()["work"])
        return min(times)

    def rates(self) -> dict[str, float]:
        """Return GFLOP/s of a matrix product by precision, and GB/s read and written by a copy."""
        found = {}
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            a = torch.ones(self.size, self.size, dtype=dtype, device=self.device)
            found[name] = (
                2 * self.size**3 / self._seconds(partial(torch.mm, a, a, out=torch.empty_like(a))) / 1e9
            )
        a = torch.ones(64 * self.size**2 // 4, device=self.device)
        found["copy"] = 8 * a.numel() / self._seconds(partial(torch.empty_like(a).copy_, a)) / 1e9
        return found


class FixedFeatures(nn.Module):
    """Stands in for an encoder where its own time is not wanted: the same features whatever the images."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.values = nn.Parameter(torch.randn(count, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.values[: len(x)]


class OwnWork:
    """The time that DASO adds to FixMatch beyond the EMA features: steps without an encoder, with DASO and without.

    Args:
        case: its method is not looked at; its network should be small, and give as many features as the one
            that is meant.
    """

    def __init__(self, case: Case) -> None:
        self.steps: dict[tuple[str, str], Callable[[], object]] = {}
        self.watch = Stopwatch(torch.device(case.device), case.clock)
        batch, dim = case.setting.batch, 0
        for method in ("fixmatch", "fixmatch+daso"):
            case = dataclasses.replace(case, method=method)
            training = (prepared := case.prepare(Variant("float32"), case.source())).training
            dim = training.network.dim
            device = next(training.network.parameters()).device
            training.network.encoder = FixedFeatures(5 * batch, dim).to(device)
            training.average.network.encoder = FixedFeatures(5 * batch, dim).to(device).requires_grad_(False)
            given = prepared.batches(0)
            # Float images pass through the normalisation: nothing is left to do with pixels.
            small = [torch.zeros(count, 1, 1, 1, device=device) for count in (batch, 2 * batch)]
            given = given._replace(labeled=(small[0],), unlabeled=(small[1], small[1]))
            self.steps["ours", method] = partial(training.advance, given)
            daso = ConventionalDASO(case.num_classes) if "daso" in method else None
            head = training.network.heads["class"]
            pipeline = Conventional(FixedFeatures(5 * batch, dim).to(device), head, daso)
            images = ImageBatch(small[0], given.labels, small[1], small[1])
            self.steps["conventional", method] = partial(pipeline.advance, images)

    def milliseconds(self, rounds: int) -> dict[str, float]:
        """Return the difference of the medians, for both sides."""
        times: dict[tuple[str, str], list[float]] = {key: [] for key in self.steps}
        for number in range(rounds + 3):
            for key, step in self.steps.items():
                self.watch.lap("")
                step()
                self.watch.lap("work")
                seconds = self.watch.take()["work"]
                if number >= 3:
                    times[key].append(seconds)
        median = {key: 1000 * statistics.median(values) for key, values in times.items()}
        return {s: median[s, "fixmatch+daso"] - median[s, "fixmatch"] for s in ("conventional", "ours")}


class Overhead:
    """The time of evaluations, checkpoints and logging: a run whose steps return at once what the first one did."""

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

        setattr(training, "advance", advance)  # noqa: B010 - a method cannot be assigned to, for mypy
        still: Any = {"batches": lambda step: batch}
        watch = Stopwatch(batch.labels.device, self.case.clock)
        with tempfile.TemporaryDirectory() as folder:
            for row in train_run(dataclasses.replace(prepared, **still), Path(folder) / "run"):
                if row["event"] == "evaluate":
                    watch.lap("")
        return watch.take()["step"]

    def seconds(self, period: int, test: int, wanted: int) -> dict[str, float]:
        """Return the seconds in every *period* steps: of an evaluation of *wanted* images, and of the rest.

        Two evaluations, of *test* and of three times as many images, tell one from the other.
        """
        few, many = self._period(period, test), self._period(period, 3 * test)
        evaluation = max(0.0, many - few) / (2 * test)
        return {
            "evaluation": evaluation * wanted,
            "checkpoint and logging": max(0.0, few - evaluation * test),
        }


class Memory:
    """Host memory of a run."""

    def __init__(self, case: Case, variant: Variant) -> None:
        keep_freed_memory()
        self.case, self.variant = case, variant

    def peak(self, train: int, test: int, split: SplitOptions | None) -> dict[str, float]:
        """Return the peak in MB with the data at hand, and after two training steps and an evaluation.

        The evaluation is of a part of the test images: it goes through them in pieces, more of them take only time.
        """
        random, setting = np.random.default_rng(0), self.case.setting

        def pool(count: int) -> Pool:
            images = random.integers(0, 256, (count, setting.channels, setting.side, setting.side), np.uint8)
            return Pool(images, np.arange(count, dtype=np.int64) % self.case.num_classes)

        names = tuple(map(str, range(self.case.num_classes)))
        unlabeled = None if split else pool(8 * setting.batch)
        # Handed over and not held here, as the command line does.
        source = [Source("noise", names, pool(train), unlabeled, test=pool(test))]
        config = self.case.prepare(self.variant, self.case.source()).config
        config = dataclasses.replace(
            config,
            split=split or SplitOptions(),
            train=dataclasses.replace(config.train, steps=2, evaluate_every=2),
        )
        prepared = prepare(config, source.pop())
        found = {"data": peak_megabytes()}
        whole = prepared.data
        assert whole.test is not None
        part = dataclasses.replace(
            whole.test, images=whole.test.images[:1024], labels=whole.test.labels[:1024]
        )
        data = dataclasses.replace(whole, test=part, holdout=None)
        prepared = dataclasses.replace(prepared, data=data)
        with tempfile.TemporaryDirectory() as folder:
            for _ in train_run(prepared, Path(folder) / "run"):
                pass
        return found | {"training": peak_megabytes()}


def peak_megabytes() -> float:
    """Return the most memory that this process has had."""
    import pathlib
    import resource
    import sys

    status = pathlib.Path("/proc/self/status")
    if status.exists():  # what getrusage says may be of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of_torch() -> float:
    """Return the peak in MB of a process that only imports torch."""
    code = f"import torch\n{inspect.getsource(peak_megabytes)}\nprint(peak_megabytes())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(result.stdout)


class Remote:
    """An object in a process of its own: threads, memory and compiled code of one leave the others alone.

    Args:
        threads: of torch in that process.
        make: makes the object there, from *arguments*.

    Raises:
        RuntimeError: it could not be made; the message says why.
    """

    def __init__(self, threads: int, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch._dynamo", "torch.utils.flop_counter", "daso.train.run"])
        self._pipe, there = context.Pipe()
        # Not a daemon: those may not have data-loading processes of their own.
        self._process = context.Process(target=_serve, args=(there, threads, make, arguments), daemon=False)
        self._process.start()
        there.close()
        self._answer()

    def _answer(self) -> Any:
        try:
            error, result = self._pipe.recv()
        except EOFError:
            error = "the process died"
        if error is not None:
            self.close()
            raise RuntimeError(error)
        return result

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the object and return its result."""
        self._pipe.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Any, threads: int, make: Callable[..., object], arguments: tuple[object, ...]) -> None:
    torch.set_num_threads(threads)
    # Data-loading processes start as they do in any program, not in this process's own way.
    multiprocessing.set_start_method(None, force=True)
    try:
        target = make(*arguments)
        pipe.send((None, None))
        while True:
            try:
                method, given = pipe.recv()
            except EOFError:
                return
            pipe.send((None, getattr(target, method)(*given)))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))
