"""Ranking-weighted ensemble of Gaussian processes (RGPE) [Feurer18]_.

A source is of use if it puts the target's designs in the right order, whatever its scale. Each model's
share is the part of posterior draws in which it mis-orders the fewest pairs of the target's measurements.

References
----------
.. [Feurer18] M. Feurer, B. Letham, F. Hutter, E. Bakshy, "Practical Transfer Learning for Bayesian
   Optimization", arXiv 1802.02219: the ensemble, and the guard against the dilution of weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from dse._bayes.columns import Rows
from dse._bayes.loo import LeaveOneOut
from dse._bayes.surrogates import Fitted, joint_draws

DRAWS = 256


def misranked(
    draws: Float[np.ndarray, "b n"],
    y: Float[np.ndarray, " n"],
    against: Float[np.ndarray, "b n"] | None = None,
) -> Int[np.ndarray, " b"]:
    """Count the ordered pairs (j, k) that each draw of predictions puts in another order than y does, (b,).

    Parameters
    ----------
    draws : (b, n)
        Predictions of the n targets.
    y : (n,)
        Their measurements.
    against : (b, n)
        What the prediction of k is compared with for the pair (j, k); `draws` themselves without it.
        Given the measurements it would be a comparison of a prediction with a measurement, which flatters
        a model that knows nothing: always use predictions.

    Examples
    --------
    >>> misranked(np.array([[1.0, 3.0, 2.0]]), np.array([1.0, 2.0, 3.0]))
    array([2])
    """
    other = draws if against is None else against
    predicted = draws[:, :, None] < other[:, None, :]
    measured = y[:, None] < y[None, :]
    distinct = ~np.eye(len(y), dtype=bool)
    result: Int[np.ndarray, " b"] = ((predicted != measured) & distinct).sum(axis=(1, 2))
    return result


def ranking_weights(losses: Float[np.ndarray, "m b"], *, guard: float = 95.0) -> Float[np.ndarray, " m"]:
    """Weights of models from their losses in each draw; the last row is the target's own model.

    A draw counts for the model of least loss, shared between equals. A source whose median loss exceeds
    the `guard`-th percentile of the target's gets nothing, lest many useless sources win by chance
    [Feurer18]_.

    Examples
    --------
    >>> ranking_weights(np.array([[2, 2, 1], [9, 9, 9], [2, 3, 4]]))
    array([0.83333333, 0.        , 0.16666667])
    """
    allowed = np.median(losses, axis=1) <= np.percentile(losses[-1], guard)
    allowed[-1] = True
    kept = np.where(allowed[:, None], losses, np.inf)
    best = kept == kept.min(axis=0)
    weights: Float[np.ndarray, " m"] = (best / best.sum(axis=0)).mean(axis=1)
    return weights


class RankingEnsemble:
    """Target model and source models, each in standardised units of its own task, mapped to the target's.

    Means add up with the weights and covariances with their squares [Feurer18]_.

    Parameters
    ----------
    target
        Fitted to the target's rows.
    sources
        Fitted to the sources, in standardised units of each.
    rows, y
        The target's, (n, c) and (n,).
    seed
        Of the draws.

    Attributes
    ----------
    weights
        Of the sources and, last, of the target, (s + 1,).
    """

    def __init__(
        self,
        target: Fitted,
        sources: Sequence[Fitted],
        rows: Rows,
        y: Float[np.ndarray, " n"],
        seed: int,
    ) -> None:
        self._target, self._sources = target, list(sources)
        self._centre, self._spread = float(y.mean()), float(y.std()) or 1.0
        rng = np.random.default_rng([seed, 3])
        losses = [misranked(_draws(source, rows, rng), y) for source in self._sources]
        left_out = target.loo
        own = left_out.mean + np.sqrt(left_out.variance) * rng.standard_normal((DRAWS, len(y)))
        losses.append(misranked(own, y))
        self.weights = ranking_weights(np.array(losses, dtype=np.float64))
        self.noise = float(self.weights[-1] ** 2 * target.noise)
        mean, variance = self.weights[-1] * left_out.mean, self.weights[-1] ** 2 * left_out.variance
        for weight, source in zip(self.weights, self._sources, strict=False):
            source_mean, deviation = source.predict(rows)
            mean = mean + weight * (source_mean * self._spread + self._centre)
            variance = variance + (weight * deviation * self._spread) ** 2
            self.noise += float(weight**2 * source.noise * self._spread**2)
        # What the ensemble gets wrong of the left-out targets is noise that its parts know nothing of.
        extra = max(0.0, float(np.mean((y - mean) ** 2 - variance)))
        self.noise += extra
        self.loo = LeaveOneOut(y, mean, variance + extra + 1e-12 * self._spread**2)

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        own_mean, own_deviation = self._target.predict(rows)
        mean = self.weights[-1] * own_mean
        latent = self.weights[-1] ** 2 * (own_deviation**2 - self._target.noise)
        for weight, source in zip(self.weights, self._sources, strict=False):
            source_mean, deviation = source.predict(rows)
            mean = mean + weight * (source_mean * self._spread + self._centre)
            latent = latent + (weight * self._spread) ** 2 * (deviation**2 - source.noise)
        return mean, np.sqrt(np.maximum(latent, 0.0) + self.noise)

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        total = self.weights[-1] ** 2 * self._target.covariance(rows_a, rows_b)
        for weight, source in zip(self.weights, self._sources, strict=False):
            total = total + (weight * self._spread) ** 2 * source.covariance(rows_a, rows_b)
        result: Float[np.ndarray, "n m"] = total
        return result


def _draws(model: Fitted, rows: Rows, rng: np.random.Generator) -> Float[np.ndarray, "b n"]:
    """Joint draws of the function at rows, (b, n)."""
    mean, _ = model.predict(rows)
    return joint_draws(mean, model.covariance(rows, rows), DRAWS, rng)
