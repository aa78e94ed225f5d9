"""Bayesian search of discrete design spaces. Knows no chip, no format and no network.

A problem is a `Space`, some `Objective` s and an evaluator; a `Campaign` searches it by ask and tell
and keeps every evaluation.
"""

from dse.campaign import Campaign, Evaluation, Evaluator, InfrastructureError
from dse.metrics import hypervolume, non_dominated
from dse.objective import Objective
from dse.space import Categorical, Ordinal, Space
from dse.store import CampaignLocked, StoreError, StoreMismatch
from dse.trial import Asked, Done, Event, Failed, Started, State, Trial

__all__ = [
    "Asked",
    "Campaign",
    "CampaignLocked",
    "Categorical",
    "Done",
    "Evaluation",
    "Evaluator",
    "Event",
    "Failed",
    "InfrastructureError",
    "Objective",
    "Ordinal",
    "Space",
    "Started",
    "State",
    "StoreError",
    "StoreMismatch",
    "Trial",
    "hypervolume",
    "non_dominated",
]
