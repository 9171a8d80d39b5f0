"""Weak and strong random views of batches of uint8 images, in plain torch, on any device."""

from daso.views.draws import Draws, WeakDraws, draw, draw_weak, join_draws
from daso.views.operations import OPERATIONS
from daso.views.views import crop, strong_from_draws

__all__ = [
    "OPERATIONS", "Draws", "WeakDraws", "crop", "draw", "draw_weak", "join_draws",
    "strong_from_draws",
]  # fmt: skip
