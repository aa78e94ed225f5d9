"""Exact Gaussian process regression: fit of the hyper-parameters, prediction, leave-one-out.

Written out with NumPy and LAPACK: at the tens to hundreds of evaluations of a campaign, a fit takes
milliseconds, which leaves time for averages over several kernels.

References
----------
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006,
   equations 2.25, 2.26, 5.8, 5.9 and 5.12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import minimize as _minimize

from dse._bayes.columns import Rows
from dse._bayes.kernels import SMALL_NOISE, Covariance, Prior, prior
from dse._bayes.loo import LeaveOneOut, leave_one_out

_JITTER = 1e-8
minimize: Any = _minimize  # its stubs know no objective that returns a gradient too


class GaussianProcess:
    """A Gaussian process conditioned on observations.

    Parameters
    ----------
    inputs
        Its covariance before them.
    rows : (n, c)
    y : (n,)
        Standardised outcomes.
    theta : (h,)
        Hyper-parameters, in the order of :func:`dse._bayes.kernels.prior`.

    Raises
    ------
    scipy.linalg.LinAlgError
        The covariance of the observations cannot be factorised.
    """

    def __init__(
        self, inputs: Covariance, rows: Rows, y: Float[np.ndarray, " n"], theta: Float[np.ndarray, " h"]
    ) -> None:
        self.inputs, self.rows, self.y, self.theta = inputs, rows, y, theta
        self.noise = float(np.exp(theta[-1]))
        covariance = inputs.cross(rows, rows, theta)
        covariance[np.diag_indices(len(y))] += self.noise + _JITTER
        self.factor = cholesky(covariance, lower=True)
        self.alpha = cho_solve((self.factor, True), y)

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Mean and variance of the function at each row, (k,) each, without noise."""
        mean, variance, _ = self._conditioned(rows)
        return mean, variance

    def predict_beside(
        self, rows: Rows, others: Rows
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, "b k"]]:
        """Mean and variance at each row, (k,), and its covariance with `others`, (b, k), in one go."""
        mean, variance, half = self._conditioned(rows)
        covariance = self.inputs.cross(others, rows, self.theta) - self._half(others).T @ half
        return mean, variance, covariance

    def covariance(self, a: Rows, b: Rows) -> Float[np.ndarray, "k l"]:
        """Posterior covariance of the function between rows `a` and rows `b`."""
        left = self._half(a)
        right = left if a is b else self._half(b)
        result: Float[np.ndarray, "k l"] = self.inputs.cross(a, b, self.theta) - left.T @ right
        return result

    def _conditioned(
        self, rows: Rows
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, "n k"]]:
        cross = self.inputs.cross(self.rows, rows, self.theta)
        half = solve_triangular(self.factor, cross, lower=True)
        variance = self.inputs.diagonal(rows, self.theta) - (half**2).sum(axis=0)
        return cross.T @ self.alpha, np.maximum(variance, 1e-12), half

    def _half(self, rows: Rows) -> Float[np.ndarray, "n k"]:
        """Covariance with the observations, times the inverse of the Cholesky factor of theirs."""
        cross = self.inputs.cross(self.rows, rows, self.theta)
        return np.asarray(solve_triangular(self.factor, cross, lower=True))

    def leave_one_out(self) -> LeaveOneOut:
        """Closed form, equation 5.12 of [Rasmussen06]_."""
        return leave_one_out(cho_solve((self.factor, True), np.eye(len(self.y))), self.y)


def fit(
    inputs: Covariance,
    rows: Rows,
    y: Float[np.ndarray, " n"],
    *,
    start: Float[np.ndarray, " h"] | None = None,
    steps: int = 60,
    noise: Prior = SMALL_NOISE,
) -> GaussianProcess:
    """Maximise the posterior density of the hyper-parameters, by L-BFGS-B with exact gradients.

    Parameters
    ----------
    start : (h,)
        Where the ascent begins; the prior's own start otherwise.
    steps
        Limit of its iterations: the likelihood of tens of points is flat along many hyper-parameters.
        With 0, the start is kept.
    noise
        Prior of the logarithm of the noise.

    Raises
    ------
    ValueError
        The start is of another size.
    scipy.linalg.LinAlgError
        The covariance of the observations cannot be factorised.
    """
    believed = prior(inputs, noise)
    begin = believed.start if start is None else start
    if begin.shape != believed.start.shape:
        raise ValueError(f"start must have {len(believed.start)} hyper-parameters, got {begin.shape}")
    theta = np.clip(begin, believed.low, believed.high)
    if steps:
        theta = minimize(
            _NegativeLogPosterior(inputs, rows, y, believed),
            theta,
            jac=True,
            method="L-BFGS-B",
            bounds=np.column_stack([believed.low, believed.high]),
            options={"maxiter": steps, "ftol": 1e-6, "gtol": 1e-3},
        ).x
    return GaussianProcess(inputs, rows, y, theta)


class _NegativeLogPosterior:
    """Minus the log posterior density of hyper-parameters, with its gradient.

    The covariance is symmetric, so one triangle of it is computed, and kept as a vector of pairs.
    """

    def __init__(self, inputs: Covariance, rows: Rows, y: Float[np.ndarray, " n"], believed: Prior) -> None:
        self.y, self.prior = y, believed
        self.column, self.row = np.triu_indices(len(y))
        self.pairs = inputs.pairs(rows, self.row, self.column)
        self.places = self.column * len(y) + self.row  # of the lower triangle, column by column
        self.twice = np.where(self.row == self.column, 0.5, 1.0)

    def __call__(self, theta: Float[np.ndarray, " h"]) -> tuple[float, Float[np.ndarray, " h"]]:
        n = len(self.y)
        values, pull = self.pairs(theta)
        noise = np.exp(theta[-1])
        matrix = np.zeros((n, n), order="F")
        flat = matrix.reshape(-1, order="F")
        flat[self.places] = values
        flat[:: n + 1] += noise + _JITTER
        z = (theta - self.prior.mean) / self.prior.deviation
        factor, failed = lapack.dpotrf(matrix, lower=1, overwrite_a=1)
        if failed:  # out of the region where double precision factorises: the line search steps back
            return 1e10, np.zeros_like(theta)
        alpha, _ = lapack.dpotrs(factor, self.y, lower=1)
        likelihood = -0.5 * self.y @ alpha - np.log(np.diag(factor)).sum()
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        # Derivative of the likelihood by the covariance of each pair, (alpha alpha' - K^-1) / 2.
        slope = alpha[self.row] * alpha[self.column] - inverse.reshape(-1, order="F")[self.places]
        gradient = np.append(pull(self.twice * slope), 0.5 * noise * slope[self.row == self.column].sum())
        return float(0.5 * (z**2).sum() - likelihood), -gradient + z / self.prior.deviation
