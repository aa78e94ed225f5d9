"""One Gaussian process over several tasks: what they share, and what is a task's own.

The covariance of row x of task t with row x' of task t' is a sum of parts,

    sum over j of  s_j  [part j is shared, or t = t']  k_j(x, x')

each with lengthscales of its own over some of the columns. A part that all tasks share carries what is
learnt from one to the next [Kennedy00]_; a part of a task's own is the discrepancy, of which the other tasks
tell the size. A part without columns is an offset. The noise of a task without observations is that of all.

References
----------
.. [Kennedy00] M. C. Kennedy, A. O'Hagan, "Predicting the Output from a Complex Computer Code When Fast
   Approximations Are Available", Biometrika 87(1), 2000.
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006,
   equations 2.25, 2.26 and 5.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular

from dse._bayes.gp import minimize
from dse._bayes.kernels import Kernel, shape_and_slope

_JITTER = 1e-8
_STEPS = 80  # of L-BFGS
_SHAPE = Kernel("matern52")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the covariance.

    Attributes
    ----------
    columns
        Of the rows, compared with one lengthscale each; none is a constant.
    own
        Whether it is of each task alone.
    variance, lengthscale
        What is expected a priori, the latter for standardised columns, of each of which there are few.
    """

    columns: tuple[int, ...]
    own: bool
    variance: float
    lengthscale: float = 3.0


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the logarithms of the hyper-parameters are: of each part its lengthscales and variance; noise."""

    parts: tuple[Part, ...]

    @property
    def places(self) -> list[tuple[slice, int]]:
        found, start = [], 0
        for part in self.parts:
            end = start + len(part.columns)
            found.append((slice(start, end), end))
            start = end + 1
        return found

    @property
    def prior(self) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        """Mean and deviation of independent normal priors."""
        mean: list[float] = []
        deviation: list[float] = []
        for part in self.parts:
            width = len(part.columns)
            mean += [float(np.log(part.lengthscale)) + 0.5 * float(np.log(max(width, 1)))] * width
            deviation += [1.0] * width
            mean.append(float(np.log(part.variance)))
            deviation.append(1.0)
        return np.array([*mean, -4.0]), np.array([*deviation, 1.0])


class Pooled:
    """The process, conditioned on observations.

    Parameters
    ----------
    parts
        Of the covariance.
    rows, tasks, y : (n, c), (n,), (n,)
        Observations of a function with zero mean and a variance of about one.
    theta : (p,)
        Logarithms of the hyper-parameters, of `fit_pooled`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        rows: Float[np.ndarray, "n c"],
        tasks: Int[np.ndarray, " n"],
        y: Float[np.ndarray, " n"],
        theta: Float[np.ndarray, " p"],
    ) -> None:
        self.parts, self.rows, self.tasks, self.theta = tuple(parts), rows, tasks, theta
        self.noise = float(np.exp(theta[-1]))
        covariance = self._cross(rows, tasks, rows, tasks)
        covariance[np.diag_indices(len(y))] += self.noise + _JITTER
        self._factor = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._factor, True), y)

    def predict(
        self, rows: Float[np.ndarray, "k c"], tasks: Int[np.ndarray, " k"]
    ) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
        """Mean and variance of the function at each row of its task, (k,) each, without noise."""
        cross = self._cross(self.rows, self.tasks, rows, tasks)
        half = solve_triangular(self._factor, cross, lower=True)
        prior = sum(np.exp(self.theta[place]) for _, place in _Layout(self.parts).places)
        return cross.T @ self._weights, np.maximum(prior - (half**2).sum(axis=0), 1e-12)

    def leave_out(
        self, groups: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Residual and variance of each observation, given those of other groups, noise included, (n,) each.

        Closed form, equation 5.12 of [Rasmussen06]_ for blocks: with A the inverse covariance, those of a
        group g are ``A_gg^-1 (A y)_g`` and the diagonal of ``A_gg^-1``.
        """
        inverse = cho_solve((self._factor, True), np.eye(len(groups)))
        residual, variance = np.empty(len(groups)), np.empty(len(groups))
        for group in np.unique(groups):
            mine = np.flatnonzero(groups == group)
            block = np.linalg.inv(inverse[np.ix_(mine, mine)])
            residual[mine] = block @ self._weights[mine]
            variance[mine] = np.diag(block)
        return residual, variance

    def conditioned(
        self, rows: Float[np.ndarray, "n c"], tasks: Int[np.ndarray, " n"], y: Float[np.ndarray, " n"]
    ) -> Pooled:
        """The process with the same hyper-parameters and other observations."""
        return Pooled(self.parts, rows, tasks, y, self.theta)

    def _cross(
        self,
        a: Float[np.ndarray, "n c"],
        of_a: Int[np.ndarray, " n"],
        b: Float[np.ndarray, "k c"],
        of_b: Int[np.ndarray, " k"],
    ) -> Float[np.ndarray, "n k"]:
        total = np.zeros((len(a), len(b)))
        same = (of_a[:, None] == of_b).astype(np.float64)
        for part, (scales, place) in zip(self.parts, _Layout(self.parts).places, strict=True):
            factor = np.exp(-self.theta[scales])
            left, right = a[:, part.columns] * factor, b[:, part.columns] * factor
            q = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * left @ right.T
            value, _ = shape_and_slope(_SHAPE, np.maximum(q, 0.0))
            total += np.exp(self.theta[place]) * value * (same if part.own else 1.0)
        return total


def fit_pooled(
    parts: Sequence[Part],
    rows: Float[np.ndarray, "n c"],
    tasks: Int[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    *,
    steps: int = _STEPS,
) -> Pooled:
    """Maximise the posterior density of the hyper-parameters, by L-BFGS-B with exact gradients."""
    layout = _Layout(tuple(parts))
    mean, deviation = layout.prior
    objective = _NegativeLogPosterior(layout, rows, tasks, y)
    found = minimize(
        objective,
        mean,
        jac=True,
        method="L-BFGS-B",
        bounds=np.column_stack([mean - 5.0 * deviation, mean + 5.0 * deviation]),
        options={"maxiter": steps, "ftol": 1e-6, "gtol": 1e-3},
    )
    return Pooled(parts, rows, tasks, y, found.x)


class _NegativeLogPosterior:
    """Minus the log posterior density of hyper-parameters, with its gradient."""

    def __init__(
        self,
        layout: _Layout,
        rows: Float[np.ndarray, "n c"],
        tasks: Int[np.ndarray, " n"],
        y: Float[np.ndarray, " n"],
    ) -> None:
        self.layout, self.y = layout, y
        self.mean, self.deviation = layout.prior
        self.same = (tasks[:, None] == tasks).astype(np.float64)
        used = sorted({column for part in layout.parts for column in part.columns})
        place = {column: index for index, column in enumerate(used)}
        self.places = [[place[column] for column in part.columns] for part in layout.parts]
        self.squares = np.stack([(rows[:, [j]] - rows[:, j]) ** 2 for j in used]).reshape(len(used), -1)

    def __call__(self, theta: Float[np.ndarray, " p"]) -> tuple[float, Float[np.ndarray, " p"]]:
        n = len(self.y)
        covariance = np.exp(theta[-1]) * np.eye(n) + _JITTER * np.eye(n)
        kept = []
        for part, columns, (scales, place) in zip(
            self.layout.parts, self.places, self.layout.places, strict=True
        ):
            weight = np.exp(-2.0 * theta[scales])
            q = (weight @ self.squares[columns]).reshape(n, n) if columns else np.zeros((n, n))
            value, slope = shape_and_slope(_SHAPE, q)
            factor = np.exp(theta[place]) * (self.same if part.own else 1.0)
            value, slope = value * factor, slope * factor
            covariance += value
            kept.append((weight, value, slope))
        z = (theta - self.mean) / self.deviation
        factor, failed = lapack.dpotrf(covariance, lower=1)
        if failed:  # out of the region where double precision factorises: the line search steps back
            return 1e10, np.zeros_like(theta)
        weights = cho_solve((factor, True), self.y)
        inverse, _ = lapack.dpotri(factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        likelihood = -0.5 * self.y @ weights - np.log(np.diag(factor)).sum()
        inner = np.outer(weights, weights) - inverse
        gradient = np.empty_like(theta)
        for columns, (scales, place), (weight, value, slope) in zip(
            self.places, self.layout.places, kept, strict=True
        ):
            if columns:
                gradient[scales] = -weight * (self.squares[columns] @ (inner * slope).ravel())
            gradient[place] = 0.5 * (inner * value).sum()
        gradient[-1] = 0.5 * np.exp(theta[-1]) * np.trace(inner)
        return float(0.5 * (z**2).sum() - likelihood), -gradient + z / self.deviation
