"""How much each parameter matters: the hypervolume that is lost when it is pinned to a value.

Around designs of the front, the parameter takes each of its values in turn while one other parameter at a
time may answer. The designs so reached are known exactly in energy, cycles and area. Their training is
measured where some trial had the same numerics, and predicted elsewhere, by a model of what the campaign
has measured. The front of all of them is the best that is in reach; pinned to one value, the parameter
loses part of its hypervolume.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dse import Objective, Space, hypervolume
from dse.diagnostics import FEWEST, Model
from dse.metrics import reference_point
from studies.codesign.pricing import Parameters, numerics_names

if TYPE_CHECKING:
    from studies.codesign.campaign import Result

_CENTRES = 8  # designs of the front, evenly along it, around which is looked
_WORST_LOG10 = 3.0  # of a loss beyond its best, so that a network that broke does not bend the model


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What pinning costs.

    Attributes
    ----------
    lost
        By parameter and value: share of the hypervolume in reach that is lost, 0 to 1.
    designs
        How many designs were looked at.
    explained
        Of each learnt objective: share of the variance that the model predicts of left-out trials.
    """

    lost: dict[str, dict[Any, float]]
    designs: int
    explained: dict[str, float]

    def least(self, name: str) -> float:
        """Loss of the best value of a parameter: what it costs not to have the choice."""
        return min(self.lost[name].values())

    def most(self, name: str) -> float:
        """Loss of the worst value of a parameter."""
        return max(self.lost[name].values())

    def rows(self) -> list[dict[str, Any]]:
        """One row per parameter, the one that costs most to pin first."""
        names = sorted(self.lost, key=lambda name: -self.most(name))
        return [
            {
                "parameter": name,
                "best": min(self.lost[name], key=lambda value: self.lost[name][value]),
                "least": self.least(name),
                "most": self.most(name),
                "values": [(value, lost) for value, lost in self.lost[name].items()],
            }
            for name in names
        ]


def sensitivity_of(result: Result) -> Sensitivity | None:
    """Pin every parameter of the space that varies; nothing if too few trials have a result for a model.

    Notes
    -----
    The reference point is the worst of all designs in reach, or the objective's threshold.
    """
    if len(result.done.drop_duplicates("trained_in")) < FEWEST or result.front.empty:
        return None
    space = result.space
    reached = _around(space, _centres(result))
    learnt = _Learnt(result)
    costs = np.column_stack([learnt.costs(objective, reached) for objective in result.objectives])
    limits = [_limit(objective) for objective in result.objectives]
    corner = reference_point(costs, limits)
    whole = hypervolume(costs, corner)
    if whole == 0.0:
        return None
    lost: dict[str, dict[Any, float]] = {}
    for position, parameter in enumerate(space.parameters):
        if parameter.size == 1:
            continue
        at = np.array([str(design[position]) for design in reached])
        lost[parameter.name] = {
            value: 1.0 - hypervolume(costs[at == str(value)], corner) / whole for value in parameter.values()
        }
    return Sensitivity(lost, len(reached), learnt.explained)


def _limit(objective: Objective) -> float:
    """Worst cost of interest, NaN if nothing says."""
    if objective.threshold is None:
        return float("nan")
    return float(objective.cost(np.array([objective.threshold]))[0])


def _centres(result: Result) -> list[dict[str, Any]]:
    """Parameters of designs of the front, by ascending energy."""
    ids = result.front.sort_values("energy_pj")["id"].tolist()
    places = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _CENTRES)).round().astype(int))
    by_id = {trial.id: trial.parameters for trial in result.trials}
    return [dict(by_id[ids[place]]) for place in places]


def _around(space: Space, centres: Sequence[Parameters]) -> list[tuple[Any, ...]]:
    """Feasible designs that differ from a centre in at most two parameters, each once."""
    found: dict[tuple[Any, ...], None] = {}
    for centre in centres:
        for design in _neighbours(space, tuple(centre[name] for name in space.names)):
            if design not in found and space.is_feasible(design):
                found[design] = None
    return list(found)


def _neighbours(space: Space, design: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    choices = [list(parameter.values()) for parameter in space.parameters]
    for first, pins in enumerate(choices):
        for pin in pins:
            pinned = (*design[:first], pin, *design[first + 1 :])
            for second in range(first + 1, len(choices)):
                for answer in choices[second]:
                    yield (*pinned[:second], answer, *pinned[second + 1 :])


class _Learnt:
    """Objectives of designs: known, measured, or predicted."""

    def __init__(self, result: Result) -> None:
        self.result, self.space = result, result.space
        self.names = numerics_names(result.config.space)
        self.places = [self.space.names.index(name) for name in self.names]
        self.explained: dict[str, float] = {}

    def costs(self, objective: Objective, designs: Sequence[tuple[Any, ...]]) -> np.ndarray:
        """Costs (n,) as the search compares them."""
        if objective.known is not None:
            values = [objective.known(self.space.parameters_of(design)) for design in designs]
            return objective.cost(np.array(values))
        measured = self._measured(objective)
        wanted = list(dict.fromkeys(self._key(design) for design in designs))
        unknown = [key for key in wanted if key not in measured]
        predicted = dict(zip(unknown, self._predicted(objective, measured, unknown), strict=True))
        return np.array([{**predicted, **measured}[self._key(design)] for design in designs])

    def _measured(self, objective: Objective) -> dict[tuple[Any, ...], float]:
        """Costs by numerics; numerics that broke the training are as bad as the worst that did not."""
        found: dict[tuple[Any, ...], float] = {}
        failed = []
        for trial in self.result.trials:
            key = tuple(trial.parameters[name] for name in self.names)
            if trial.state == "done":
                found.setdefault(key, float(objective.cost(np.array([trial.values[objective.name]]))[0]))
            elif trial.state == "failed":
                failed.append(key)
        worst = max(found.values())
        return {**dict.fromkeys(failed, worst), **found}

    def _key(self, design: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(design[place] for place in self.places)

    def _predicted(
        self, objective: Objective, measured: dict[tuple[Any, ...], float], unknown: list[tuple[Any, ...]]
    ) -> np.ndarray:
        if not unknown:
            return np.empty(0)
        costs = np.array(list(measured.values()))
        costs = np.minimum(costs, costs.min() + _WORST_LOG10)
        if np.ptp(costs) == 0:
            return np.full(len(unknown), costs[0])
        numerics = Space([self.space.parameters[place] for place in self.places])
        model = Model(numerics, list(measured), costs, seed=self.result.config.seed)
        self.explained[objective.name] = model.explained
        mean: np.ndarray = model.predict(unknown)[0]
        return mean
