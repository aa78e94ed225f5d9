"""What a campaign has found: its trials as a table, their front, and predictions from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from dse import tables
from dse._threads import one_thread
from dse.fidelity import Fidelity, Level
from dse.history import History
from dse.ledger import Ledger
from dse.methods import Method
from dse.metrics import hypervolume, non_dominated, reference_point
from dse.objective import Objective, OutcomeConstraint
from dse.outcomes import Outcomes
from dse.space import Design, Space
from dse.trial import FINISHED, OPEN, State, Trial

if TYPE_CHECKING:
    import pandas as pd

    from dse.methods.active import ActiveLearning
    from dse.transfer import Source


class Results:
    """Trials of a campaign, to be looked at.

    Attributes
    ----------
    space
        What varies.
    fidelity
        How exactly it is evaluated, or ``None``.
    """

    space: Space
    fidelity: Fidelity | None
    _outcomes: Outcomes
    _ledger: Ledger
    _method: Method
    _seed: int
    _transfer: tuple[pd.DataFrame | Results | Source, ...]

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is wanted."""
        return self._outcomes.objectives

    @property
    def outcome_constraints(self) -> tuple[OutcomeConstraint, ...]:
        """Limits on measured quantities."""
        return self._outcomes.constraints

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by id."""
        return tuple(self._ledger.trials)

    @property
    def notes(self) -> tuple[tuple[int, str], ...]:
        """What the method had to say on a proposal, as (trial, text): a fallback, a fit's warning."""
        return tuple(self._ledger.notes)

    @property
    def finished(self) -> int:
        """Number of trials that count towards a budget: measured or failed here, not attached."""
        return len(self._counted)

    @property
    def spent(self) -> float:
        """What they took from a budget: their number, or in units of full evaluations with a fidelity."""
        if self.fidelity is None:
            return self.finished
        return round(sum(trial.price for trial in self._counted), 9)

    @property
    def _counted(self) -> list[Trial]:
        return [t for t in self._ledger.trials if t.state in FINISHED and not t.attached]

    def frame(self) -> pd.DataFrame:
        """One row per trial: id, state, parameters, objectives, limits, scalar metrics, seconds, error.

        The fidelity, if there is one, follows the parameters under its name.
        Where a parameter or an outcome is called as one of the campaign's own columns, that one's name
        begins with ``trial_``.
        """
        return tables.frame(self.space, self._outcomes, self._ledger.trials)

    def pareto(self) -> pd.DataFrame:
        """Rows of `frame` that are done and not dominated, by ascending first objective.

        Only evaluations at full fidelity can be on the front.
        """
        done = self._exact
        best = non_dominated(self._outcomes.costs(done))
        front = [trial.id for trial, is_best in zip(done, best, strict=True) if is_best]
        rows = self.frame().loc[front]
        return rows.sort_values(self.objectives[0].name, kind="stable", ignore_index=True)

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """Hypervolume of the done trials, on the scale of each objective's transform; 0 without any.

        Evaluations below full fidelity do not count.

        Parameters
        ----------
        reference
            Worst value of interest of every objective. Without it, the threshold, or the worst value
            so far plus 10 % of the range: this moves, so give a fixed one to compare.
        """
        names = self._outcomes.names
        if reference is not None and sorted(reference) != sorted(names):
            raise ValueError(f"reference must have {', '.join(names)}, got {', '.join(reference)}")
        costs = self._outcomes.costs(self._exact)
        if reference is not None:
            corner = np.array([o.cost(np.array([o.check(reference[o.name])]))[0] for o in self.objectives])
        elif len(costs):
            corner = reference_point(costs, self._outcomes.thresholds)
        else:
            return 0.0
        return hypervolume(costs, corner)

    def predict(self, frame: pd.DataFrame) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Predict the learnt objectives of designs, from all that is known by now.

        The models are those of active learning, whatever the method of the campaign is. They learn from
        evaluations at full fidelity.

        Parameters
        ----------
        frame
            One design per row, parameters as columns; others are passed over. Of a table, its rows.

        Returns
        -------
        Central estimate and standard deviation of a measurement, in the units that are told: (n,) each
        for one learnt objective, (n, m) for more, in their order. Where an objective is modelled in the
        logarithm, the estimate is the median.

        Raises
        ------
        ValueError
            A design that the space does not have.
        PredictionError
            Too few results, or results that do not vary.
        """
        from dse.methods.active import predict

        designs = tables.designs_of(self.space, frame)
        with one_thread():
            mean, deviation = predict(self._learner, self._exact_history(), designs)
        return (mean[:, 0], deviation[:, 0]) if mean.shape[1] == 1 else (mean, deviation)

    @cached_property
    def _learner(self) -> ActiveLearning:
        from dse.methods.active import ActiveLearning

        if isinstance(self._method, ActiveLearning):
            return self._method
        return ActiveLearning(self.space, self.objectives, seed=self._seed, transfer=self._transfer)

    @property
    def prediction_report(self) -> tuple[str, ...]:
        """How the models of `predict` came about, line by line: their weights, and what was transferred."""
        with one_thread():
            models, notes = self._learner.models(self._exact_history())
        return (*(line for model in models for line in model.report), *notes)

    def _exact_history(self) -> History:
        history = self.history()
        return history if self.fidelity is None else history.at(self.fidelity.full)

    def history(self) -> History:
        """What a method may look at: the trials as plain arrays."""
        measured = self._of(State.DONE, State.INFEASIBLE)
        designs = self._ledger.designs

        def of(trials: Sequence[Trial]) -> list[Design]:
            return [designs[trial.id] for trial in trials]

        abandoned = self._of(State.ABANDONED) if self.fidelity is not None else []
        seconds = [np.nan if trial.seconds is None else trial.seconds for trial in measured]
        return History(
            done=of(measured),
            costs=self._outcomes.costs(measured),
            constraints=self._outcomes.excess(measured),
            failed=of(self._of(State.FAILED)),
            pending=of(self._of(*OPEN)),
            asked=designs,
            seconds=np.array(seconds, dtype=np.float64),
            levels=_levels(measured),
            failed_levels=_levels(self._of(State.FAILED)),
            pending_levels=_levels(self._of(*OPEN)),
            abandoned=list(zip(of(abandoned), _levels(abandoned), strict=True)),
        )

    @property
    def _exact(self) -> list[Trial]:
        """Trials done at full fidelity."""
        return [t for t in self._of(State.DONE) if self.fidelity is None or t.fidelity == self.fidelity.full]

    def _of(self, *states: State) -> list[Trial]:
        return [trial for trial in self._ledger.trials if trial.state in states]


def _levels(trials: Sequence[Trial]) -> list[Level]:
    """Levels of trials; none in a campaign without fidelities, whose trials have none."""
    return [trial.fidelity for trial in trials if trial.fidelity is not None]
