"""How the C library hands out memory on the host."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's ``malloc.h``."""


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed, for a process that only trains; return whether it does now.

    By default a large activation is given back to the system and paged in anew at every step. Numbers do not change;
    the process stays as large as it was at its largest. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
