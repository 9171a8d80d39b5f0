"""Methods: turn labels, and guesses about unlabeled images, into losses."""

from daso.methods.boss import BOSS
from daso.methods.fixmatch import FixMatch
from daso.methods.mean_teacher import MeanTeacher
from daso.methods.method import Batch, Method, PseudoLabels, Step
from daso.methods.mixmatch import MixMatch
from daso.methods.pseudo_label import PseudoLabel
from daso.methods.remixmatch import ReMixMatch
from daso.methods.supervised import Supervised
from daso.methods.usadtm import USADTM

__all__ = [
    "BOSS",
    "USADTM",
    "Batch",
    "FixMatch",
    "MeanTeacher",
    "Method",
    "MixMatch",
    "PseudoLabel",
    "PseudoLabels",
    "ReMixMatch",
    "Step",
    "Supervised",
]
