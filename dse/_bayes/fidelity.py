"""Several fidelities: which design to evaluate next, and how exactly.

A column of the rows says how exact an evaluation is, from 0 to 1, the exact one; what each costs is known.
The column is an input of every learnt outcome [Kandasamy17]_, with a lengthscale of its own: where it is
long, cheap evaluations tell about exact ones, where it is short, they do not. Known objectives are exact at
any fidelity. A candidate is worth its improvement at full fidelity on the results at full fidelity. The pair
of candidate and fidelity to evaluate is the one that tells most about the promising candidates, per cost:

    sum over z of w(z) cov(f(z, 1), f(x, s))^2 / (var(f(x, s)) + noise) / cost(s)

the reduction of the variance of f at full fidelity that an observation of (x, s) brings, weighted by the
expected improvement w(z): integrated variance [Seo00]_ where it matters. Where that is a full evaluation, the
candidate of the largest improvement gets it.

One lengthscale cannot say that cheap evaluations mislead, as where they run against the exact ones. That
shows in the left-out predictions of exact results: an objective of which a model of the exact results alone
predicts them better has that model, and cheap evaluations are not bought for its sake.

References
----------
.. [Seo00] S. Seo, M. Wallat, T. Graepel, K. Obermayer, "Gaussian Process Regression: Active Data Selection
   and Test Point Rejection", IJCNN 2000.
.. [Kandasamy17] K. Kandasamy, G. Dasarathy, J. Schneider, B. Poczos, "Multi-fidelity Bayesian Optimisation
   with Continuous Approximations", ICML 2017, arXiv 1703.06240: fidelities as an input of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve

from dse._bayes.gp import GaussianProcess
from dse._bayes.models import Columns, ModelError, OutcomeModel
from dse._bayes.search import SearchModel

_PROMISING = 32  # candidates that an observation is to tell about
_FULL = 1.0
_FEWEST = 3  # exact results from which their left-out predictions say something
_JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidate to evaluate, by its index, and at which fidelity."""

    candidate: int
    fidelity: float


