"""Ways to search assignments of formats with an oracle that is asked a limited number of times [VaPr]_.

Each takes an `Asking` and a seed and asks until it is done or the budget is spent; the answer is the best of
what was asked.

References
----------
.. [VaPr] "VaPr: Variable-Precision Tensors to Accelerate Robot Motion Planning", arXiv 2310.07854.
"""

from __future__ import annotations

from itertools import product
from math import log10

import numpy as np
from jaxtyping import Float

from dse.allocate import Allocation, AllocationError, exact
from studies.allocation.asking import Asking, BudgetSpentError, SearchError

_BISECTIONS = 12  # of the limit of an additive model


def exhaustive(asking: Asking, seed: int) -> None:  # noqa: ARG001
    """All assignments, the cheapest first, until one is admitted: it is the best.

    Raises
    ------
    SearchError
        There are more than the budget.
    """
    size = len(asking.formats) ** len(asking.groups)
    if size > asking.budget:
        raise SearchError(f"exhaustive takes a budget of {size:,}, all assignments, got {asking.budget:,}")
    every = product(range(len(asking.formats)), repeat=len(asking.groups))
    for choice in sorted(every, key=asking.traffic_of):
        if asking.ask(choice).feasible:
            return


def random(asking: Asking, seed: int) -> None:
    """Assignments drawn uniformly."""
    rng = np.random.default_rng(seed)
    size = len(asking.formats) ** len(asking.groups)
    while len(asking.asked) < size:
        asking.ask(rng.integers(len(asking.formats), size=len(asking.groups)).tolist())


def by_size(asking: Asking, seed: int) -> None:  # noqa: ARG001
    """Group by group, that which moves most first: narrower formats until one is not admitted."""
    choice = [0] * len(asking.groups)
    for g in np.argsort(-asking.traffic[:, 0], kind="stable").tolist():
        for o in range(1, len(asking.formats)):
            if not asking.ask([*choice[:g], o, *choice[g + 1 :]]).feasible:
                break
            choice[g] = o


def additive(asking: Asking, seed: int) -> None:  # noqa: ARG001
    """Errors of one group at a time, added up; the best assignment by integer programming.

    Where the sum does not say what the oracle says, the limit on it is bisected in its logarithm.
    """
    losses = alone(asking)
    problem = additive_problem(asking, losses)
    low, high = None, None  # limits whose answer was admitted, and not admitted
    limit = 1.0
    for _ in range(_BISECTIONS):
        try:
            choice = exact(problem, max_loss=limit)
        except AllocationError:
            low = limit
        else:
            if asking.ask(choice).feasible:
                low = limit
            else:
                high = limit
        if low is None or high is None:
            limit *= 4.0 if high is None else 0.25
        else:
            limit = 10 ** ((log10(low) + log10(high)) / 2)


def alone(asking: Asking) -> Float[np.ndarray, "g o"]:
    """Errors with one group in a narrower format and the others in the widest, (g, o); never negative."""
    groups, options = len(asking.groups), len(asking.formats)
    losses = np.zeros((groups, options))
    for g, o in product(range(groups), range(1, options)):
        choice = [0] * groups
        choice[g] = o
        losses[g, o] = max(asking.ask(choice).error, 0.0)
    return losses


def additive_problem(asking: Asking, losses: Float[np.ndarray, "g o"]) -> Allocation:
    """Least traffic under a limit on a sum of errors."""
    return Allocation(
        groups=tuple(group.name for group in asking.groups),
        options=asking.formats,
        cost=asking.traffic,
        loss=losses,
    )


def bayesian(asking: Asking, seed: int, *, questions: int | None = None) -> None:
    """A campaign whose traffic is known and whose quality is a constraint that is learnt.

    Parameters
    ----------
    questions
        Trials at most; by default the budget.
    """
    most = asking.budget if questions is None else questions
    from dse import Campaign, Objective, Ordinal, OutcomeConstraint, Space

    # Parameters are the places of the formats; names of groups may be any text.
    names = [f"group {g}" for g in range(len(asking.groups))]
    space = Space([Ordinal(name, range(len(asking.formats))) for name in names])
    wanted = Objective("traffic", known=lambda p: asking.traffic_of([int(p[name]) for name in names]))  # type: ignore[arg-type]
    limit = OutcomeConstraint("error", at_most=0.0)
    with Campaign(space, [wanted], seed=seed, outcome_constraints=[limit]) as campaign:
        while len(campaign.trials) < most and (trials := campaign.ask()):
            found = asking.ask([int(trials[0].parameters[name]) for name in names])  # type: ignore[arg-type]
            campaign.tell(trials[0], {"error": asking.decades(found.quality)})


__all__ = ["BudgetSpentError", "additive", "alone", "bayesian", "by_size", "exhaustive", "random"]
