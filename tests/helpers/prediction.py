"""What the command daso predict answers; the fixture ``predict`` runs it."""

from __future__ import annotations

from collections.abc import Callable

Rows = list[dict[str, str]]
Predict = Callable[..., tuple[Rows, str]]
NAMES = [str(k) for k in range(10)]
COUNT = 40
"""Number of images in the folder ``images``."""
