"""Surrogates of one target, in its own units: what prediction needs of a model, and the plain process.

A fit sees columns as encoded by a space: ordered ones and features in [0, 1], categorical codes. The
target is standardised, and its constant mean is integrated out, as a term of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Protocol, get_args

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.correlations import Shape
from dse._bayes.gp import GaussianProcess, fit
from dse._bayes.kernels import Covariance, Inputs, Kernel, Prior
from dse._bayes.loo import LeaveOneOut

# Predictions are weighted by their densities, which suffer more from too little noise than a search does.
_NOISE = Prior.of(1, -4.0, 1.0, -3.0, log(1e-5), 1.0)


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


class SingleTarget:
    """A process in the units of its target.

    Parameters
    ----------
    process
        Of the standardised target, whose observations are first in it.
    y
        The target, (n,).
    scale
        Mean and standard deviation it was standardised with.
    extended
        From rows to the rows of the process; the same without it.
    """

    def __init__(
        self,
        process: GaussianProcess,
        y: Float[np.ndarray, " n"],
        scale: tuple[float, float],
        extended: Callable[[Rows], Rows] | None = None,
    ) -> None:
        self.process, (self._centre, self._spread) = process, scale
        self._extended = extended if extended is not None else lambda rows: rows
        self.noise = process.noise * self._spread**2
        left_out = process.leave_one_out()
        error = (left_out.y - left_out.mean)[: len(y)]
        self.loo = LeaveOneOut(y, y - self._spread * error, self._spread**2 * left_out.variance[: len(y)])

    def predict(self, rows: Rows) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Mean and standard deviation of a new measurement of each row, (n,) each."""
        mean, variance = self.process.predict(self._extended(rows))
        return mean * self._spread + self._centre, np.sqrt(variance * self._spread**2 + self.noise)

    def covariance(self, rows_a: Rows, rows_b: Rows) -> Float[np.ndarray, "n m"]:
        """Posterior covariance of the function between rows, without noise, (n, m)."""
        left = self._extended(rows_a)
        right = left if rows_a is rows_b else self._extended(rows_b)
        return self._spread**2 * self.process.covariance(left, right)


def standardising(y: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and standard deviation of a target, 1 for that of a constant one."""
    return float(y.mean()), float(y.std()) or 1.0


def fit_process(
    inputs: Covariance,
    rows: Rows,
    z: Float[np.ndarray, " n"],
    *,
    start: Float[np.ndarray, " h"] | None = None,
    steps: int = 60,
) -> GaussianProcess:
    """Fit with the noise prior of predictions; a :class:`FitError` where no covariance can be factorised."""
    try:
        return fit(inputs, rows, z, start=start, steps=steps, noise=_NOISE)
    except LinAlgError as error:
        raise FitError(f"the covariance of the training rows cannot be factorised: {error}") from error


def fit_gp(
    rows: Rows,
    y: Float[np.ndarray, " n"],
    columns: Columns,
    seed: int = 0,  # noqa: ARG001  nothing here is random; part of the common interface
    *,
    family: Shape = "matern32",
    start: Float[np.ndarray, " h"] | None = None,
    steps: int = 60,
    scale: tuple[float, float] | None = None,
) -> SingleTarget:
    """Fit a Gaussian process by maximum a posteriori.

    Parameters
    ----------
    rows, y
        Training rows (n, c) and targets (n,).
    columns
        What the columns are. Those that do not vary are left out of this fit; with trend columns the
        process has a linear part in them.
    family
        Shape of the kernel.
    start, steps
        Hyper-parameters to start from, as in `theta` of the process of a fit with the same varied columns,
        and steps of L-BFGS; 0 keeps the start.
    scale
        Mean and standard deviation to standardise with, if not those of y.

    Raises
    ------
    FitError
        The covariance of the training rows cannot be factorised.
    """
    check_training(rows, y)
    inputs = kernel_of(family, columns.varied(rows))
    scale = standardising(y) if scale is None else scale
    process = fit_process(inputs, rows, (y - scale[0]) / scale[1], start=start, steps=steps)
    return SingleTarget(process, y, scale)


def kernel_of(family: Shape, columns: Columns) -> Inputs:
    """Kernel of a shape over columns.

    Raises
    ------
    ValueError
        There is no such shape.
    """
    if family not in get_args(Shape):
        raise ValueError(f"family must be one of {', '.join(get_args(Shape))}, got {family!r}")
    return Inputs(Kernel(family, trend=bool(columns.trend)), columns)


def joint_draws(
    mean: Float[np.ndarray, " n"],
    covariance: Float[np.ndarray, "n n"],
    count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "b n"]:
    """Draws from a normal distribution whose covariance may be singular, (b, n)."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    result: Float[np.ndarray, "b n"] = mean + rng.standard_normal((count, len(mean))) @ root.T
    return result
