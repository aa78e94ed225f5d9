"""Exact Gaussian process regression: fit of the hyper-parameters, prediction, leave-one-out.

Written out with NumPy and SciPy: at the tens to hundreds of evaluations of a campaign, a fit takes
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

from dse._bayes.kernels import Inputs, Prior, prior, shape_and_slope
from dse._bayes.loo import LeaveOneOut, leave_one_out

_JITTER = 1e-8
minimize: Any = _minimize  # its stubs know no objective that returns a gradient too


class GaussianProcess:
    """A Gaussian process conditioned on observations.

    Parameters
    ----------
    rows : (n, c)
    y : (n,)
        Standardised outcomes.
    theta : (p,)
        Logarithms of the hyper-parameters, in the order of :class:`dse._bayes.kernels.Inputs`.
    """

    def __init__(
        self,
        inputs: Inputs,
        rows: Float[np.ndarray, "n c"],
        y: Float[np.ndarray, " n"],
        theta: Float[np.ndarray, " p"],
    ) -> None:
        self.inputs, self.rows, self.y, self.theta = inputs, rows, y, theta
        self.noise = float(np.exp(theta[-1]))
        covariance = inputs.cross(rows, rows, theta)
        covariance[np.diag_indices(len(y))] += self.noise + _JITTER
        self.factor = cholesky(covariance, lower=True)
        self.alpha = cho_solve((self.factor, True), y)

    def predict(
        self, rows: Float[np.ndarray, "k c"]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Mean and variance of the function at each row, (k,) each, without noise."""
        cross = self.inputs.cross(self.rows, rows, self.theta)
        half = solve_triangular(self.factor, cross, lower=True)
        variance = self.inputs.diagonal(rows, self.theta) - (half**2).sum(axis=0)
        return cross.T @ self.alpha, np.maximum(variance, 1e-12)

    def predict_beside(
        self, rows: Float[np.ndarray, "k c"], others: Float[np.ndarray, "b c"]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, "b k"]]:
        """Mean and variance at each row, (k,), and its covariance with `others`, (b, k), in one go."""
        cross = self.inputs.cross(self.rows, rows, self.theta)
        half = solve_triangular(self.factor, cross, lower=True)
        variance = self.inputs.diagonal(rows, self.theta) - (half**2).sum(axis=0)
        left = solve_triangular(self.factor, self.inputs.cross(self.rows, others, self.theta), lower=True)
        covariance = self.inputs.cross(others, rows, self.theta) - left.T @ half
        return cross.T @ self.alpha, np.maximum(variance, 1e-12), covariance

    def covariance(
        self, a: Float[np.ndarray, "k c"], b: Float[np.ndarray, "l c"]
    ) -> Float[np.ndarray, "k l"]:
        """Posterior covariance of the function between rows `a` and rows `b`."""
        left = solve_triangular(self.factor, self.inputs.cross(self.rows, a, self.theta), lower=True)
        right = solve_triangular(self.factor, self.inputs.cross(self.rows, b, self.theta), lower=True)
        result: Float[np.ndarray, "k l"] = self.inputs.cross(a, b, self.theta) - left.T @ right
        return result

    def leave_one_out(self) -> LeaveOneOut:
        """Closed form, equation 5.12 of [Rasmussen06]_."""
        return leave_one_out(cho_solve((self.factor, True), np.eye(len(self.y))), self.y)


def fit(
    inputs: Inputs,
    rows: Float[np.ndarray, "n c"],
    y: Float[np.ndarray, " n"],
    *,
    start: Float[np.ndarray, " p"] | None = None,
    steps: int = 60,
) -> GaussianProcess:
    """Maximise the posterior density of the hyper-parameters, by L-BFGS-B with exact gradients.

    Parameters
    ----------
    start : (p,)
        Where the ascent begins; the prior's own start otherwise.
    steps
        Limit of its iterations: the likelihood of tens of points is flat along many hyper-parameters.
    """
    believed = prior(inputs)
    objective = _NegativeLogPosterior(inputs, rows, y, believed)
    begin = believed.start if start is None else start
    found = minimize(
        objective,
        np.clip(begin, believed.low, believed.high),
        jac=True,
        method="L-BFGS-B",
        bounds=np.column_stack([believed.low, believed.high]),
        options={"maxiter": steps, "ftol": 1e-6, "gtol": 1e-3},
    )
    return GaussianProcess(inputs, rows, y, found.x)


class _NegativeLogPosterior:
    """Minus the log posterior density of hyper-parameters, with its gradient."""

    def __init__(
        self, inputs: Inputs, rows: Float[np.ndarray, "n c"], y: Float[np.ndarray, " n"], believed: Prior
    ) -> None:
        self.inputs, self.y, self.prior = inputs, y, believed
        self.distances = inputs.distances(rows, rows).reshape(inputs.lengthscales, -1)
        self.products = [part @ part.T for part in inputs.linear_parts(rows)]

    def __call__(self, theta: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        inputs, n = self.inputs, len(self.y)
        count = inputs.lengthscales
        weight = np.exp(-2.0 * theta[:count])
        q = (weight @ self.distances).reshape(n, n)
        value, slope = shape_and_slope(inputs.kernel, q)
        scale, noise = np.exp(theta[count]), np.exp(theta[-1])
        covariance = scale * value + 1.0
        for i, products in enumerate(self.products):
            covariance += np.exp(theta[count + 1 + i]) * products
        covariance[np.diag_indices(n)] += noise + _JITTER
        z = (theta - self.prior.mean) / self.prior.deviation
        factor, failed = lapack.dpotrf(covariance, lower=1)
        if failed:  # out of the region where double precision factorises: the line search steps back
            return 1e10, np.zeros_like(theta)
        alpha = cho_solve((factor, True), self.y)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        likelihood = -0.5 * self.y @ alpha - np.log(np.diag(factor)).sum()
        inner = np.outer(alpha, alpha) - inverse
        gradient = np.empty_like(theta)
        gradient[:count] = -scale * weight * (self.distances @ (inner * slope).ravel())
        gradient[count] = 0.5 * scale * (inner * value).sum()
        for i, products in enumerate(self.products):
            gradient[count + 1 + i] = 0.5 * np.exp(theta[count + 1 + i]) * (inner * products).sum()
        gradient[-1] = 0.5 * noise * np.trace(inner)
        return float(0.5 * (z**2).sum() - likelihood), -gradient + z / self.prior.deviation
