"""Losses on labeled images; most give rare classes more weight."""

from daso.losses.class_balanced import ClassBalanced
from daso.losses.labeled import LabeledLoss
from daso.losses.ldam import LDAM
from daso.losses.logit_adjusted import LogitAdjusted

__all__ = ["LDAM", "ClassBalanced", "LabeledLoss", "LogitAdjusted"]
