"""From a history to a score for designs: rows, standardised costs, reference point, and a model.

The model itself, and PyTorch with it, is in a private module that is imported when the first one is
fitted: that takes seconds, which storing and reading campaigns need not wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from dse.objective import Objective
from dse.space import Design, Ordinal, Space


class SurrogateError(RuntimeError):
    """No model could be fitted, or it has no usable prediction."""


@dataclass(frozen=True, slots=True)
class Known:
    """An objective that is read off one column of the rows, as a minimised cost."""

    column: int


@dataclass(frozen=True, slots=True)
class Learnt:
    """An objective that a Gaussian process learns from these columns of the rows."""

    ordinal: Sequence[int]
    categorical: Sequence[int]


Source: TypeAlias = Known | Learnt
Score: TypeAlias = Callable[[Sequence[Design]], Float[np.ndarray, " n"]]


@dataclass(frozen=True, slots=True)
class History:
    """What a proposal depends on.

    Attributes
    ----------
    done
        Designs of the finished trials, by trial.
    costs : (n, m)
        Their minimised objectives.
    pending
        Designs asked and not finished, by trial.
    asked
        Every design ever asked.
    """

    done: Sequence[Design]
    costs: Float[np.ndarray, "n m"]
    pending: Sequence[Design]
    asked: Collection[Design]


def reference_point(
    costs: Float[np.ndarray, "n m"], objectives: Sequence[Objective]
) -> Float[np.ndarray, " m"]:
    """Worst cost of interest: the threshold, or the worst so far plus 10 % of the range, (m,).

    The corner of the current front instead would give no credit to designs outside its box. Where
    all values are equal, the margin is 0.1.
    """
    spread = np.ptp(costs, axis=0)
    reference: Float[np.ndarray, " m"] = costs.max(axis=0) + 0.1 * np.where(spread > 0, spread, 1.0)
    for index, objective in enumerate(objectives):
        if objective.threshold is not None:
            reference[index] = objective.cost(np.array([objective.threshold]))[0]
    return reference


def sources(space: Space, objectives: Sequence[Objective]) -> list[Source]:
    """Columns each objective is read or learnt from: the encoding, then one per known objective."""
    found: list[Source] = []
    free = len(space.searched)
    for objective in objectives:
        if objective.known is not None:
            found.append(Known(free))
            free += 1
            continue
        used = [
            (column, isinstance(parameter, Ordinal))
            for column, parameter in enumerate(space.searched)
            if objective.inputs is None or parameter.name in objective.inputs
        ]
        ordinal = [column for column, is_ordinal in used if is_ordinal]
        found.append(Learnt(ordinal, [column for column, is_ordinal in used if not is_ordinal]))
    return found


def fit(
    space: Space,
    objectives: Sequence[Objective],
    known_costs: Callable[[Objective, Sequence[Design]], Float[np.ndarray, " n"]],
    history: History,
    *,
    seed: int,
) -> tuple[Score, list[str]]:
    """Fit models to a history.

    Parameters
    ----------
    known_costs
        Exact minimised costs (n,) of designs in a known objective.
    seed
        Of everything random in the model.

    Returns
    -------
    The score of designs, to be maximised, and a list that the model adds its notes to.

    Raises
    ------
    SurrogateError
        No model could be fitted; the score raises it too.
    """
    from dse import _gp

    # Every objective at unit scale: smoothing inside the acquisition function is absolute.
    centre, scale = history.costs.mean(axis=0), history.costs.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    known = [index for index, objective in enumerate(objectives) if objective.known is not None]

    def rows(designs: Sequence[Design]) -> Float[np.ndarray, "n c"]:
        exact = [(known_costs(objectives[i], designs) - centre[i]) / scale[i] for i in known]
        return np.column_stack([space.encode(designs), *exact])

    acquisition = _gp.Acquisition(
        rows(history.done),
        (history.costs - centre) / scale,
        sources(space, objectives),
        reference=(reference_point(history.costs, objectives) - centre) / scale,
        pending=rows(history.pending),
        seed=seed,
    )
    return lambda designs: acquisition(rows(designs)), acquisition.notes
