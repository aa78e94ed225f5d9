"""Bayesian search of design spaces. Knows no chip, no format and no network.

A problem is a `Space`, some `Objective` s and an evaluator; a `Campaign` searches it by ask and tell
and keeps every evaluation.
"""

from dse.campaign import Campaign
from dse.executors import BackOff, InfrastructureDown, Measurement, SetupError
from dse.executors.base import Evaluation, Evaluator
from dse.fidelity import Fidelity
from dse.metrics import adrs, hypervolume, hypervolume_regret, non_dominated
from dse.objective import Objective, OutcomeConstraint
from dse.prediction import PredictionError
from dse.space import (
    Categorical,
    ConstraintError,
    Integer,
    Ordinal,
    Permutation,
    PowerOfTwo,
    Real,
    Space,
)
from dse.store import CampaignLocked, StoreError, StoreMismatch
from dse.trial import Asked, Done, Event, Failed, InfrastructureError, Started, State, Trial

__all__ = [
    "Asked",
    "BackOff",
    "Campaign",
    "CampaignLocked",
    "Categorical",
    "ConstraintError",
    "Done",
    "Evaluation",
    "Evaluator",
    "Event",
    "Failed",
    "Fidelity",
    "InfrastructureDown",
    "InfrastructureError",
    "Integer",
    "Measurement",
    "Objective",
    "Ordinal",
    "OutcomeConstraint",
    "Permutation",
    "PowerOfTwo",
    "PredictionError",
    "Real",
    "SetupError",
    "Space",
    "Started",
    "State",
    "StoreError",
    "StoreMismatch",
    "Trial",
    "adrs",
    "hypervolume",
    "hypervolume_regret",
    "non_dominated",
]
