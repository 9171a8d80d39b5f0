"""Readouts: classifiers fitted in seconds to features of labeled and unlabeled images."""

from daso.readout.choice import Choice as Choice
from daso.readout.choice import choose as choose
from daso.readout.logistic import LinearHead as LinearHead
from daso.readout.logistic import fit_logistic as fit_logistic
from daso.readout.mixture import MixtureFit as MixtureFit
from daso.readout.mixture import MixtureOptions as MixtureOptions
from daso.readout.mixture import fit_mixture as fit_mixture
from daso.readout.projection import Projection as Projection
