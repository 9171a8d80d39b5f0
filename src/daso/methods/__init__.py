"""Methods: turn labels, and guesses about unlabeled images, into losses."""

from daso.methods.fixmatch import FixMatch as FixMatch
from daso.methods.mean_teacher import MeanTeacher as MeanTeacher
from daso.methods.method import Batch as Batch
from daso.methods.method import Method as Method
from daso.methods.method import PseudoLabels as PseudoLabels
from daso.methods.method import Step as Step
from daso.methods.mixmatch import MixMatch as MixMatch
from daso.methods.pseudo_label import PseudoLabel as PseudoLabel
from daso.methods.remixmatch import ReMixMatch as ReMixMatch
from daso.methods.supervised import Supervised as Supervised
from daso.methods.usadtm import USADTM as USADTM
from daso.methods.variants.acr import ACR as ACR
from daso.methods.variants.adello import ADELLO as ADELLO
from daso.methods.variants.boss import BOSS as BOSS
from daso.methods.variants.cdmad import CDMAD as CDMAD
from daso.methods.variants.cossl import CoSSL as CoSSL
from daso.methods.variants.debiaspl import DebiasPL as DebiasPL
from daso.methods.variants.freematch import FreeMatch as FreeMatch
from daso.methods.variants.simpro import SimPro as SimPro
from daso.methods.variants.softmatch import SoftMatch as SoftMatch
