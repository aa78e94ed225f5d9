"""Bayesian search: the design of the largest expected improvement, under models of the history.

The acquisition function is maximised over designs themselves: over all of a table or of a small space,
otherwise over a pool and the neighbours of the front, followed by hill climbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from dse.features import Features, Scale
from dse.history import History
from dse.methods.base import Proposal, Start, stream
from dse.metrics import non_dominated
from dse.objective import Objective
from dse.space import Design, Space
from dse.transfer import Source, SourcePredictions, seed_designs

if TYPE_CHECKING:
    from dse._bayes.models import Columns
    from dse._bayes.search import SearchModel

_INITIAL = 5  # trials that the models need; a larger initial design found fronts later on every table tried
# Designs of a product up to which all are candidates: fewer where each costs a call of a known objective.
_ENUMERATED, _ENUMERATED_KNOWN = 20_000, 5_000
_POOL = 1_500
_NEIGHBOURS = 300  # of the front, and of each step of a climb
_MUTATIONS = 32  # random neighbours of a design, where real parameters have no list of them

# Streams of random numbers, so that none repeats another; 0 is the sequence's.
_MODEL, _POOL_STREAM, _NEAR, _CLIMB = 11, 12, 13, 14


class Scoring(Protocol):
    """What a climb needs of a model."""

    def worth(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """What to choose the next design by, (k,)."""
        ...


class BayesianSearch:
    """Search by Gaussian processes and noisy expected improvement, in closed form where there is one.

    Parameters
    ----------
    method
        ``"qlognehvi"``: of the hypervolume, up to three objectives. ``"qlognparego"``: of random Chebyshev
        scalarisations, which is also what more objectives get. ``"auto"`` is the first where it can be.
    initial
        Trials of a Sobol sequence to begin with, by default five. Designs that were attached count. With
        a transfer, the sources' best come first.
    transfer
        Earlier campaigns or data frames. Their predictions are the prior mean, times a coefficient that is
        learnt, in one more member of each objective's committee, which its left-out predictions weight. A
        source that does not predict its own left-out results is left out of the models, with a note.
    cost_aware
        Improvement per second of evaluation, where the history has times that differ.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        outcome_constraints: Sequence[Any] = (),
        *,
        method: str = "auto",
        seed: int,
        initial: int | None = None,
        transfer: Sequence[Any] = (),
        cost_aware: bool = False,
    ) -> None:
        self._space, self._objectives = space, tuple(objectives)
        self._constraints = tuple(outcome_constraints)
        self._scalarise = method == "qlognparego"
        self._seed, self._cost_aware = seed, cost_aware
        self._sources = tuple(Source.of(given, f"source {i}") for i, given in enumerate(transfer))
        for source in self._sources:
            source.shared(space)  # an error where there is nothing in common
        self._initial = _INITIAL if initial is None else initial
        self._start = Start(space, seed=seed, sobol=True)
        self._known: dict[tuple[int, Design], float] = {}
        self._features = Features(space, self._objectives, seed)
        self._scale = Scale()
        self._state: dict[Any, Any] = {}

    def propose(self, number: int, history: History, n: int) -> Proposal:
        """Return up to `n` new designs; the Sobol sequence where no model can be fitted, with a note."""
        begin = min(max(self._initial - len(history.asked), 0), n)
        first = self._first(history, begin)
        if begin == n:
            return Proposal(first)
        from dse._bayes.models import ModelError

        try:
            model = self.model(number, history, also_pending=first)
            notes = (*model.notes, *self._transfer_notes(model))
            found = self._best(number, history, model, first, n - begin)
        except ModelError as error:
            rest = self._start.next(history, n - begin, without=first)
            return Proposal((*first, *rest), (f"Sobol design: {error}",))
        return Proposal((*first, *found), notes)

    def _first(self, history: History, n: int) -> tuple[Design, ...]:
        """Next designs to begin with: the best of the sources, then the Sobol sequence."""
        if not n:
            return ()
        seeds = seed_designs(self._sources, self._space, self._objectives, self._initial)
        best = [d for d in seeds if d not in history.asked and self._space.is_feasible(d)][:n]
        return (*best, *self._start.next(history, n - len(best), without=best))

    def _transfer_notes(self, model: SearchModel) -> list[str]:
        notes = []
        for j, (objective, part) in enumerate(zip(self._objectives, model.models, strict=False)):
            predictions = self._predictions[j]
            if part is None or predictions is None:
                continue
            if predictions.models:
                names = ", ".join(source.name for source in predictions.models)
                notes.append(f"transfer of {objective.name} from {names}: weight {part.weights[-1]:.2f}")
            notes += [
                f"no transfer of {objective.name} from {source.name}: it does not predict its own results, "
                f"R2 {source.quality:.2f}"
                for source in predictions.left_out
            ]
        return notes

    @cached_property
    def _predictions(self) -> list[Any]:
        """Per objective, what the sources predict; ``None`` where no source has it."""
        found: list[Any] = []
        for objective in self._objectives:
            known = objective.known is not None or not self._sources
            each = None if known else SourcePredictions(self._sources, self._space, objective, self._seed)
            found.append(each)
        return found

    def _inputs(self, j: int) -> Columns:
        """Columns that the model of an objective reads."""
        from dse._bayes.models import Columns

        parts: tuple[tuple[int, ...], ...] = self._column_parts
        names = self._objectives[j].inputs
        if names is not None:
            wanted = {c for name in names for c in self._space.columns_of(name)}
            parts = tuple(tuple(c for c in part if c in wanted) for part in parts)
        start = self._width + len(self._known_objectives)
        counts = [0 if found is None else len(found.models) for found in self._predictions]
        begin = start + sum(counts[:j])
        features = self._features.columns(j, start + sum(counts))
        return Columns((*parts[0], *features), parts[1], trend=tuple(range(begin, begin + counts[j])))

    def model(self, number: int, history: History, *, also_pending: Sequence[Design] = ()) -> SearchModel:
        """Models of a history, as trial `number` sees them.

        Raises
        ------
        ModelError
            Too little is known.
        """
        from dse._bayes.search import SearchModel

        self._scale_features(history)
        return SearchModel(
            self._rows(history.done),
            history.costs,
            self._columns,
            features=self._space.encode([]).features,
            known={j: self._width + place for place, j in enumerate(self._known_objectives)},
            inputs={j: self._inputs(j) for j in range(len(self._objectives))},
            constraints=history.constraints,
            failed_rows=self._rows(history.failed),
            pending_rows=self._rows((*history.pending, *also_pending)),
            reference=self._thresholds,
            seconds=history.seconds if self._cost_aware else None,
            scalarise=self._scalarise,
            seed=int(stream(self._seed, _MODEL, number).integers(2**31)),
            state=self._state,
        )

    def _scale_features(self, history: History) -> None:
        """Set the scale of the features by a history, for all rows from now on."""
        scale = self._features.scale(history.done)
        if scale != self._scale:
            self.__dict__.pop("_every_row", None)
            self._scale = scale

    @cached_property
    def _thresholds(self) -> Float[np.ndarray, " m"]:
        return np.array([_threshold(objective) for objective in self._objectives])

    @property
    def _known_objectives(self) -> list[int]:
        return [j for j, objective in enumerate(self._objectives) if objective.known is not None]

    @cached_property
    def _column_parts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        encoded = self._space.encode([])
        return (*encoded.numeric, *encoded.features), tuple(encoded.categorical)

    @cached_property
    def _columns(self) -> Columns:
        from dse._bayes.models import Columns

        return Columns(*self._column_parts)

    @property
    def _width(self) -> int:
        return sum(len(part) for part in self._column_parts)

    def _rows(self, designs: Sequence[Design]) -> Float[np.ndarray, "n c"]:
        """Encoding of designs, then known objectives, their exact costs, then predictions, then features."""
        rows = self._space.encode(designs).rows.reshape(len(designs), self._width)
        exact = [
            self._objectives[j].cost(np.array([self._exact(j, design) for design in designs]))
            for j in self._known_objectives
        ]
        predicted = [found(designs) for found in self._predictions if found is not None and len(designs)]
        if not len(designs):
            predicted = [np.empty((0, len(f.models))) for f in self._predictions if f is not None]
        features = self._scale(self._features.values(designs))
        return np.column_stack([rows, *exact, *predicted, features])

    def _exact(self, j: int, design: Design) -> float:
        """Value of a known objective, computed once per design."""
        if (j, design) not in self._known:
            objective = self._objectives[j]
            assert objective.known is not None
            parameters = self._space.parameters_of(design)
            try:
                self._known[j, design] = objective.check(objective.known(parameters))
            except Exception as error:
                error.add_note(f"in the known objective {objective.name} of {parameters}")
                raise
        return self._known[j, design]

    def _best(
        self, number: int, history: History, model: SearchModel, taken: Sequence[Design], n: int
    ) -> list[Design]:
        blocked = {*history.asked, *taken}
        if self._every is not None:
            left = np.array([i for i, design in enumerate(self._every) if design not in blocked], dtype=int)
            if not len(left):
                return []
            return [self._every[left[index]] for index in model.pick(self._every_row[left], n).tolist()]
        found: list[Design] = []
        for place in range(number, number + n):
            design = self._climb(place, history, model, blocked)
            if design is None:
                break
            blocked.add(design)
            found.append(design)
            if place + 1 < number + n:
                model.add_pending(self._rows([design]))
        return found

    @cached_property
    def _every(self) -> list[Design] | None:
        """All feasible designs, where there are few."""
        size = self._space.size
        most = _ENUMERATED_KNOWN if self._known_objectives or self._features else _ENUMERATED
        if size is None or (size > most and not self._space.is_table):
            return None
        return list(self._space.designs())

    @cached_property
    def _every_row(self) -> Float[np.ndarray, "n c"]:
        assert self._every is not None
        return self._rows(self._every)

    @cached_property
    def _pool(self) -> list[Design]:
        return list(islice(self._space.sequence(stream(self._seed, _POOL_STREAM)), _POOL))

    def _climb(self, place: int, history: History, model: Scoring, blocked: set[Design]) -> Design | None:
        from dse._bayes.maximise import maximise
        from dse._bayes.models import ModelError

        rng = stream(self._seed, _CLIMB, place)

        def moves(design: Design) -> list[Design]:
            return self._near([design], blocked, rng)

        front = [d for d, best in zip(history.done, non_dominated(history.costs), strict=True) if best]
        near = self._near(front, blocked, stream(self._seed, _NEAR, place))
        pool = list(dict.fromkeys([*(design for design in self._pool if design not in blocked), *near]))
        if not pool:
            return next(iter(self._start.next(history, 1, without=tuple(blocked))), None)
        design, value = maximise(lambda designs: model.worth(self._rows(designs)), pool, moves=moves, rng=rng)
        if not np.isfinite(value):
            raise ModelError("the acquisition function is nowhere finite")
        return design

    def _near(
        self, designs: Sequence[Design], blocked: set[Design], rng: np.random.Generator
    ) -> list[Design]:
        """Feasible neighbours that are not blocked, a random part of them where there are many."""
        moves = list(dict.fromkeys(move for design in designs for move in self._space.moves(design)))
        order: Int[np.ndarray, " n"] = rng.permutation(len(moves))
        feasible = (moves[i] for i in order if moves[i] not in blocked and self._space.is_feasible(moves[i]))
        near = list(islice(feasible, _NEIGHBOURS))
        if self._space.size is None:
            for design in designs:
                wandered = (self._space.mutate(design, rng) for _ in range(_MUTATIONS))
                near += [move for move in wandered if move is not None and move not in blocked]
        return near


def _threshold(objective: Objective) -> float:
    if objective.threshold is None:
        return float("nan")
    return float(objective.cost(np.array([objective.threshold]))[0])
