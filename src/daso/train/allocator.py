"""Set glibc's malloc for training."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Constants of glibc's ``malloc.h``."""


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep freed memory; return whether it does.

    By default, large activations are returned to the system and paged in again at every step. The
    numbers do not change; the process stays as large as its peak. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
