"""What a trial is told: objectives and limits by name, checked, and as the arrays that methods see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from dse.fidelity import Fidelity
from dse.objective import Objective, OutcomeConstraint
from dse.space import Design, Space, Value
from dse.store import to_json
from dse.trial import Json, State, Trial

T = TypeVar("T")

#: What a campaign's table says of a trial besides parameters and outcomes.
OWN = ("id", "state", "seconds", "error")


class Outcomes:
    """Objectives and outcome constraints of a campaign, with the exact values of the known ones.

    Parameters
    ----------
    fidelity
        Its name is a column too, which no parameter and no outcome may have.

    Raises
    ------
    ValueError
        No objective, names that repeat or are taken, or unknown inputs.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        constraints: Sequence[OutcomeConstraint],
        fidelity: Fidelity | None = None,
    ) -> None:
        self.fidelity = fidelity
        self.objectives = tuple(map(_remembering, objectives))
        self.constraints = tuple(constraints)
        self.names = tuple(objective.name for objective in self.objectives)
        self._space = space
        _check(space, self.objectives, self.constraints)
        #: Limits on quantities that are no objectives, which are told for themselves.
        self.limited = tuple(dict.fromkeys(c.name for c in self.constraints if c.name not in self.names))
        learnt = tuple(objective.name for objective in self.objectives if objective.known is None)
        self.told = (*learnt, *self.limited)
        taken = {*space.names, *self.names, *self.limited}
        if fidelity is not None:
            if fidelity.name in taken:
                raise ValueError(
                    f"the name of the fidelity must be no parameter's and no outcome's, got {fidelity.name!r}"
                )
            taken.add(fidelity.name)
        self._taken = taken
        #: Column of each of `OWN`: its name, or ``trial_`` and its name where that is taken.
        self.own = {name: f"trial_{name}" if name in taken else name for name in OWN}

    def known(self, objective: Objective, design: Design) -> float:
        """Exact value of a known objective."""
        assert objective.known is not None
        parameters = self._space.parameters_of(design)
        try:
            return objective.check(objective.known(parameters))
        except Exception as error:
            error.add_note(f"in the known objective {objective.name} of {parameters}")
            raise

    def measured(
        self, design: Design, values: Mapping[str, float]
    ) -> tuple[dict[str, float], dict[str, float], State]:
        """Objectives and limited quantities by name, and whether all limits are kept.

        Raises
        ------
        ValueError
            A value is missing, unknown, known beforehand, not finite, or not in the transform's domain.
        """
        for name in values:
            if name not in self.told:
                what = "known, hence computed and not told" if name in self.names else "not an objective"
                raise ValueError(f"values must be of {', '.join(self.told) or 'nothing'}; {name!r} is {what}")
        if missing := [name for name in self.told if name not in values]:
            kind = "objective" if missing[0] in self.names else "constraint"
            raise ValueError(f"{kind} {missing[0]} is missing in the values {dict(values)}")
        found = {
            objective.name: (
                objective.check(values[objective.name])
                if objective.known is None
                else self.known(objective, design)
            )
            for objective in self.objectives
        }
        limits = {c.name: c.check(values[c.name]) for c in self.constraints if c.name in self.limited}
        excess = [c.excess(np.array([{**found, **limits}[c.name]]))[0] for c in self.constraints]
        return found, limits, State.INFEASIBLE if any(part > 0 for part in excess) else State.DONE

    def check_metrics(self, metrics: Mapping[str, Json]) -> None:
        """``ValueError`` of a metric that is no JSON or bears another column's name."""
        taken = {*self.own.values(), *self._taken}
        for name, metric in metrics.items():
            if not isinstance(name, str) or name in taken:
                raise ValueError(f"a metric must have a name of its own as text, got {name!r}")
            to_json(metric, f"metric {name}")

    def costs(self, trials: Sequence[Trial]) -> Float[np.ndarray, "n m"]:
        """Minimised and transformed objectives of measured trials, (n, m)."""
        columns = [
            objective.cost(np.array([trial.values[objective.name] for trial in trials], dtype=np.float64))
            for objective in self.objectives
        ]
        return np.column_stack(columns)

    @property
    def thresholds(self) -> Float[np.ndarray, " m"]:
        """Worst costs of interest, (m,); NaN where nothing is said."""
        return np.array(
            [np.nan if o.threshold is None else o.cost(np.array([o.threshold]))[0] for o in self.objectives]
        )

    def excess(self, trials: Sequence[Trial]) -> Float[np.ndarray, "n k"]:
        """Amount by which measured trials break each constraint, (n, k)."""
        columns = [
            constraint.excess(
                np.array(
                    [{**trial.values, **trial.constraints}[constraint.name] for trial in trials],
                    dtype=np.float64,
                )
            )
            for constraint in self.constraints
        ]
        return np.column_stack([np.empty((len(trials), 0)), *columns])


def _check(space: Space, objectives: Sequence[Objective], constraints: Sequence[OutcomeConstraint]) -> None:
    if not objectives:
        raise ValueError("a campaign must have at least one objective, got none")
    names = [objective.name for objective in objectives]
    for index, name in enumerate(names):
        if name in names[:index] or name in space.names:
            raise ValueError(f"objective names must be distinct and no parameter's, got {name!r}")
    for constraint in constraints:
        if constraint.name in space.names:
            raise ValueError(f"names of outcome constraints must be no parameter's, got {constraint.name!r}")
    for objective in objectives:
        for name in objective.inputs or ():
            if name not in space.names:
                raise ValueError(
                    f"inputs of {objective.name} must be among {', '.join(space.names)}, got {name!r}"
                )


def _remembering(objective: Objective) -> Objective:
    """Objective whose functions are called once per design: they may cost more than a model."""
    if objective.known is not None and not isinstance(objective.known, _Remembered):
        return replace(objective, known=_Remembered(objective.known))
    if objective.features is not None and not isinstance(objective.features, _Remembered):
        return replace(objective, features=_Remembered(objective.features))
    return objective


class _Remembered(Generic[T]):
    """A function of the parameters of a design with its results so far."""

    def __init__(self, function: Callable[[dict[str, Value]], T]) -> None:
        self._function = function
        self._results: dict[tuple[Value, ...], T] = {}

    def __call__(self, parameters: dict[str, Value]) -> T:
        key = tuple(parameters.values())
        if key not in self._results:
            self._results[key] = self._function(parameters)
        return self._results[key]
