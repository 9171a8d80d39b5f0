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

TRAIN = "import daso.cli\nassert daso.cli.main(sys.argv[1:]) == 0\n"


def peak_megabytes() -> float:
    """Return the most memory that this process has had."""
    import pathlib
    import resource
    import sys

    status = pathlib.Path("/proc/self/status")
    if status.exists():  # what getrusage says may be of the process that started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def peak_of(code: str, arguments: Sequence[str] = (), threads: int = 1) -> float:
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
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    if result.returncode:
        raise RuntimeError(f"daso {' '.join(arguments)} failed:\n{result.stderr}")
    return float(result.stdout.splitlines()[-1])


def write_noise(folder: Path, train: int, test: int) -> None:
    """Write images of noise in the files in which CIFAR-10 is published, *train* and *test* of them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    counts = {f"data_batch_{number}": train // 5 for number in range(1, 6)} | {"test_batch": test}
    for name, count in counts.items():
        labels = [index % 10 for index in range(count)]
        data = random.integers(0, 256, (count, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": labels}))
