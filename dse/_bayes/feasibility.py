"""Which designs can be evaluated at all: learnt from the ones that failed.

The label, 1 for a design that was evaluated and 0 for one that failed, is regressed by the same committee
of Gaussian processes as an objective; the probability that a design is feasible is that of a label above
one half. Failed designs get no penalty value in an objective's model: a cliff would ruin its lengthscales.

References
----------
.. [Gelbart14] M. Gelbart, J. Snoek, R. Adams, "Bayesian Optimization with Unknown Constraints", UAI 2014,
   arXiv 1403.5607: improvement times the probability of feasibility.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import log_ndtr, logsumexp

from dse._bayes.gp import GaussianProcess
from dse._bayes.kernels import Inputs, Kernel, prior
from dse._bayes.models import Cache, Columns, OutcomeModel

_BOUNDARY = 0.5


class FeasibilityModel:
    """Learns from labels where designs are feasible.

    Parameters
    ----------
    rows : (n, c)
        Designs, evaluated and failed.
    feasible : (n,)
        Which of them were evaluated. While none was, the model is the prior conditioned on the failures.
    """

    def __init__(
        self,
        rows: Float[np.ndarray, "n c"],
        feasible: Bool[np.ndarray, " n"],
        columns: Columns,
        *,
        cache: Cache | None = None,
    ) -> None:
        labels = feasible.astype(np.float64)
        self.trained = bool(feasible.any() and not feasible.all())
        if self.trained:
            model = OutcomeModel(rows, labels, columns, transform="none", cache=cache)
            self._members, self._weights = model.members, model.weights
            self._boundary = float(model.standardised(np.array(_BOUNDARY)))
        else:
            inputs = Inputs(Kernel(), columns)
            sign = 2.0 * labels - 1.0
            self._members = (GaussianProcess(inputs, rows, sign, prior(inputs).start),)
            self._weights = np.ones(1)
            self._boundary = 0.0

    def log_probability(
        self, rows: Float[np.ndarray, "k c"], *, coarse: bool = False
    ) -> Float[np.ndarray, " k"]:
        """Log probability that each row is feasible, (k,); `coarse` asks the heaviest member alone."""
        return self._log_mean(rows, 0.0, coarse=coarse)

    def log_promise(self, rows: Float[np.ndarray, "k c"], *, coarse: bool = False) -> Float[np.ndarray, " k"]:
        """The same for a label one standard deviation above its mean, (k,): where to look for a first one.

        It favours rows that may be feasible over those of which nothing but failures is known.
        """
        return self._log_mean(rows, 1.0, coarse=coarse)

    def _log_mean(
        self, rows: Float[np.ndarray, "k c"], optimism: float, *, coarse: bool
    ) -> Float[np.ndarray, " k"]:
        heaviest = int(self._weights.argmax())
        asked = [heaviest] if coarse else range(len(self._members))
        each = []
        for member in (self._members[k] for k in asked):
            mean, variance = member.predict(rows)
            bound = mean + optimism * np.sqrt(variance)
            each.append(log_ndtr((bound - self._boundary) / np.sqrt(variance + member.noise)))
        result: Float[np.ndarray, " k"] = logsumexp(np.stack(each), axis=0, b=self._weights[asked, None])
        return result
