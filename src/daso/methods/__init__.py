"""Methods: turn labels, and guesses about unlabeled images, into losses."""

from daso.methods.fixmatch import FixMatch
from daso.methods.mean_teacher import MeanTeacher
from daso.methods.method import Batch, Method, PseudoLabels, Step
from daso.methods.mixmatch import MixMatch
from daso.methods.pseudo_label import PseudoLabel
from daso.methods.remixmatch import ReMixMatch
from daso.methods.supervised import Supervised
from daso.methods.usadtm import USADTM
from daso.methods.variants.acr import ACR
from daso.methods.variants.adello import ADELLO
from daso.methods.variants.boss import BOSS
from daso.methods.variants.cdmad import CDMAD
from daso.methods.variants.cossl import CoSSL
from daso.methods.variants.debiaspl import DebiasPL
from daso.methods.variants.freematch import FreeMatch
from daso.methods.variants.simpro import SimPro
from daso.methods.variants.softmatch import SoftMatch

__all__ = [
    "ACR",
    "ADELLO",
    "BOSS",
    "CDMAD",
    "USADTM",
    "Batch",
    "CoSSL",
    "DebiasPL",
    "FixMatch",
    "FreeMatch",
    "MeanTeacher",
    "Method",
    "MixMatch",
    "PseudoLabel",
    "PseudoLabels",
    "ReMixMatch",
    "SimPro",
    "SoftMatch",
    "Step",
    "Supervised",
]
