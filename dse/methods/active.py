"""Active learning for prediction: designs that make a model better, wherever the front is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from dse.history import History
from dse.methods.base import Proposal, Start, default_initial, stream
from dse.objective import Objective
from dse.prediction import Prediction, PredictionError, Predictor
from dse.space import Design, Space

_POOL = 2000  # candidates of a space that is too large to list
_WIDE = 10.0  # ratio of the largest to the smallest value from which a quantity is modelled in the logarithm


class ActiveLearning:
    """Greedy reduction of the variance that is left over the candidates, summed over the learnt objectives.

    Parameters
    ----------
    transfer
        Earlier campaigns that the models learn from, data frames or campaigns.

    Attributes
    ----------
    learnt
        Objectives that are no known functions, with their places.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        outcome_constraints: Sequence[Any] = (),  # noqa: ARG002  a model of what is excluded is wanted too
        *,
        method: str = "predict",  # noqa: ARG002
        seed: int,
        initial: int | None = None,
        transfer: Sequence[Any] = (),
    ) -> None:
        self._space, self._seed = space, seed
        self.learnt = [(j, each) for j, each in enumerate(objectives) if each.known is None]
        self._initial = default_initial(space) if initial is None else initial
        self._start = Start(space, seed=seed, sobol=True)
        # Models of the sources are kept by objective; on another scale they are others.
        self._predictors: dict[Literal["plain", "log"], Predictor] = {
            scale: Predictor(space, [each for _, each in self.learnt], transfer=transfer, seed=seed)
            for scale in ("plain", "log")
        }

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """Candidates of the largest reduction; the Sobol sequence until there are enough results."""
        if len(history.asked) < self._initial:
            return Proposal(self._start.next(history, n))
        models, notes = self.models(history)
        if not models:
            return Proposal(self._start.next(history, n), tuple(f"Sobol design: {note}" for note in notes))
        candidates = self._candidates(number, history, n)
        if len(candidates) <= n:
            return Proposal(tuple(candidates))
        seed = int(stream(self._seed, 1, number).integers(2**31))
        chosen = self._predictors["plain"].choose(models, candidates, n, pending=history.pending, seed=seed)
        return Proposal(chosen, notes)

    def models(self, history: History) -> tuple[list[Prediction], tuple[str, ...]]:
        """Models of the learnt objectives of which there are enough results, and why others have none."""
        models, notes = [], []
        for j, objective in self.learnt:
            scale, modelled, costs = scaled(objective, history.costs[:, j])
            try:
                models.append(self._predictors[scale].fit(modelled, history.done, costs))
            except PredictionError as error:
                notes.append(str(error))
        return models, tuple(notes) if self.learnt else ("every objective is known",)

    def _candidates(self, number: int, history: History, n: int) -> list[Design]:
        """New feasible designs: all of a table or of a small space, otherwise a sample."""
        if self._space.is_table or (self._space.size is not None and self._space.size <= _POOL):
            return [design for design in self._space.designs() if design not in history.asked]
        sequence = self._space.sequence(stream(self._seed, 2, number))
        fresh = (design for design in sequence if design not in history.asked)
        return list(islice(fresh, max(_POOL, 4 * n)))


def predict(
    learner: ActiveLearning, history: History, designs: Sequence[Design]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Central estimates and standard deviations of the learnt objectives, in the units that are told.

    Raises
    ------
    PredictionError
        An objective has no model.
    """
    models, notes = learner.models(history)
    if notes:
        raise PredictionError(notes[0])
    means, deviations = [], []
    for (j, objective), model in zip(learner.learnt, models, strict=True):
        _, on_scale, _ = scaled(objective, history.costs[:, j])
        mean, deviation = model.predict(designs)
        means.append(on_scale.value(mean))
        deviations.append(on_scale.deviation(mean, deviation))
    return np.column_stack(means), np.column_stack(deviations)


def scaled(
    objective: Objective, costs: Float[np.ndarray, " n"]
) -> tuple[Literal["plain", "log"], Objective, Float[np.ndarray, " n"]]:
    """Scale on which an objective is modelled, the objective on it, and its costs there, (n,).

    An objective that leaves the scale open is modelled in log10 where its values are positive and span
    more than a decade.
    """
    values = costs if objective.minimize else -costs
    wide = len(values) > 0 and values.min() > 0 and values.max() > _WIDE * values.min()
    if objective.transform != "auto" or not wide:
        return "plain", objective, costs
    logarithmic = replace(objective, transform="log", threshold=None)
    return "log", logarithmic, logarithmic.cost(values)
