"""Plans: divide a run into several trainings."""

from daso.plans.crest import CReST, CReSTPlus
from daso.plans.crt import CRT
from daso.plans.estimate import EstimatePrior
from daso.plans.plan import Plan, Stage

__all__ = ["CRT", "CReST", "CReSTPlus", "EstimatePrior", "Plan", "Stage"]
