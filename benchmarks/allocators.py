"""Our step and `daso train` with another allocator than the C library's: seconds of a step, memory at the most.

    python benchmarks/allocators.py --library libtcmalloc_minimal.so.4

Both sides take turns; what is printed is the time of a step with the library against that without. For Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from cases import Case
from peak import peak_of, peak_of_training, preloaded, write_noise
from sides import Ours
from speed_options import SETTINGS, VARIANTS
from speed_rows import row, spread_of

from daso.report.results import append_row


@dataclass(frozen=True)
class Allocators:
    """Compare a library that is loaded before all others (LD_PRELOAD) with none."""

    library: Path
    """A name that the dynamic linker finds, or a path."""
    variants: tuple[str, ...] = ("float32", "float32-recomputed", "bfloat16", "bfloat16-apart")
    """Of our step; see speed.py."""
    rounds: int = 7
    """Rounds, in each of which both sides have their turn."""
    steps: int = 4
    """Steps of a turn."""
    threads: int = torch.get_num_threads()
    """Threads of torch."""
    quick: bool = False
    """Everything once on tiny sizes, to see that it works."""
    csv: Path | None = None
    """Append a row for every number here."""

    @property
    def setting(self) -> str:
        """Name of the sizes."""
        return "tiny" if self.quick else "wrn-28-2-64"


class Worker:
    """Our step in a process with a preloaded library."""

    def __init__(self, options: Allocators, variant: str, library: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", options.setting, variant],
            env=preloaded(library, options.threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, steps: int) -> float:
        """Return the seconds of a step."""
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        print(steps, file=pipes.stdin, flush=True)
        if not (answer := pipes.stdout.readline()):
            raise RuntimeError(f"a process that should take steps ended with status {pipes.wait()}")
        return float(json.loads(answer))

    def close(self) -> None:
        self._process.communicate()


def serve(setting: str, variant: str) -> None:
    """Take steps as standard input asks for them."""
    ours = Ours(Case(SETTINGS[setting], "fixmatch+daso", 10, "cpu", "wall"), VARIANTS[variant])
    for line in sys.stdin:
        print(json.dumps(ours.round(int(line))["step"]), flush=True)


def main(options: Allocators) -> None:
    name = options.library.name
    loaded = subprocess.run(
        ["cat", "/proc/self/maps"],
        env=preloaded(options.library, 1),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if (
        name not in loaded.stdout
    ):  # the dynamic linker goes on without a library that it does not find
        raise SystemExit(f"{options.library} cannot be loaded: is it installed?")
    alone = {
        library: peak_of("import torch", library=library, threads=options.threads)
        for library in (None, options.library)
    }
    print(f"{'':48} times as long with {name:30} peak MB without, with it")
    with tempfile.TemporaryDirectory() as place:
        write_noise(Path(place), quick=options.quick)
        for variant in options.variants:
            sides = [Worker(options, variant, library) for library in (None, options.library)]
            for side in sides:
                side.seconds(2)
            ratios = []
            for number in range(options.rounds):
                order = (0, 1) if number % 2 == 0 else (1, 0)
                taken = {at: sides[at].seconds(options.steps) for at in order}
                ratios.append(taken[1] / taken[0])
            for side in sides:
                side.close()
            peaks = [
                peak_of_training(
                    Path(place),
                    VARIANTS[variant],
                    f"{variant}-{at}",
                    quick=options.quick,
                    library=library,
                    threads=options.threads,
                )
                - alone[library]
                for at, library in enumerate((None, options.library))
            ]
            spread = spread_of(ratios)
            found = f"{spread['median']:.3f} ({spread['low']:.3f}-{spread['high']:.3f})"
            print(f"{VARIANTS[variant]!s:48} {found:49} {peaks[0]:.0f}, {peaks[1]:.0f}", flush=True)
            if options.csv is not None:
                columns = {"setting": options.setting, "method": "fixmatch+daso", "classes": 10}
                columns |= VARIANTS[variant].columns()
                about: dict[str, Any] = {"clock": "wall", "threads": options.threads, **columns}
                append_row(
                    options.csv,
                    row(f"step, times as long with {name}", spread, rounds=options.rounds, **about),
                )
                for peak, under in zip(peaks, ("", f", with {name}"), strict=True):
                    measured = f"peak host memory of a training above torch's import, MB{under}"
                    append_row(options.csv, row(measured, spread_of([peak]), rounds=1, **about))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        os.environ.pop("LD_PRELOAD", None)
        main(tyro.cli(Allocators))
