"""Readouts: classifiers fitted in seconds to features of labeled and unlabeled images."""

from daso.readout.choice import Choice, choose
from daso.readout.logistic import LinearHead, fit_logistic
from daso.readout.mixture import MixtureFit, MixtureOptions, fit_mixture
from daso.readout.projection import Projection

__all__ = [
    "Choice",
    "LinearHead",
    "MixtureFit",
    "MixtureOptions",
    "Projection",
    "choose",
    "fit_logistic",
    "fit_mixture",
]
