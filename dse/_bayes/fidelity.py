"""Several fidelities: which design to evaluate next, and how exactly.

A column of the rows says how exact an evaluation is, from 0 to 1, the exact one; what each costs is known.
Cheap evaluations tell about exact ones as far as the model finds the two correlated. So a candidate is
chosen by its improvement at full fidelity, and the fidelity that tells most about the most promising
candidates, per cost:

    sum over z of w(z) cov(f(z, 1), f(x, s))^2 / (var(f(x, s)) + noise) / cost(s)

the reduction of the variance of f at full fidelity that an observation of (x, s) brings, weighted by the
expected improvement w(z): integrated variance [Seo00]_ where it matters.

References
----------
.. [Seo00] S. Seo, M. Wallat, T. Graepel, K. Obermayer, "Gaussian Process Regression: Active Data Selection
   and Test Point Rejection", IJCNN 2000.
.. [Kandasamy17] K. Kandasamy, G. Dasarathy, J. Schneider, B. Poczos, "Multi-fidelity Bayesian Optimisation
   with Continuous Approximations", ICML 2017, arXiv 1703.06240: fidelities as an input of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dse._bayes.models import Cache, Columns
from dse._bayes.search import SearchModel

_PROMISING = 32  # candidates that an observation is to tell about
_FULL = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Candidate to evaluate, by its index, and at which fidelity."""

    candidate: int
    fidelity: float


class FidelityModel:
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
        Of the fidelity.
    prices
        Cost of an evaluation by fidelity, 1.0 among them; only ratios count.
    reference, seed, state
        As of :class:`dse._bayes.search.SearchModel`.

    Raises
    ------
    ValueError
        No price of full fidelity, a price that is not positive, or a fidelity outside [0, 1].
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        costs: Float[np.ndarray, "n m"],
        columns: Columns,
        *,
        column: int,
        prices: dict[float, float],
        reference: Float[np.ndarray, " m"] | None = None,
        seed: int = 0,
        state: Cache | None = None,
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
        self._rows = rows
        # A value of low fidelity is no incumbent: it keeps nobody from improving on it.
        exact = rows[:, column] == _FULL
        self.search = SearchModel(
            rows,
            costs,
            columns,
            incumbents=exact if exact.any() else None,
            reference=reference,
            seed=seed,
            state=state,
        )

    def choose(self, candidates: Float[np.ndarray, "k c"]) -> Choice:
        """Choose what to evaluate next.

        Parameters
        ----------
        candidates : (k, c)
            Designs that were not evaluated at full fidelity; their fidelity column is ignored. A pair of
            candidate and fidelity that was evaluated tells little, and is not chosen again.
        """
        exact = candidates.copy()
        exact[:, self._column] = _FULL
        score = self.search.score(exact)
        order = np.argsort(-score, kind="stable")[:_PROMISING]
        weight = np.exp(score[order] - score[order[0]])
        best = int(order[0])
        gains = []
        for fidelity, price in self._prices.items():
            row = exact[[best]].copy()
            row[:, self._column] = fidelity
            seen = (self._rows == row).all(axis=1).any()
            gains.append(-np.inf if seen else self._reduction(row, exact[order], weight) / price)
        return Choice(best, list(self._prices)[int(np.argmax(gains))])

    def _reduction(
        self,
        row: Float[np.ndarray, "1 c"],
        promising: Float[np.ndarray, "z c"],
        weight: Float[np.ndarray, " z"],
    ) -> float:
        """Weighted reduction of the variance at full fidelity, summed over objectives, standardised."""
        total = 0.0
        for model in filter(None, self.search.models):
            for member, share in zip(model.members, model.weights, strict=True):
                _, variance = member.predict(row)
                covariance = member.covariance(promising, row)[:, 0]
                total += share * float(weight @ covariance**2) / (float(variance[0]) + member.noise)
        return total
