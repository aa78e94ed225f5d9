"""Bayesian search that also chooses how exactly to evaluate: cheap evaluations find where full ones pay.

It begins with a Sobol sequence at the cheapest level, some designs of which are then evaluated fully. From
there on, each evaluation is the pair of design and level that tells most per cost about where the front can
improve. Two guards keep misleading levels from doing harm: an objective whose full results are predicted
better without the cheap ones learns from full ones alone, and where all do, the search goes on as one
without fidelities; and cheap evaluations never cost more than full ones, those of the beginning apart, so
that at most half of a budget is lost to them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from dse.fidelity import Fidelity, Level
from dse.history import History
from dse.methods.base import Proposal, stream
from dse.methods.bayesian import BayesianSearch
from dse.objective import Objective
from dse.space import Design, Space

_FIRST_FULL = 3  # full evaluations before fidelities are chosen: fewer do not tell whether cheap ones mislead
_WORTH_BEGINNING = 0.5  # price up to which the initial design is evaluated at the cheapest level
_CANDIDATES = 500  # of a space that is too large to list, beside the best one found
_MODEL = 31  # stream of random numbers, apart from those of the plain search

Pair = tuple[Design, Level]


class FidelitySearch(BayesianSearch):
    """Noisy expected improvement at full fidelity, and the evaluation that tells most about it per cost.

    Parameters
    ----------
    fidelity
        Levels and prices. All others are those of `BayesianSearch`; `initial` designs are evaluated at the
        cheapest level.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        outcome_constraints: Sequence[Any] = (),
        *,
        fidelity: Fidelity,
        **options: Any,
    ) -> None:
        super().__init__(space, objectives, outcome_constraints, **options)
        self._fidelity = fidelity
        self._joint_state: dict[Any, Any] = {}

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """Return up to `n` pairs of design and level, none of which the campaign had."""
        super()._scale_features(history)
        pairs = self._beginning(history, n)
        notes: list[str] = []
        if len(pairs) < n:
            from dse._bayes.models import ModelError

            now = history.expecting(pairs)
            try:
                pairs += self._search(number, now, n - len(pairs), notes)
            except ModelError as error:
                notes.append(f"Sobol design: {error}")
                pairs += self._without_model(now, n - len(pairs))
        return Proposal(tuple(d for d, _ in pairs), tuple(notes), levels=tuple(level for _, level in pairs))

    def _scale_features(self, history: History) -> None:
        """Keep the scale of the whole history, which `propose` sets."""

    def _beginning(self, history: History, n: int) -> list[Pair]:
        """Initial designs at the cheapest level, and then the first full evaluations."""
        cheap = self._cheapest(history)
        new = min(max(self._initial - len(history.asked), 0), n)
        pairs: list[Pair] = [(design, cheap) for design in self._first(history, new)]
        if len(pairs) == n or cheap == self._fidelity.full:
            return pairs
        now = history.expecting(pairs)
        full = [level for level in self._levels(now) if level == self._fidelity.full]
        missing = min(max(_FIRST_FULL - len(full), 0), n - len(pairs))
        raised = [design for design, _ in zip(self._to_raise(now), range(missing), strict=False)]
        return [*pairs, *((design, self._fidelity.full) for design in raised)]

    def _cheapest(self, history: History) -> Level:
        """Level to begin at."""
        prices = self._prices(history)
        level = min(self._fidelity.levels, key=prices.__getitem__)
        return level if prices[level] <= _WORTH_BEGINNING else self._fidelity.full

    def _prices(self, history: History) -> dict[Level, float]:
        return self._fidelity.measured_prices(history.levels, history.seconds)

    @staticmethod
    def _levels(history: History) -> tuple[Level, ...]:
        """Levels of all trials but the abandoned ones."""
        return (*history.levels, *history.failed_levels, *history.pending_levels)

    def _open(self, history: History) -> dict[Design, Level]:
        """Highest level so far of the designs that may be evaluated at a higher one."""
        failed = set(history.failed)
        return {
            design: level
            for design, level in history.highest.items()
            if level < self._fidelity.full and design not in failed
        }

    def _to_raise(self, history: History) -> Iterator[Design]:
        """Designs to evaluate fully after the cheap ones: in turn the best so far and the first asked.

        The best may be on the front; the others say how cheap evaluations relate to full ones.
        """
        left = self._open(history)
        done = [place for place, design in enumerate(history.done) if design in left]
        ranks = history.costs[done].argsort(axis=0).argsort(axis=0).sum(axis=1)
        by_rank = [done[i] for i in np.lexsort((ranks, ~history.feasible[done]))]
        best, first = [history.done[place] for place in by_rank], list(left)
        while left:
            for queue in (best, first):
                while queue and queue[0] not in left:
                    queue.pop(0)
                if queue:
                    del left[queue[0]]
                    yield queue.pop(0)

    def _dearest(self, history: History) -> float:
        """Price up to which a cheap evaluation keeps the cheap ones below what the full ones cost."""
        prices = self._prices(history)
        levels, full = self._levels(history), self._fidelity.full
        spent = sum(prices[level] for level in levels if level < full)
        allowed = sum(level == full for level in levels) + self._initial * prices[self._cheapest(history)]
        return allowed - spent

    def _without_model(self, history: History, n: int) -> list[Pair]:
        """Next designs of the Sobol sequence, cheaply while that may be; then open ones, fully."""
        pairs: list[Pair] = []
        for _ in range(n):
            now = history.expecting(pairs)
            cheap = self._cheapest(now)
            level = cheap if self._prices(now)[cheap] <= self._dearest(now) else self._fidelity.full
            fresh = self._start.next(now, 1)
            if fresh:
                pairs.append((fresh[0], level))
            elif (raised := next(self._to_raise(now), None)) is not None:
                pairs.append((raised, self._fidelity.full))
        return pairs

    def _search(self, number: int, history: History, n: int, notes: list[str]) -> list[Pair]:
        joint = self._joint(number, history)
        learnt = [j for j, model in enumerate(joint.models) if model is not None]
        names = ", ".join(self._objectives[j].name for j in joint.misled)
        if names:
            notes.append(f"levels of {self._fidelity.name} below the full one tell nothing of {names}")
        if learnt and len(joint.misled) == len(learnt):
            exact = history.at(self._fidelity.full)
            plain = self.model(number, exact)
            notes += [*plain.notes, *self._transfer_notes(plain)]
            found = self._best(number, exact, plain, (), n)
            return [(design, self._fidelity.full) for design in found]
        notes += [*joint.notes, *self._transfer_notes(joint)]
        pairs: list[Pair] = []
        while len(pairs) < n:
            pair = self._choose(number + len(pairs), history.expecting(pairs), joint)
            if pair is None:
                break
            pairs.append(pair)
            if len(pairs) < n:
                joint.add_pending(self._with_levels([pair[0]], [pair[1]]))
        return pairs

    def _joint(self, number: int, history: History) -> Any:
        """Models of all evaluations, with the level as an input."""
        from dse._bayes.calibration import calibrated
        from dse._bayes.fidelity import FidelityModel
        from dse._bayes.models import Columns

        rows = self._with_levels(history.done, history.levels)
        column = rows.shape[1] - 1
        prices = self._prices(history)
        own = [self._inputs(j) for j in range(len(self._objectives))]
        costs, constraints = history.costs.copy(), history.constraints.copy()
        learnt = [costs[:, j] for j in range(costs.shape[1]) if j not in self._known_objectives]
        for outcome in (*learnt, *constraints.T):
            outcome[:] = calibrated(outcome, rows[:, column], history.done)
        return FidelityModel(
            rows,
            costs,
            Columns((*self._columns.numeric, column), self._columns.categorical),
            column=column,
            prices={self._fidelity.position(level): price for level, price in prices.items()},
            known={j: self._width + place for place, j in enumerate(self._known_objectives)},
            inputs={
                j: Columns((*each.numeric, column), each.categorical, trend=each.trend)
                for j, each in enumerate(own)
            },
            constraints=constraints,
            failed_rows=self._with_levels(history.failed, history.failed_levels),
            pending_rows=self._with_levels(history.pending, history.pending_levels),
            reference=self._thresholds,
            seconds=history.seconds if self._cost_aware else None,
            scalarise=self._scalarise,
            seed=int(stream(self._seed, _MODEL, number).integers(2**31)),
            state=self._joint_state,
        )

    def _with_levels(self, designs: Sequence[Design], levels: Sequence[Level]) -> Float[np.ndarray, "n c"]:
        """Rows of designs, and the position of a level each, (n, c)."""
        positions = np.array([self._fidelity.position(level) for level in levels], dtype=np.float64)
        return np.column_stack([self._rows(designs), positions])

    def _choose(self, place: int, history: History, joint: Any) -> Pair | None:
        left = self._open(history)
        candidates = self._candidates(place, history, joint, left)
        if not candidates:
            return None
        rows = self._with_levels(candidates, [self._fidelity.full] * len(candidates))
        had = [self._fidelity.position(left[d]) if d in left else -1.0 for d in candidates]
        choice = joint.choose(rows, above=np.array(had), dearest=self._dearest(history))
        level = next(
            each for each in self._fidelity.levels if self._fidelity.position(each) == choice.fidelity
        )
        return candidates[choice.candidate], level

    def _candidates(
        self, place: int, history: History, joint: Any, left: dict[Design, Level]
    ) -> list[Design]:
        """Designs that may be evaluated fully: all of a small space, otherwise promising ones."""
        exact = history.at(self._fidelity.full)
        blocked = set(exact.asked)
        if self._every is not None:
            return [design for design in self._every if design not in blocked]
        best = self._climb(place, exact, _AtFull(joint), blocked)
        if best is None:
            return list(left)
        others = [*left, *(design for design in self._pool if design not in blocked)]
        return list(dict.fromkeys([best, *others]))[: _CANDIDATES + len(left)]


class _AtFull:
    """A model of several fidelities as one of full evaluations, whose rows have no level."""

    def __init__(self, joint: Any) -> None:
        self._joint = joint

    def worth(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """Improvement by full evaluations, (k,)."""
        scores: Float[np.ndarray, " k"] = self._joint.score(np.column_stack([rows, np.ones(len(rows))]))
        return scores
