"""What a design is worth evaluating: models of a history, and the acquisition function on top of them.

Up to three objectives: log noisy expected improvement of the hypervolume, of the objective itself for one.
From four on, where the boxes are too many: of a Chebyshev scalarisation with random weights. Times the
probability that outcome constraints are met and that the design can be evaluated; per second where asked.

Models of tens of designs are sure of more than they know: a knob that changed nothing where it was varied
counts as one that never will, and a cliff beside the front is not looked for. So where the front stands
still, every other design explores: it is the one of the most uncertain outcomes among those that differ from
the front in a single input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_ndtr, logsumexp

from dse._bayes.acquisition import (
    boxes,
    log_expected_chebyshev_improvement,
    log_expected_hypervolume_improvement,
)
from dse._bayes.feasibility import FeasibilityModel
from dse._bayes.loo import LeaveOneOut
from dse._bayes.models import Cache, Columns, ModelError, OutcomeModel, SampledModel
from dse.metrics import non_dominated

_DRAWS = 8
_HYPERVOLUME_OBJECTIVES = 3
# Of the reference point beyond the worst observed cost, as a share of the range: the more, the fewer designs
# have been seen, since trade-offs beyond what was seen are then the likelier. With 10 % from the start, a
# search of a space of mostly infeasible designs works out the corner in which it found its first ones.
_MARGIN, _MARGIN_OF_ONE = 0.1, 10.0
_STALLED = 3  # results in a row that are not on the front, after which every other design explores
_LEAST_STALLED = 10  # finished designs before which no front stands still
_FAR = 1e3  # per further input that differs: more than any logarithm of a variance
_KNOWN_DEVIATION = 1e-6  # of a known objective, standardised
_ROWS = 2048  # per chunk, which bounds the memory
_COARSE, _KEPT = 4096, 1024  # above so many candidates, so many pass from a coarse estimate to the fine one


class SearchModel:
    """Scores designs by a history, to be maximised.

    Parameters
    ----------
    rows : (n, c)
        Finished designs, encoded.
    costs : (n, m)
        Their objectives, minimised.
    columns
        Which columns of the rows are inputs of the models.
    features
        Those of the columns that follow from the others: designs are not neighbours by them.
    known
        Column that holds the exact cost of a known objective, by index of the objective.
    inputs
        Columns that a learnt objective depends on, by index, where not all.
    constraints : (n, k)
        Measured quantities, kept where not positive.
    incumbents : (n,)
        Which finished designs an improvement is measured against; by default all.
    failed_rows : (f, c)
        Designs that could not be evaluated.
    pending_rows : (p, c)
        Designs being evaluated, whose outcome is integrated over.
    reference : (m,)
        Worst cost of interest, NaN for the default: beyond the worst observed by 10 % of the
        observed range, or by 10 / n of it while that is more.
        The corner of the present front would give no credit to designs outside its box.
    seconds : (n,)
        Evaluation times; if given, scores are per second. NaN where unknown.
    scalarise
        Chebyshev scalarisation with any number of objectives.
    seed
        Of the draws and the weights of a scalarisation.
    state
        Cache of fits, to be handed on from one model to the next; changes no result.

    Attributes
    ----------
    loo
        Leave-one-out quality per objective, on the scale it is modelled on; ``None`` for a known one.
    models
        Per learnt objective, ``None`` for a known one; empty while nothing is feasible.
    notes
        For the record.
    state

    Raises
    ------
    ValueError
        Shapes that do not fit, or values that are not finite.
    ModelError
        Too few designs, or none of the columns varies.
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        costs: Float[np.ndarray, "n m"],
        columns: Columns,
        *,
        features: Collection[int] = (),
        known: Mapping[int, int] | None = None,
        inputs: Mapping[int, Columns] | None = None,
        constraints: Float[np.ndarray, "n k"] | None = None,
        incumbents: Bool[np.ndarray, " n"] | None = None,
        failed_rows: Float[np.ndarray, "f c"] | None = None,
        pending_rows: Float[np.ndarray, "p c"] | None = None,
        reference: Float[np.ndarray, " m"] | None = None,
        seconds: Float[np.ndarray, " n"] | None = None,
        scalarise: bool = False,
        seed: int = 0,
        state: Cache | None = None,
    ) -> None:
        n, width = rows.shape
        none = np.empty((0, width))
        self._rows, self._costs, self._columns = rows, np.asarray(costs, dtype=np.float64), columns
        self._constraints = np.empty((n, 0)) if constraints is None else np.asarray(constraints)
        self._failed = none if failed_rows is None else failed_rows
        self._pending = none if pending_rows is None else pending_rows
        self._chosen = [j for j in (*columns.numeric, *columns.categorical) if j not in features]
        self._known, self._inputs = dict(known or {}), dict(inputs or {})
        self.state: Cache = {} if state is None else state
        self.notes: list[str] = []
        self._seed, self._picks = seed, 0
        self._check(reference)
        m = self._costs.shape[1]
        self._scalarise = scalarise or m > _HYPERVOLUME_OBJECTIVES
        self._threshold = np.full(m, np.nan) if reference is None else reference
        self._met: Bool[np.ndarray, " n"] = np.all(self._constraints <= 0, axis=1)
        if incumbents is not None:
            self._met &= incumbents
        if n + len(self._failed) < 2:
            raise ModelError(f"a model needs 2 finished designs, got {n + len(self._failed)}")
        self._feasibility = self._fit_feasibility()
        self._limits = [
            OutcomeModel(rows, column, columns, transform="none", cache=self.state)
            for column in (self._constraints.T if n > 1 else ())
        ]
        self.models: tuple[OutcomeModel | None, ...] = self._fit_objectives() if self.improves else ()
        self._seconds = None if seconds is None else self._fit_seconds(seconds)
        self.loo: tuple[LeaveOneOut | None, ...] = tuple(
            None if model is None else model.loo for model in self.models
        )
        if self.improves:
            self._draw()
        else:
            self.notes.append("nothing feasible yet: designs are chosen that may be feasible")

    @property
    def improves(self) -> bool:
        """Whether there is something to improve on; otherwise scores are log probabilities of feasibility."""
        return len(self._rows) > 1 and bool(self._met.any())

    def _check(self, reference: Float[np.ndarray, " m"] | None) -> None:
        n, m = len(self._rows), self._costs.shape[1]
        for name, array, shape in (
            ("costs", self._costs, (n, m)),
            ("constraints", self._constraints, (n, self._constraints.shape[1])),
        ):
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite and have the shape {shape}, got {array.shape}")
        if reference is not None and reference.shape != (m,):
            raise ValueError(f"reference must have the shape ({m},), got {reference.shape}")

    def _fit_feasibility(self) -> FeasibilityModel | None:
        if not len(self._failed):
            return None
        labels = np.repeat([True, False], [len(self._rows), len(self._failed)])
        rows = np.concatenate([self._rows, self._failed])
        if not len(self._rows):
            # Nothing can be sampled yet: those being evaluated count as failures, to look elsewhere.
            rows = np.concatenate([rows, self._pending])
            labels = np.zeros(len(rows), dtype=bool)
        return FeasibilityModel(rows, labels, self._columns, cache=self.state)

    def _fit_objectives(self) -> tuple[OutcomeModel | None, ...]:
        return tuple(
            None
            if j in self._known
            else OutcomeModel(self._rows, column, self._inputs.get(j, self._columns), cache=self.state)
            for j, column in enumerate(self._costs.T)
        )

    def _fit_seconds(self, seconds: Float[np.ndarray, " n"]) -> OutcomeModel | None:
        timed = np.isfinite(seconds) & (seconds > 0)
        if timed.sum() < 3 or np.ptp(seconds[timed]) == 0:
            return None
        return OutcomeModel(
            self._rows[timed], seconds[timed], self._columns, transform="log", cache=self.state
        )

    def _standardised(self, j: int, costs: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        model = self.models[j]
        if model is not None:
            return model.standardised(costs)
        column = self._costs[:, j]
        result: Float[np.ndarray, "..."] = (costs - column.mean()) / (column.std() or 1.0)
        return result

    def _reference(self, z: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " m"]:
        spread = np.ptp(z, axis=0)
        margin = max(_MARGIN, _MARGIN_OF_ONE / len(z))
        reference: Float[np.ndarray, " m"] = z.max(axis=0) + margin * np.where(spread > 0, spread, 1.0)
        for j, threshold in enumerate(self._threshold):
            if np.isfinite(threshold):
                wanted = float(self._standardised(j, np.array(threshold)))
                reference[j] = wanted if np.isfinite(wanted) else reference[j]
        return reference

    def _draw(self) -> None:
        """Draw the outcomes of finished and pending designs, and cut each draw's space into boxes."""
        n, m = self._costs.shape
        rows = np.concatenate([self._rows, self._pending])
        observed = np.column_stack([self._standardised(j, self._costs[:, j]) for j in range(m)])
        self._offset = observed[self._met].min(axis=0)
        self._span = np.ptp(observed[self._met], axis=0)
        self._span[self._span == 0] = 1.0
        self._draws: list[SampledModel | None] = []
        values = np.empty((_DRAWS, len(rows), m))
        for j, model in enumerate(self.models):
            rng = np.random.default_rng([self._seed, 1, j])
            if model is None:
                self._draws.append(None)
                values[:, :, j] = self._standardised(j, rows[:, self._known[j]])
                continue
            # Members by their weights, in shares rather than by chance; objectives pair up at random.
            share = (np.arange(_DRAWS) + rng.random()) / _DRAWS
            chosen = np.minimum(np.searchsorted(np.cumsum(model.weights), share), len(model.members) - 1)
            chosen = rng.permutation(chosen)
            normals = rng.standard_normal((len(rows), _DRAWS))
            sampled = SampledModel(model, rows, normals, chosen)
            self._draws.append(sampled)
            values[:, :, j] = sampled.values
        counts = self._counted(n, len(rows))
        reference = self._reference(observed[self._met])
        rng = np.random.default_rng([self._seed, 2, self._picks])
        self._weights = rng.dirichlet(np.ones(m))
        kept = np.zeros(len(rows), dtype=bool)
        kept[n:] = True
        self._boxes: list[tuple[Float[np.ndarray, "b m"], Float[np.ndarray, "b m"]]] = []
        self._best: list[float] = []
        for draw, count in zip(values, counts, strict=True):
            index = np.flatnonzero(count)
            front = index[non_dominated(draw[index])]
            kept[front] = True
            if self._scalarise:
                scaled = self._weights * (draw[index] - self._offset) / self._span
                self._best.append(float(scaled.max(axis=1).min()))
                kept[index[scaled.max(axis=1).argmin()]] = True
            else:
                self._boxes.append(boxes(draw[front], reference))
        for drawn in self._draws:
            if drawn is not None:
                drawn.condition(np.flatnonzero(kept))

    def _counted(self, n: int, total: int) -> Bool[np.ndarray, "s r"]:
        """Which designs each draw improves on: those that meet the constraints, pending ones by chance."""
        counts = np.zeros((_DRAWS, total), dtype=bool)
        counts[:, :n] = self._met
        if total > n:
            rng = np.random.default_rng([self._seed, 3])
            chance = np.exp(self._log_feasible(self._pending))
            counts[:, n:] = (rng.random((total - n, _DRAWS)) <= chance[:, None]).T
        return counts

    def _log_feasible(
        self, rows: Float[np.ndarray, "k c"], *, coarse: bool = False
    ) -> Float[np.ndarray, " k"]:
        """Log probability that each row can be evaluated and meets the constraints, (k,)."""
        total = np.zeros(len(rows))
        if self._feasibility is not None:
            model = self._feasibility
            total += (model.log_probability if model.trained else model.log_promise)(rows, coarse=coarse)
        for limit in self._limits:
            mean, variance = limit.predict(rows)
            total += log_ndtr((float(limit.standardised(np.array(0.0))) - mean) / np.sqrt(variance))
        return total

    def score(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """Log acquisition value of each row, (k,).

        Of many rows, only those that a coarse estimate ranks among the best get a finite value.
        """
        kept = np.arange(len(rows))
        if len(rows) > _COARSE:
            coarse = self._chunked(rows, 1)
            kept = np.sort(np.argsort(-coarse, kind="stable")[:_KEPT])
        values = np.full(len(rows), -np.inf)
        values[kept] = self._chunked(rows[kept], _DRAWS)
        return values

    def _chunked(self, rows: Float[np.ndarray, "k c"], draws: int) -> Float[np.ndarray, " k"]:
        parts = [self._score(rows[i : i + _ROWS], draws) for i in range(0, len(rows), _ROWS)]
        values = np.concatenate(parts) if parts else np.empty(0)
        return np.where(np.isnan(values), -np.inf, values)

    def _score(self, rows: Float[np.ndarray, "k c"], draws: int) -> Float[np.ndarray, " k"]:
        value = self._log_feasible(rows, coarse=draws < _DRAWS)
        if self.improves:
            value += self._log_improvement(rows, draws)
        if self._seconds is not None:
            value -= self._seconds.centre + self._seconds.scale * self._seconds.predict(rows)[0]
        return value

    def _log_improvement(self, rows: Float[np.ndarray, "k c"], draws: int) -> Float[np.ndarray, " k"]:
        mean = np.empty((draws, len(rows), len(self.models)))
        deviation = np.empty_like(mean)
        for j, sampled in enumerate(self._draws):
            if sampled is None:
                mean[:, :, j] = self._standardised(j, rows[:, self._known[j]])
                deviation[:, :, j] = _KNOWN_DEVIATION
            else:
                mean[:, :, j], deviation[:, :, j] = sampled.predict(rows, draws)
        if self._scalarise:
            scale = self._weights / self._span
            each = [
                log_expected_chebyshev_improvement((a - self._offset) * scale, b * scale, best)
                for a, b, best in zip(mean, deviation, self._best[:draws], strict=True)
            ]
        else:
            each = [
                log_expected_hypervolume_improvement(a, b, *corners)
                for a, b, corners in zip(mean, deviation, self._boxes[:draws], strict=True)
            ]
        result: Float[np.ndarray, " k"] = logsumexp(np.stack(each), axis=0) - np.log(draws)
        return result

    @property
    def explores(self) -> bool:
        """Whether the next design is one to learn from: only a front can stand still beside a better one."""
        n, m = self._costs.shape
        if m == 1 or not self.improves or n < _LEAST_STALLED or not any(self.models):
            return False
        met = np.flatnonzero(self._met)
        newest = int(met[non_dominated(self._costs[met])].max())
        every_other = (n + len(self._failed) + len(self._pending)) % 2 == 0
        return bool(every_other and n - 1 - newest >= _STALLED)

    def worth(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """What to choose the next design by, (k,): its score, or what it would tell where that is due."""
        if not self.explores:
            return self.score(rows)
        chosen = self._chosen
        front = self._rows[self._met][non_dominated(self._costs[self._met])][:, chosen]
        differing = np.min([(rows[:, chosen] != best).sum(axis=1) for best in front], axis=0)
        near = np.flatnonzero(differing <= max(1, differing.min(initial=len(chosen))))
        values = np.full(len(rows), -np.inf)
        for part in np.array_split(near, len(near) // _ROWS + 1):
            values[part] = self._news(rows[part]) - _FAR * differing[part]
        return values

    def _news(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """Log of the variances of the outcomes, and of the probability that the constraints are met, (k,)."""
        news = self._log_feasible(rows)
        for j, model in enumerate(self.models):
            if model is None:
                mean = self._standardised(j, rows[:, self._known[j]])
                variance = np.full(len(rows), _KNOWN_DEVIATION**2)
            else:
                mean, variance = model.predict(rows)
                news += np.log(variance)
            worst = float(self._standardised(j, self._threshold[[j]])[0])
            if np.isfinite(worst):
                news += log_ndtr((worst - mean) / np.sqrt(variance))
        return news

    def add_pending(self, rows: Float[np.ndarray, "p c"]) -> None:
        """Count these rows as being evaluated from now on."""
        self._pending = np.concatenate([self._pending, rows])
        self._picks += len(rows)
        if self.improves:
            self._draw()
        elif not len(self._rows):
            self._feasibility = self._fit_feasibility()

    def pick(self, candidates: Float[np.ndarray, "k c"], q: int = 1) -> Int[np.ndarray, " q"]:
        """Indices of up to `q` distinct candidates, best first, each given that the ones before are pending.

        Equal scores are told apart by chance, not by the order of the candidates.
        """
        left = np.random.default_rng([self._seed, 4]).permutation(len(candidates))
        picked: list[int] = []
        while len(picked) < q and len(left):
            values = self.worth(candidates[left])
            best = int(values.argmax())
            if not np.isfinite(values[best]):
                raise ModelError("the acquisition function is nowhere finite")
            picked.append(int(left[best]))
            left = np.delete(left, best)
            if len(picked) < q:
                self.add_pending(candidates[[picked[-1]]])
        return np.array(picked, dtype=np.int64)
