"""Tests of what a user without rights sees, also where root runs them."""

from __future__ import annotations

import codecs
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Take the rights of root away, which would read everything; *folder* can be reached all the same."""
    if os.geteuid() != 0:
        yield
        return
    codecs.lookup("ascii")  # imported while that can be read
    above = [part for part in (folder, *folder.parents) if part.stat().st_mode & 0o755 == 0o700]
    modes = [part.stat().st_mode for part in above]
    for part in above:
        part.chmod(part.stat().st_mode | 0o55)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        for part, mode in zip(above, modes, strict=True):
            part.chmod(mode)
