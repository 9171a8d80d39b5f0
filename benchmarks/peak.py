"""The most host memory that the command line takes for a training."""

from __future__ import annotations

import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cases import Variant

from daso.data.benchmarks.cifar import CIFAR10

TRAIN = "import daso.cli\nassert daso.cli.main(sys.argv[1:]) == 0\n"
SPLIT = "--labeled-head 500 --unlabeled-head 4000 --gamma-labeled 100 --gamma-unlabeled 100"
RUN = f"{SPLIT} --network wrn-28-2 --steps 6 --evaluate-every 6"
QUICK_SPLIT = (
    "--labeled-head 8 --unlabeled-head 16 --gamma-labeled 4 --gamma-unlabeled 4 --holdout 10"
)
QUICK_RUN = f"{QUICK_SPLIT} --network small-4 --batch 4 --steps 2 --evaluate-every 2"


def peak_megabytes() -> float:
    """Return the most memory that this process has had."""
    import pathlib
    import resource
    import sys

    status = pathlib.Path("/proc/self/status")
    if status.exists():  # what getrusage says may be of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def preloaded(library: Path | None, threads: int) -> dict[str, str]:
    """Return the environment of a process that loads a library before all others, on some threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return environment if library is None else {**environment, "LD_PRELOAD": str(library)}


def peak_of(
    code: str, arguments: Sequence[str] = (), *, library: Path | None = None, threads: int = 1
) -> float:
    """Return the peak in MB of a process that runs *code* and ends.

    Raises:
        RuntimeError: it failed.
    """
    code = f"import sys\n{code}\n{inspect.getsource(peak_megabytes)}\nprint(peak_megabytes())"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=preloaded(library, threads),
    )
    if result.returncode:
        raise RuntimeError(f"{code.splitlines()[1]} {' '.join(arguments)} failed:\n{result.stderr}")
    return float(result.stdout.splitlines()[-1])


def write_noise(place: Path, *, quick: bool) -> None:
    """Write images of noise in the files in which CIFAR-10 is published: as many of them, or *quick* a few."""
    random = np.random.default_rng(0)
    folder = place / CIFAR10.folder
    folder.mkdir(parents=True)
    for name in CIFAR10.batches:
        count = (40 if name == CIFAR10.test else 80) if quick else 10_000
        labels = [index % 10 for index in range(count)]
        data = random.integers(0, 256, (count, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))


def peak_of_training(
    folder: Path,
    variant: Variant,
    name: str,
    *,
    device: str = "cpu",
    quick: bool = False,
    library: Path | None = None,
    threads: int = 1,
) -> float:
    """Return the peak in MB of ``daso train cifar10`` at the paper's setting, six steps and their evaluation.

    Args:
        folder: of the files that ``write_noise`` wrote, and of the run.
        variant: of our step.
        name: of the run's folder.
        device: cpu or cuda.
        quick: tiny sizes, to see that it works.
        library: loaded before all others.
        threads: of torch.
    """
    command = ["train", "cifar10", "--data", str(folder), "--out", str(folder / name)]
    command += ["--method", "fixmatch+daso", "--device", device, "--quiet", *variant.options()]
    command += (QUICK_RUN if quick else RUN).split()
    return peak_of(TRAIN, command, library=library, threads=threads)
