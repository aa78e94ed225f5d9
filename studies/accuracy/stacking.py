"""Several predictions of the same runs made one, and its intervals as wide as left-out runs say.

Experts are pooled by their precisions, as a product of normal densities with weights [Cao14]_:

    1 / v = sum over e of w_e / v_e        mean = v (sum over e of w_e m_e / v_e),   sum of w = 1

so that each run is predicted by whoever is sure of it: a process on the raw configuration where other tasks
have run the same one, one on features where none has. The weights are those under which runs that were left
out in the same way are the most likely [Yao18]_.

Deviations are then widened until a share of left-out runs is inside the interval that should hold it, a
quantile of left-out scores as in split-conformal prediction [Lei18]_, [Tibshirani19]_. Runs of one task are
alike, and a task of few runs says little: scores of its own runs, each left out with all of its
configuration, count beside those of the hardest other task, left out as a whole.

References
----------
.. [Cao14] Y. Cao, D. J. Fleet, "Generalized Product of Experts for Automatic and Principled Fusion of
   Gaussian Process Predictions", arXiv 1410.7827.
.. [Yao18] Y. Yao, A. Vehtari, D. Simpson, A. Gelman, "Using Stacking to Average Bayesian Predictive
   Distributions", arXiv 1704.02030.
.. [Lei18] J. Lei, M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman, "Distribution-Free Predictive
   Inference for Regression", arXiv 1604.04173.
.. [Tibshirani19] R. J. Tibshirani, R. F. Barber, E. J. Candes, A. Ramdas, "Conformal Prediction Under
   Covariate Shift", arXiv 1904.06019: quantiles of weighted scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import ndtri, softmax

_FLAT = 0.1  # of the logarithms of weights: what a quadratic prior takes off, in nats, keeps them finite


@dataclass(frozen=True)
class Opinions:
    """Predictions of the same runs, (e, n) each, or, of runs that were left out, what they missed.

    Attributes
    ----------
    means, deviations
        Of measurements, noise included.
    """

    means: Float[np.ndarray, "e n"]
    deviations: Float[np.ndarray, "e n"]

    def pooled(
        self, weights: Float[np.ndarray, " e"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of all experts together, (n,) each."""
        precisions = weights[:, None] / self.deviations**2
        variance = 1.0 / precisions.sum(axis=0)
        mean: Float[np.ndarray, " n"] = variance * (precisions * self.means).sum(axis=0)
        return mean, np.sqrt(variance)


def stacking_weights(left_out: Sequence[Opinions]) -> Float[np.ndarray, " e"]:
    """Weights under which left-out runs are the most likely, (e,), at least 0, of sum 1.

    Parameters
    ----------
    left_out
        Measured minus predicted, for each way of leaving runs out.
    """
    count = len(left_out[0].means)
    if count == 1:
        return np.ones(1)
    runs = sum(opinions.means.shape[1] for opinions in left_out)

    def improbability(logits: Float[np.ndarray, " e"]) -> float:
        total: float = _FLAT * float(logits @ logits)
        for opinions in left_out:
            residual, deviation = opinions.pooled(softmax(logits))
            total += float(np.sum(0.5 * (residual / deviation) ** 2 + np.log(deviation)))
        return float(total / max(runs, 1))

    found: Float[np.ndarray, " e"] = softmax(minimize(improbability, np.zeros(count), method="L-BFGS-B").x)
    return found


def widening(
    own: Float[np.ndarray, " n"],
    others: Sequence[Float[np.ndarray, " k"]],
    *,
    level: float,
    enough: float,
) -> float:
    """By how much deviations are to be widened so that an interval of probability `level` holds as many runs.

    A task may be as hard to predict as the hardest of the others, for there are few tasks.

    Parameters
    ----------
    own
        Residuals over their deviations of left-out runs of the task.
    others
        Of each other task, left out as a whole.
    level
        Of the interval.
    enough
        Runs of the task that count as much as those of another task.

    Returns
    -------
    At least 1; 1 if there are no scores.
    """
    usual, most = float(ndtri(0.5 + 0.5 * level)), 1.0
    for other in others or [np.empty(0)]:
        scores = np.abs(np.concatenate([own, other]))
        weights = np.concatenate([np.ones(len(own)), np.full(len(other), enough / max(len(other), 1))])
        if len(scores):
            most = max(most, _quantile(scores, weights, level) / usual)
    return most


def _quantile(scores: Float[np.ndarray, " n"], weights: Float[np.ndarray, " n"], level: float) -> float:
    """The least score below which, itself included, is a share `level` of the weight."""
    order = np.argsort(scores)
    share = np.cumsum(weights[order]) / weights.sum()
    place = int(np.searchsorted(share, level - 1e-12))
    return float(scores[order][min(place, len(order) - 1)])