class FidelityModel(SearchModel):
    """Models of evaluations at several fidelities.

    Parameters
    ----------
    rows : (n, c)
        Evaluated designs; `column` holds the fidelity of the evaluation, in [0, 1].
    costs : (n, m)
        What they gave, minimised; of the low fidelities too.
    columns
        Inputs of the models, the fidelity among the numeric ones.
    column
        Of the fidelity, in these rows and in those of failed and pending designs.
    prices
        Cost of an evaluation by fidelity, 1.0 among them; only ratios count.
    options
        Further ones of :class:`dse._bayes.search.SearchModel`, but for `incumbents`.

    Attributes
    ----------
    misled
        Objectives of which low fidelities tell nothing; their models are of exact results alone.

    Raises
    ------
    ValueError
        No price of full fidelity, a price that is not positive, or a fidelity outside [0, 1].
    ModelError
        As a `SearchModel` does.
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        costs: Float[np.ndarray, "n m"],
        columns: Columns,
        *,
        column: int,
        prices: Mapping[float, float],
        **options: Any,
    ) -> None:
        if _FULL not in prices:
            raise ValueError(f"prices must have one of fidelity 1.0, got {sorted(prices)}")
        for fidelity, price in prices.items():
            if not 0.0 <= fidelity <= _FULL:
                raise ValueError(f"a fidelity must lie in 0..1, got {fidelity}")
            if not price > 0.0:
                raise ValueError(f"the price of fidelity {fidelity} must be positive, got {price}")
        if column not in columns.numeric:
            raise ValueError(f"column of the fidelity must be numeric, got {column}")
        self._column, self._prices = column, dict(sorted(prices.items()))
        # A value of low fidelity is no incumbent: it keeps nobody from improving on it.
        exact = rows[:, column] == _FULL
        self.misled: tuple[int, ...] = ()
        super().__init__(rows, costs, columns, incumbents=exact if exact.any() else None, **options)

    def _fit_objectives(self) -> tuple[OutcomeModel | None, ...]:
        models = super()._fit_objectives()
        exact = self._rows[:, self._column] == _FULL
        if exact.sum() < _FEWEST or exact.all():
            return models
        chosen = list(models)
        for j, model in enumerate(models):
            if model is None:
                continue
            costs, inputs = self._costs[exact, j], self._inputs.get(j, self._columns)
            try:
                alone = OutcomeModel(self._rows[exact], costs, inputs, cache=self.state)
            except ModelError:  # exact results that do not differ in its inputs
                continue
            if _log_density(alone, costs).sum() > _log_density(model, costs, exact).sum():
                chosen[j] = alone
                self.misled = (*self.misled, j)
        return tuple(chosen)

    def _counted(self, n: int, total: int) -> Bool[np.ndarray, "s r"]:
        counts = super()._counted(n, total)
        counts[:, n:] &= self._pending[:, self._column] == _FULL
        return counts

    def exact(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, "k c"]:
        """The same designs at full fidelity."""
        rows = rows.copy()
        rows[:, self._column] = _FULL
        return rows

    def choose(
        self,
        candidates: Float[np.ndarray, "k c"],
        *,
        above: Float[np.ndarray, " k"] | None = None,
        dearest: float = np.inf,
    ) -> Choice:
        """Choose what to evaluate next.

        Parameters
        ----------
        candidates : (k, c)
            Designs that were not evaluated at full fidelity; their fidelity column is ignored.
        above : (k,)
            Fidelity that each has had, or anything negative: only a higher one is chosen. By default what
            the rows of finished, failed and pending designs say.
        dearest
            Price up to which a fidelity below the full one may be chosen.
        """
        exact = self.exact(candidates)
        score = self.score(exact)
        order = np.argsort(-score, kind="stable")[:_PROMISING]
        promising = exact[order]
        floor = self._had(promising) if above is None else above[order]
        weight = np.exp(score[order] - score[order[0]])
        pairs, places, gains = [], [], []
        for fidelity, price in self._prices.items():
            allowed = np.flatnonzero((fidelity > floor) & (fidelity == _FULL or price <= dearest))
            rows = promising[allowed]
            rows[:, self._column] = fidelity
            pairs += [fidelity] * len(allowed)
            places += allowed.tolist()
            gains += (self._reduction(rows, promising, weight) / price).tolist()
        best = self._first_best(np.array(gains), np.array(places), np.array(pairs))
        # Improvements are made by full evaluations, so these go by improvement and not by news.
        place = 0 if pairs[best] == _FULL else places[best]
        return Choice(int(order[place]), float(pairs[best]))

    @staticmethod
    def _first_best(
        gains: Float[np.ndarray, " p"], places: Int[np.ndarray, " p"], fidelities: Float[np.ndarray, " p"]
    ) -> int:
        """Pair of the largest gain; of equal ones, the most promising, and then the cheapest."""
        return int(np.lexsort((fidelities, places, -gains))[0])

    def _had(self, rows: Float[np.ndarray, "k c"]) -> Float[np.ndarray, " k"]:
        """Highest fidelity of each design in the history, (k,); -1 where it is new."""
        known = np.concatenate([self._rows, self._failed, self._pending])
        same = (rows[:, None] == self.exact(known)[None]).all(axis=2)
        had: Float[np.ndarray, " k"] = np.where(same, known[:, self._column], -1.0).max(axis=1, initial=-1.0)
        return had

    def _reduction(
        self,
        rows: Float[np.ndarray, "k c"],
        promising: Float[np.ndarray, "z c"],
        weight: Float[np.ndarray, " z"],
    ) -> Float[np.ndarray, " k"]:
        """Weighted reduction of the variance at full fidelity, summed over standardised outcomes, (k,)."""
        total = np.zeros(len(rows))
        if not len(rows):
            return total
        full = rows[:, self._column] == _FULL
        exact_pending = self._pending[self._pending[:, self._column] == _FULL]
        learnt = [(model, j in self.misled) for j, model in enumerate(self.models) if model is not None]
        for model, is_misled in (*learnt, *((limit, False) for limit in self._limits)):
            pending = exact_pending if is_misled else self._pending
            told = np.zeros(len(rows))
            for member, share in zip(model.members, model.weights, strict=True):
                covariance, variance = _beside(member, promising, rows, pending)
                told += share * (weight @ covariance**2) / (variance + member.noise)
            total += np.where(full, told, 0.0) if is_misled else told
        return total


def _beside(
    member: GaussianProcess,
    at: Float[np.ndarray, "z c"],
    rows: Float[np.ndarray, "k c"],
    pending: Float[np.ndarray, "p c"],
) -> tuple[Float[np.ndarray, "z k"], Float[np.ndarray, " k"]]:
    """Covariance of the function at `at` and `rows`, and variance at `rows`, with pending ones measured."""
    covariance, (_, variance) = member.covariance(at, rows), member.predict(rows)
    if len(pending):
        own = member.covariance(pending, pending)
        own[np.diag_indices(len(own))] += member.noise + _JITTER
        cross = member.covariance(pending, rows)
        solved = cho_solve(cho_factor(own, lower=True), cross)
        covariance = covariance - member.covariance(at, pending) @ solved
        variance = np.maximum(variance - (cross * solved).sum(axis=0), 0.0)
    return covariance, variance


def _log_density(
    model: OutcomeModel, costs: Float[np.ndarray, " k"], kept: Bool[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, " k"]:
    """Left-out log density of observations on their own scale, (k,), whatever the transform of the model."""
    density = model.loo.log_densities
    if kept is not None:
        density = density[kept]
    # d log(y) / dy = 1 / y
    return density if model.transform == "none" else density - np.log(np.abs(costs))
