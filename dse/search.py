"""What to evaluate next: a function of the seed, the trial and the history, and of nothing else.

The acquisition function is maximised over the feasible designs themselves, never over a relaxation
of them: over all of them where they are few, otherwise over a pool and the neighbours of the front,
followed by hill climbs from the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float

from dse.metrics import non_dominated
from dse.objective import Objective
from dse.space import Design, Space
from dse.surrogate import History, Score, SurrogateError, fit

METHODS = ("random", "sobol", "qlognehvi")

_WALKED = 20_000  # products up to this size are walked in search of a complete list of candidates
_ENUMERATED = 5_000  # feasible designs, up to which every one is a candidate
_POOL = 1_500
_FRONT_NEIGHBOURS = 300
_CLIMBS = 3

# Streams of random numbers, so that none repeats another.
_SEQUENCE, _POOL_STREAM, _NEIGHBOUR_STREAM, _MODEL_STREAM = range(4)


class Search:
    """Proposes designs of a space for objectives, by a method.

    Parameters
    ----------
    seed
        Equal seeds and histories give equal proposals.
    method
        ``"random"``, ``"sobol"`` or ``"qlognehvi"``.
    initial
        Trials of the scrambled Sobol sequence with which ``"qlognehvi"`` begins.
    """

    def __init__(
        self, space: Space, objectives: Sequence[Objective], *, seed: int, method: str, initial: int
    ) -> None:
        self._space = space
        self._objectives = objectives
        self._seed = seed
        self._method = method
        self._initial = initial
        self._sequence = space.sequence(self._rng(_SEQUENCE), sobol=method != "random")
        self._known: dict[tuple[str, Design], float] = {}
        self._feasible: dict[Design, bool] = {}
        self._pool: list[Design] | None = None
        self._complete = False

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=stream))

    def known(self, objective: Objective, design: Design) -> float:
        """Exact value of a known objective, computed once per design."""
        assert objective.known is not None
        key = (objective.name, design)
        if key not in self._known:
            parameters = self._space.parameters_of(design)
            try:
                self._known[key] = objective.check(objective.known(parameters))
            except Exception as error:
                error.add_note(f"in the known objective {objective.name} of {parameters}")
                raise
        return self._known[key]

    def propose(self, trial: int, history: History) -> tuple[Design | None, list[str]]:
        """Design of a new trial, or ``None`` where none is left; and notes for the record."""
        if self._method != "qlognehvi" or trial < self._initial:
            return self._next(history), []
        if len(history.done) < 2:
            return self._next(history), [
                f"Sobol design: a model needs 2 finished trials, got {len(history.done)}"
            ]
        candidates = self._candidates(trial, history)
        if not candidates:
            return self._next(history), []
        return self._best(trial, history, candidates)

    def _next(self, history: History) -> Design | None:
        return next((design for design in self._sequence if design not in history.asked), None)

    def _best(
        self, trial: int, history: History, candidates: list[Design]
    ) -> tuple[Design | None, list[str]]:
        seed = int(self._rng(_MODEL_STREAM, trial).integers(2**31))
        try:
            score, notes = fit(self._space, self._objectives, self._known_costs, history, seed=seed)
            design, value = self._maximise(score, candidates, history)
            if not np.isfinite(value):
                raise SurrogateError("the acquisition function is nowhere finite")
        except SurrogateError as error:
            return self._next(history), [f"Sobol design: {error}"]
        return design, list(dict.fromkeys(notes))

    def _known_costs(self, objective: Objective, designs: Sequence[Design]) -> Float[np.ndarray, " n"]:
        return objective.cost(np.array([self.known(objective, design) for design in designs]))

    def _is_feasible(self, design: Design) -> bool:
        if design not in self._feasible:
            self._feasible[design] = self._space.is_feasible(design)
        return self._feasible[design]

    def _moves(self, designs: Iterable[Design], history: History) -> Iterator[Design]:
        """Feasible designs, not asked yet, that differ in one parameter from one of these."""
        moves = dict.fromkeys(move for design in designs for move in self._space.moves(design))
        return (move for move in moves if move not in history.asked and self._is_feasible(move))

    def _candidates(self, trial: int, history: History) -> list[Design]:
        if self._pool is None:
            self._pool, self._complete = self._draw_pool()
        candidates = [design for design in self._pool if design not in history.asked]
        if self._complete:
            return candidates
        front = [
            design for design, best in zip(history.done, non_dominated(history.costs), strict=True) if best
        ]
        near = list(self._moves(front, history))
        # A wide space has thousands, and every new one may cost a call of a known objective.
        chosen = self._rng(_NEIGHBOUR_STREAM, trial).permutation(len(near))[:_FRONT_NEIGHBOURS]
        return list(dict.fromkeys([*candidates, *(near[index] for index in sorted(chosen))]))

    def _draw_pool(self) -> tuple[list[Design], bool]:
        """Candidates of the whole campaign, and whether they are all the feasible designs."""
        if self._space.size <= _WALKED:
            every = list(islice(self._space.designs(), _ENUMERATED + 1))
            if len(every) <= _ENUMERATED:
                return every, True
        return list(islice(self._space.sequence(self._rng(_POOL_STREAM)), _POOL)), False

    def _maximise(
        self,
        score: Score,
        candidates: list[Design],
        history: History,
    ) -> tuple[Design, float]:
        values = score(candidates)
        order = np.argsort(-values, kind="stable")
        best, best_value = candidates[order[0]], float(values[order[0]])
        if self._complete:
            return best, best_value
        scored = dict(zip(candidates, values.tolist(), strict=True))
        for start in order[:_CLIMBS]:
            design = candidates[start]
            while True:
                moves = list(self._moves([design], history))
                if fresh := [move for move in moves if move not in scored]:
                    scored.update(zip(fresh, score(fresh).tolist(), strict=True))
                top = max(moves, key=scored.__getitem__, default=design)
                if scored[top] <= scored[design]:
                    break
                design = top
            if scored[design] > best_value:
                best, best_value = design, scored[design]
        return best, best_value
