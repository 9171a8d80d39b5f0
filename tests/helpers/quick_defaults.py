"""Importing this makes trainings take less than daso's defaults do, and what they are does not depend on the machine."""

from __future__ import annotations

import functools

from daso.nets.encoders import patches
from daso.train import readout
from daso.train.encoder import patch_features, precision

MEASURING = precision._choose_on_cpu
"""Chooses the precision that is faster; a busy machine measures noise."""


@functools.cache
def without_measuring() -> precision.Choice:
    return precision.Choice("float32", "precision float32: as in all tests")


precision._choose_on_cpu = without_measuring
precision._units = tuple  # a frozen encoder's precision depends on them
FILTERS = patches.FILTERS
"""Patch filters of daso, for tests of what its features tell apart."""
patches.FILTERS, readout.COMPONENTS, patch_features.COMPONENTS = 60, 64, 64
