"""Available memory, according to the system."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files with a container's memory limit, in Linux's two versions."""


def available_memory() -> int | None:
    """Return the bytes a process can use without swapping; None if unknown.

    A container's limit counts in full: its usage would include cached files.
    """
    limits = [value for value in (_free(), *map(_limit, GROUP_LIMITS)) if value is not None]
    return min(limits, default=None)


def memory_shortage(count: int, shape: Sequence[int]) -> tuple[str, str] | None:
    """Return why *count* images (C, H, W) do not fit into memory, and a cure; None if they do."""
    needed, available = count * math.prod(shape), available_memory()
    if available is None or needed <= available:
        return None
    side = int((available / (3 * count)) ** 0.5) // 8 * 8
    return (
        f"{count:,} images of {shape[2]} x {shape[1]} pixels take {needed / 1e9:,.1f} GB of "
        f"memory; {available / 1e9:.1f} GB are available",
        "keep them on disk with --cache FOLDER, or give a smaller --size"
        + (f", at most {side}" if side else ""),
    )


def _free() -> int | None:
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        pages, size = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
    return pages * size if pages > 0 and size > 0 else None


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": no limit
        return None
