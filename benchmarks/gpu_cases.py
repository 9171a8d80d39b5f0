"""Lets the sides of a case take turns on a GPU, and shows what came of it."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import Case
from gpu_sides import Numbers, OurLoop, TheirLoop, Way
from remote import Remote
from speed_sections import ratio, show

from daso.report.results import append_row
from daso.train.folder.environment import describe_environment

CONVENTIONAL = "conventional: tf32"
WARM_UP_STEPS = 20


@dataclass(frozen=True)
class Rounds:
    """How long sides take turns.

    Attributes:
        count: of rounds.
        seconds: of a side's turn, about.
        workers: data-loading processes of each of the conventional pipeline's two loaders.
        limits: GFLOP/s of matrix products by precision.
        results: a file to append rows to, or None.
    """

    count: int
    seconds: float
    workers: int
    limits: Numbers
    results: Path | None

    def measure(self, case: Case, ways: tuple[Way, ...], found: dict[str, Any]) -> None:
        """Measure the sides of a case, put their numbers into *found* by label, and print them.

        Raises:
            RuntimeError: a side failed that worked at first.
        """
        sides, failed = start_sides(case, ways, self.workers)
        try:
            steps = {
                label: int(min(400, max(2, self.seconds / side.call("seconds", 5))))
                for label, side in sides.items()
            }
            times: dict[str, list[float]] = {label: [] for label in sides}
            for number in range(self.count):
                shift = number % len(sides)
                for label in [*sides][shift:] + [*sides][:shift]:
                    times[label].append(sides[label].call("seconds", steps[label]))
            chosen = {str(way): way for way in ways}
            eager = [way for way in ways if str(way) in sides and not (way.compile or way.graph)]
            flops = sides[str(eager[-1])].call("flops") if eager else None
            for label, side in sides.items():
                found[label] = {
                    "seconds": times[label],
                    "times_conventional": ratio(times[CONVENTIONAL], times[label])
                    if CONVENTIONAL in sides
                    else None,
                    "share_of_limit": self._share(flops, times[label], chosen.get(label)),
                    "waits": side.call("waits", steps[label]),
                    "megabytes": side.call("megabytes"),
                }
                if label in chosen:
                    found[label]["in_a_run"] = side.call("in_a_run", max(2, self.count))
                    found[label]["parts"] = side.call("parts", steps[label])
        finally:
            for side in sides.values():
                side.close()
        if self.results is not None:
            for label, numbers in found.items():
                append_row(self.results, row_of(case, label, numbers))
        found |= {label: {"failed": reason} for label, reason in failed.items()}
        if flops is not None:
            print(f"{flops / 1e9:,.0f} GFLOP a step")
        show_sides(found)

    def _share(self, flops: int | None, seconds: list[float], way: Way | None) -> float | None:
        if flops is None or (way is not None and way.weak_pass != "joint"):
            return None
        limit = self.limits.get("tf32" if way is None or way.tf32 else way.precision)
        return limit and flops / statistics.median(seconds) / 1e9 / limit


def start_sides(
    case: Case, ways: tuple[Way, ...], workers: int
) -> tuple[dict[str, Remote], dict[str, str]]:
    """Start all sides at once, as compiling takes long, and warm them up; return them and why others failed."""
    makers = {CONVENTIONAL: partial(Remote, 1, TheirLoop, case, workers, True)}
    makers |= {str(way): partial(Remote, 1, OurLoop, case, way) for way in ways}

    def start(label: str) -> Remote | str:
        try:
            remote = makers[label]()
            remote.call("seconds", WARM_UP_STEPS)
        except RuntimeError as error:
            return str(error)
        return remote

    with ThreadPoolExecutor(len(makers)) as pool:
        made = dict(zip(makers, pool.map(start, makers), strict=True))
    failed = {label: result for label, result in made.items() if isinstance(result, str)}
    return {label: result for label, result in made.items() if isinstance(result, Remote)}, failed


def show_sides(found: dict[str, Any]) -> None:
    """Print a line for every side; of a step's parts what the host is busy for, and all."""
    columns = ("ms", "in a run", "steps/s")
    print(f"{'':48}" + "".join(f"{column:>9}" for column in columns), end="")
    print(
        f"   times conventional  {'of limit':>8} {'waits':>6} {'MB':>7} {'batch, ms':>13} {'rest, ms':>13}"
    )
    for label, numbers in found.items():
        if "failed" in numbers:
            print(f"{label:48} failed: {numbers['failed']}")
            continue
        median, parts = statistics.median(numbers["seconds"]), numbers.get("parts")
        times = numbers["times_conventional"]
        cells = [
            f"{1000 * median:9.2f}",
            _shown(numbers.get("in_a_run"), 9, 2, 1000),
            f"{1 / median:9.1f}",
        ]
        cells += [
            f"   {show(times) if times else '':19}",
            _shown(numbers["share_of_limit"], 9, 0, 100),
        ]
        cells += [_shown(numbers["waits"], 7, 2), _shown(numbers["megabytes"], 8, 0)]
        for part in ("data", "step") if parts else ():
            cells.append(f" {1000 * parts[f'{part}, host']:6.2f}/{1000 * parts[part]:6.2f}")
        print(f"{label:48}" + "".join(cells))


def _shown(value: float | None, width: int, digits: int, factor: float = 1) -> str:
    return " " * (width - 1) + "-" if value is None else f"{factor * value:{width}.{digits}f}"


def row_of(case: Case, label: str, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return a side's row of the results."""
    environment = describe_environment(torch.device(case.device))
    milliseconds = sorted(1000 * seconds for seconds in numbers["seconds"])
    times = numbers["times_conventional"] or dict.fromkeys(("median", "low", "high"))
    in_a_run, share = numbers.get("in_a_run"), numbers["share_of_limit"]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **{name: environment[name] for name in ("commit", "hardware", "torch", "command")},
        "network": case.setting.network,
        "pixels": case.setting.side,
        "batch": case.setting.batch,
        "method": case.method,
        "num_classes": case.num_classes,
        "way": label,
        "rounds": len(milliseconds),
        "milliseconds": _rounded(statistics.median(milliseconds)),
        "milliseconds_low": _rounded(milliseconds[0]),
        "milliseconds_high": _rounded(milliseconds[-1]),
        "milliseconds_in_a_run": None if in_a_run is None else _rounded(1000 * in_a_run),
        **{f"times_conventional_{name}": _rounded(value) for name, value in times.items()},
        "share_of_limit": _rounded(share),
        "waits_per_step": _rounded(numbers["waits"]),
        "megabytes": _rounded(numbers["megabytes"]),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
