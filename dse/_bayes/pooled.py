"""Covariance over several tasks: what they share, and what is a task's own.

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
   equation 5.12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_solve

from dse._bayes.columns import Rows
from dse._bayes.correlations import Pull, radial, with_gradient
from dse._bayes.gp import GaussianProcess, fit
from dse._bayes.kernels import Pairs, Prior

_STEPS = 80  # of L-BFGS
_NOISE = Prior.of(1, -4.0, 1.0, -4.0, -9.0, 1.0)  # of its logarithm
_WIDE = 5.0  # deviations of the prior to which hyper-parameters are bounded
_NO_ORDERS = np.empty(0)


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

    @property
    def prior(self) -> Prior:
        """Of the logarithms of its lengthscales, and of its variance."""
        width = len(self.columns)
        length = float(np.log(self.lengthscale)) + 0.5 * float(np.log(max(width, 1)))
        return _around(width, length) + _around(1, float(np.log(self.variance)))


def _around(count: int, mean: float) -> Prior:
    return Prior.of(count, mean, 1.0, mean, mean - _WIDE, mean + _WIDE)


class PooledInputs:
    """Covariance of rows whose last column is the number of their task, as `dse._bayes.gp` takes it.

    Hyper-parameters: of each part the logarithms of its lengthscales, and then of its variance.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        ends = np.cumsum([len(part.columns) + 1 for part in self.parts]).tolist()
        self._places = [
            (slice(end - 1 - len(part.columns), end - 1), end - 1)
            for part, end in zip(self.parts, ends, strict=True)
        ]

    @property
    def prior(self) -> Prior:
        """Of its own hyper-parameters."""
        return reduce(add, (part.prior for part in self.parts))

    def cross(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        total = np.zeros((len(a), len(b)))
        same = a[:, -1:] == b[:, -1]
        for part, (scales, place) in zip(self.parts, self._places, strict=True):
            factor = np.exp(-theta[scales])
            left, right = a[:, part.columns] * factor, b[:, part.columns] * factor
            q = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * left @ right.T
            value = np.exp(theta[place]) * radial("matern52", np.maximum(q, 0.0))
            total += value * same if part.own else value
        return total

    def diagonal(self, rows: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        return np.full(len(rows), sum(float(np.exp(theta[place])) for _, place in self._places))

    def pairs(self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> Pairs:
        """Covariance between rows `left` and rows `right`, one by one."""
        used = {column for part in self.parts for column in part.columns}
        squares = {j: (rows[left, j] - rows[right, j]) ** 2 for j in sorted(used)}
        same = (rows[left, -1] == rows[right, -1]).astype(np.float64)
        distances = [
            np.array([squares[j] for j in part.columns]).reshape(len(part.columns), len(left))
            for part in self.parts
        ]

        def covariances(theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
            total = np.zeros(len(left))
            pulls: list[tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"], Pull]] = []
            for part, of_part, (scales, place) in zip(self.parts, distances, self._places, strict=True):
                plain, pull = with_gradient("matern52", of_part, np.exp(-2.0 * theta[scales]), _NO_ORDERS)
                factor = np.exp(theta[place]) * (same if part.own else np.ones(len(left)))
                total += factor * plain
                pulls.append((factor, plain, pull))

            def pull_all(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
                found = [
                    np.append(pull(by_pair * factor), (by_pair * factor) @ plain)
                    for factor, plain, pull in pulls
                ]
                return np.concatenate(found)

            return total, pull_all

        return covariances


def fit_pooled(
    parts: Sequence[Part], rows: Rows, y: Float[np.ndarray, " n"], *, steps: int = _STEPS
) -> GaussianProcess:
    """Fit to observations of a function with zero mean and a variance of about one.

    Parameters
    ----------
    parts
        Of the covariance.
    rows, y : (n, c), (n,)
        Observations; the last column is the number of the task.
    """
    return fit(PooledInputs(parts), rows, y, steps=steps, noise=_NOISE)


def left_out(
    process: GaussianProcess, groups: Int[np.ndarray, " n"], beside: Int[np.ndarray, " n"] | None = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Residual and variance of each observation, given those of other groups, noise included, (n,) each.

    Closed form, equation 5.12 of [Rasmussen06]_ for blocks: with A the inverse covariance, those of what is
    left out together, L, are ``A_LL^-1 (A y)_L`` and the diagonal of ``A_LL^-1``.

    Parameters
    ----------
    groups, beside : (n,)
        What is left out with an observation: those of its group in either of them.
    """
    beside = groups if beside is None else beside
    inverse = cho_solve((process.factor, True), np.eye(len(groups)))
    residual, variance = np.empty(len(groups)), np.empty(len(groups))
    for group, other in np.unique(np.column_stack([groups, beside]), axis=0):
        out = np.flatnonzero((groups == group) | (beside == other))
        block = np.linalg.inv(inverse[np.ix_(out, out)])
        wanted = (groups[out] == group) & (beside[out] == other)
        residual[out[wanted]] = (block @ process.alpha[out])[wanted]
        variance[out[wanted]] = np.diag(block)[wanted]
    return residual, variance
