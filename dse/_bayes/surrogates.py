"""Gaussian processes of several kernel families, fitted by maximum a posteriori, for prediction.

A fit sees columns as encoded by a space: numeric ones and features in [0, 1], categorical codes. The
target is standardised, and its constant mean and the coefficients of an optional trend have Gaussian
priors and are integrated out, which turns them into terms of the kernel [Rasmussen06]_ (section 2.7).

References
----------
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT
   Press 2006.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, get_args

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.families import Family, Kernel
from dse._bayes.loo import LeaveOneOut, leave_one_out

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=r".*torch\.jit.*", category=DeprecationWarning)
    import torch

Trend: TypeAlias = Callable[[Rows], Float[np.ndarray, "n p"]]

_STEPS = 60  # of L-BFGS; the posterior of tens of points is flat, and more steps predict no better
_JITTER = 1e-6  # of the standardised target
_LOG_BOUNDS = (-12.0, 8.0)


class FitError(RuntimeError):
    """No model could be fitted."""


class Fitted(Protocol):
    """A fitted surrogate of one target."""

    @property
    def noise(self) -> float:
        """Variance of a measurement around the function, in squared units of the target."""
        ...

    @property
    def loo(self) -> LeaveOneOut:
        """Leave-one-out predictions of the training targets."""
        ...

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        ...

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        ...


class Surrogate(Protocol):
    """Anything that fits a target; `seed` decides whatever is random in it."""

    def __call__(self, rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int) -> Fitted:
        """Fit the targets of the rows."""
        ...


class GaussianProcess:
    """A fitted process; construct it by `fit_gp`.

    Attributes
    ----------
    theta
        Logarithms of the hyper-parameters.
    noise
        Variance of the noise, in squared units of the target.
    loo
        Closed form, at the fitted hyper-parameters.
    trend_weights
        Posterior mean of the coefficients of the trend, for the standardised target; (p,).
    """

    def __init__(
        self,
        kernel: Kernel,
        theta: Float[np.ndarray, " h"],
        rows: Rows,
        y: Float[np.ndarray, " n"],
        trend: Functions,
        scale: tuple[float, float],
    ) -> None:
        self._kernel, self.theta, self._rows, self._trend = kernel, theta, rows, trend
        self.parameters = kernel.split(torch.from_numpy(theta))
        self._centre, self._spread = scale
        noise = float(self.parameters["noise"]) + _JITTER
        self.noise = noise * self._spread**2
        covariance = self._prior(rows, rows)
        covariance[np.diag_indices_from(covariance)] += noise
        factor, info = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
        if int(info):
            raise FitError("the covariance of the training rows is not positive definite")
        self._factor = factor.numpy()
        self._inverse = torch.cholesky_inverse(factor).numpy()
        residual = (y - self._centre) / self._spread - trend.prior(rows)
        self._weights = self._inverse @ residual
        standard = leave_one_out(self._inverse, residual)
        mean = y - self._spread * (residual - standard.mean)
        self.loo = LeaveOneOut(y, mean, self._spread**2 * standard.variance)
        basis = trend.basis(rows)
        self.trend_weights = trend.mean + trend.variance * (basis.T @ self._weights)

    def _prior(self, a: Rows, b: Rows) -> Float[np.ndarray, "n m"]:
        kernel = self._kernel.matrix(self.parameters, a, b) + self._kernel.constant(a, b)
        result: Float[np.ndarray, "n m"] = (
            kernel + (self._trend.basis(a) * self._trend.variance) @ self._trend.basis(b).T
        )
        return result

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        cross = self._prior(rows, self._rows)
        mean = cross @ self._weights + self._trend.prior(rows)
        own = self._own(rows) - ((cross @ self._inverse) * cross).sum(axis=1)
        deviation = np.sqrt(np.maximum(own, 0.0) + self.noise / self._spread**2)
        return mean * self._spread + self._centre, deviation * self._spread

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        left, right = self._prior(rows_a, self._rows), self._prior(rows_b, self._rows)
        result: Float[np.ndarray, "n m"] = self._spread**2 * (
            self._prior(rows_a, rows_b) - left @ self._inverse @ right.T
        )
        return result

    def _own(self, rows: Rows) -> Float[np.ndarray, " n"]:
        with torch.no_grad():
            own = self._kernel(self.parameters, self._kernel.distances(rows, rows)).numpy()
        own = own + np.array([self._kernel.constant(row[None], row[None])[0, 0] for row in rows])
        result: Float[np.ndarray, " n"] = own + (self._trend.basis(rows) ** 2 * self._trend.variance).sum(
            axis=1
        )
        return result


@dataclass(frozen=True, slots=True)
class Functions:
    """Functions whose coefficients have independent Gaussian priors, for a standardised target."""

    functions: Trend | None
    mean: Float[np.ndarray, " p"]
    variance: Float[np.ndarray, " p"]

    def basis(self, rows: Rows) -> Float[np.ndarray, "n p"]:
        return np.zeros((len(rows), 0)) if self.functions is None else self.functions(rows)

    def prior(self, rows: Rows) -> Float[np.ndarray, " n"]:
        """Mean of the target before any measurement."""
        result: Float[np.ndarray, " n"] = self.basis(rows) @ self.mean
        return result


def fit_gp(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    seed: int = 0,
    *,
    family: Family = "matern32",
    trend: Trend | None = None,
    trend_prior: tuple[float, float] = (0.0, 1.0),
    start: Float[np.ndarray, " h"] | None = None,
    steps: int = _STEPS,
    scale: tuple[float, float] | None = None,
) -> GaussianProcess:
    """Fit a Gaussian process by maximum a posteriori.

    Parameters
    ----------
    rows, y
        Training rows (n, c) and targets (n,).
    columns
        What the columns are. Those that do not vary are left out of this fit.
    seed
        Not used, since nothing here is random; part of the common interface.
    family
        ``"rbf"``, ``"matern32"``, ``"matern52"``: of the scaled distance. ``"product32"``: a product of
        one-dimensional Matern-3/2 kernels. ``"additive"``: a sum over the columns, their pairs and their
        triples.
    trend, trend_prior
        Functions (n, p) of rows in units of the standardised target, added to the mean with
        coefficients of this prior mean and variance.
    start, steps
        Logarithms of the hyper-parameters to start from, as in `GaussianProcess.theta` of a fit with
        the same varied columns, and steps of L-BFGS; 0 keeps the start.
    scale
        Mean and standard deviation to standardise with, if not those of y.

    Raises
    ------
    FitError
        The covariance of the training rows cannot be factorised.
    """
    del seed
    check_training(rows, y)
    if family not in get_args(Family):
        raise ValueError(f"family must be one of {', '.join(get_args(Family))}, got {family!r}")
    varied = columns.varied(rows)
    kernel = Kernel(family, varied.ordered, varied.categorical)
    if scale is None:
        scale = (float(y.mean()), float(y.std()) or 1.0)
    width = 0 if trend is None else trend(rows[:1]).shape[1]
    terms = Functions(trend, np.full(width, trend_prior[0]), np.full(width, trend_prior[1]))
    return fit_kernel(kernel, rows, y, terms, scale, start=start, steps=steps)


def fit_kernel(
    kernel: Kernel,
    rows: Rows,
    y: Float[np.ndarray, " n"],
    trend: Functions,
    scale: tuple[float, float],
    *,
    start: Float[np.ndarray, " h"] | None = None,
    steps: int = _STEPS,
) -> GaussianProcess:
    """Fit the hyper-parameters of a kernel; the rest is as in `fit_gp`."""
    target = (y - scale[0]) / scale[1] - trend.prior(rows)
    basis = trend.basis(rows)
    fixed = kernel.constant(rows, rows) + (basis * trend.variance) @ basis.T
    theta = np.concatenate([np.full(block.size, block.start) for block in kernel.blocks])
    if start is not None:
        if start.shape != theta.shape:
            raise ValueError(f"start must have {len(theta)} hyper-parameters, got {start.shape}")
        theta = np.clip(start, *_LOG_BOUNDS)
    if steps:
        theta = _optimise(kernel, theta, rows, target, fixed, steps)
    return GaussianProcess(kernel, theta, rows, y, trend, scale)


NO_TREND: Functions = Functions(None, np.zeros(0), np.zeros(0))


def _optimise(
    kernel: Kernel,
    theta: Float[np.ndarray, " h"],
    rows: Rows,
    target: Float[np.ndarray, " n"],
    fixed: Float[np.ndarray, "n n"],
    steps: int,
) -> Float[np.ndarray, " h"]:
    """Minimise the negative log posterior of the hyper-parameters.

    The kernel is computed for each pair of rows once, and only through it do gradients flow back:
    that of the likelihood by the covariance is known, (A - A y y' A) / 2 with A its inverse.
    """
    count = len(rows)
    left, right = np.tril_indices(count, -1)
    pairs = kernel.distances(np.concatenate([rows[left], rows[:1]]), np.concatenate([rows[right], rows[:1]]))
    mean = torch.from_numpy(np.concatenate([np.full(b.size, b.mean) for b in kernel.blocks]))
    deviation = torch.from_numpy(np.concatenate([np.full(b.size, b.deviation) for b in kernel.blocks]))
    z = torch.from_numpy(target)
    constant = torch.from_numpy(fixed)
    low, high = torch.from_numpy(left), torch.from_numpy(right)

    def negative_log_posterior(point: Float[np.ndarray, " h"]) -> tuple[float, Any]:
        leaf = torch.from_numpy(point.copy()).requires_grad_()
        parameters = kernel.split(leaf)
        values = kernel(parameters, pairs)
        with torch.no_grad():
            matrix = constant.clone()
            matrix[low, high] += values[:-1]
            matrix[high, low] += values[:-1]
            matrix.diagonal().add_(values[-1] + parameters["noise"] + _JITTER)
            factor, info = torch.linalg.cholesky_ex(matrix)
            if int(info):
                return 1e10, np.zeros_like(point)
            inverse = torch.cholesky_inverse(factor)
            weights = inverse @ z
            loss = 0.5 * z @ weights + factor.diagonal().log().sum()
            slope = 0.5 * (inverse - torch.outer(weights, weights))
            trace = slope.diagonal().sum().reshape(1)
            by_pair = torch.cat([2.0 * slope[low, high], trace])
        penalty = 0.5 * (((leaf - mean) / deviation) ** 2).sum()
        torch.autograd.backward(
            [values, parameters["noise"], penalty], [by_pair, trace, torch.ones_like(penalty)]
        )
        assert leaf.grad is not None
        return float(loss + penalty.detach()), leaf.grad.numpy()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more slow fits of this size down, and sums would depend on their number
    try:
        result = minimize(
            negative_log_posterior,
            theta,
            jac=True,
            method="L-BFGS-B",
            bounds=[_LOG_BOUNDS] * len(theta),
            options={"maxiter": steps},
        )
    finally:
        torch.set_num_threads(threads)
    return np.asarray(result.x)
