"""Refiners: improve the guesses of a method about unlabeled images."""

from daso.refine.align import Align
from daso.refine.darp import DARP
from daso.refine.daso import DASO
from daso.refine.guess import Guess, Refiner, chain
from daso.refine.queue import PrototypeQueue
from daso.refine.sharpen import Sharpen

__all__ = ["DARP", "DASO", "Align", "Guess", "PrototypeQueue", "Refiner", "Sharpen", "chain"]
