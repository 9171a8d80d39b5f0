"""Weak and strong random views of batches of uint8 images, in plain torch, on any device."""

from daso.views.draws import Draws, WeakDraws, draw, draw_weak, join_draws
from daso.views.operations import OPERATIONS, apply
from daso.views.resized_crop import resized_crop
from daso.views.views import crop, cut_out, strong, strong_from_draws, weak

__all__ = [
    "OPERATIONS", "Draws", "WeakDraws", "apply", "crop", "cut_out", "draw", "draw_weak",
    "join_draws", "resized_crop", "strong", "strong_from_draws", "weak",
]  # fmt: skip
