"""Weak and strong random views of batches of uint8 images, in plain torch, on any device."""

from __future__ import annotations

from daso.views.draws import Draws, WeakDraws, draw, draw_weak
from daso.views.operations import OPERATIONS, apply
from daso.views.views import crop, cut_out, strong, strong_from_draws, weak

__all__ = [
    "OPERATIONS",
    "Draws",
    "WeakDraws",
    "apply",
    "crop",
    "cut_out",
    "draw",
    "draw_weak",
    "strong",
    "strong_from_draws",
    "weak",
]
