"""Covariance functions of mixed inputs, with gradients for the fit.

Every input contributes a squared distance: numeric columns the square of the difference, categorical
ones 1 where the codes differ (the distance of one-hot vectors, so any isotropic kernel of the sum is
positive definite). Each has a lengthscale of its own:

    q(x, x') = sum_j d_j(x, x') / l_j^2
    k(x, x') = s * shape(q) + a * (sum over numeric columns of (x_j - 1/2)(x'_j - 1/2)) + 1

The linear part carries trends, which run times and areas have in the logarithms of their knobs; the
constant is the variance of an unknown mean.

References
----------
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006,
   chapters 2, 4 and 5.
.. [Kennedy00] M. C. Kennedy, A. O'Hagan, "Predicting the Output from a Complex Computer Code When Fast
   Approximations Are Available", Biometrika 87(1), 2000.
.. [Hvarfner24] C. Hvarfner, E. O. Hellsten, L. Nardi, "Vanilla Bayesian Optimization Performs Great in
   High Dimensions", arXiv 2402.02229: lengthscales that grow with the square root of the dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

Array: TypeAlias = Float[np.ndarray, "..."]

_MEAN_VARIANCE = 1.0  # of the unknown mean, in units of standardised outcomes


@dataclass(frozen=True, slots=True)
class Kernel:
    """A family of covariance functions.

    Attributes
    ----------
    shape
        ``"matern52"`` or ``"rbf"``, both as functions of the scaled squared distance.
    linear
        Adds the linear part.
    levels
        Numeric columns of few values also count as categories, with lengthscales of their own: for knobs
        whose values have effects that no smooth function of them has. Of many values, it would be noise.
    trend
        Adds a linear part in the trend columns: predictions of other models, whose coefficients are
        unknown. Integrated over, they are the rho of a prior mean rho * prediction [Kennedy00]_.
    """

    shape: Literal["matern52", "rbf"] = "matern52"
    linear: bool = False
    levels: bool = False
    trend: bool = False

    def __str__(self) -> str:
        return self.shape + "+linear" * self.linear + "+levels" * self.levels + "+trend" * self.trend


def shape_and_slope(kernel: Kernel, q: Array) -> tuple[Array, Array]:
    """Correlation at the scaled squared distances `q`, and its derivative by `q`."""
    if kernel.shape == "rbf":
        value = np.exp(-0.5 * q)
        return value, -0.5 * value
    r = np.sqrt(5.0 * q)
    decay = np.exp(-r)
    return (1.0 + r + (5.0 / 3.0) * q) * decay, (-5.0 / 6.0) * (1.0 + r) * decay


class Inputs:
    """Rows split into the parts that distances are made of.

    Parameters
    ----------
    numeric, categorical
        Columns of the rows; all others are ignored.
    few
        Numeric columns of few values, which a kernel with levels also compares.
    trend
        Columns of predictions, standardised, which only a kernel with a trend reads.
    """

    def __init__(
        self,
        kernel: Kernel,
        numeric: tuple[int, ...],
        categorical: tuple[int, ...],
        few: tuple[int, ...] = (),
        trend: tuple[int, ...] = (),
    ) -> None:
        self.trend = trend
        self.kernel = kernel
        self.numeric = numeric
        self.few = few if kernel.levels else ()
        self.compared = (*categorical, *self.few)

    @property
    def lengthscales(self) -> int:
        """Number of lengthscales: of the numeric columns, then of the compared ones."""
        return len(self.numeric) + len(self.compared)

    @property
    def parameters(self) -> int:
        """Number of hyper-parameters: logarithms of lengthscales, scale, linear variances, noise."""
        return self.lengthscales + 2 + self.kernel.linear + self.kernel.trend

    def distances(
        self, a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "k c"]
    ) -> Float[np.ndarray, "l n k"]:
        """Unscaled squared distances, one slice per lengthscale."""
        numeric = [(a[:, [j]] - b[:, j]) ** 2 for j in self.numeric]
        compared = [(a[:, [j]] != b[:, j]).astype(np.float64) for j in self.compared]
        return np.stack([*numeric, *compared])

    def embed(self, rows: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n d"]:
        """Numeric columns about their centre."""
        return rows[:, self.numeric] - 0.5

    def linear_parts(self, rows: Float[np.ndarray, "n c"]) -> list[Float[np.ndarray, "n d"]]:
        """What each linear part is linear in."""
        parts = [self.embed(rows)] if self.kernel.linear else []
        return [*parts, rows[:, self.trend]] if self.kernel.trend else parts

    def cross(
        self, a: Float[np.ndarray, "n c"], b: Float[np.ndarray, "k c"], theta: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        count = self.lengthscales
        weight = np.exp(-2.0 * theta[:count])
        split = len(self.numeric)
        # The expanded square is one matrix product instead of one pass per column.
        scale = np.sqrt(weight[:split])
        left, right = self.embed(a) * scale, self.embed(b) * scale
        q = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * left @ right.T
        np.maximum(q, 0.0, out=q)
        for j, w in zip(self.compared, weight[split:], strict=True):
            q += w * (a[:, [j]] != b[:, j])
        value, _ = shape_and_slope(self.kernel, q)
        value *= np.exp(theta[count])
        value += _MEAN_VARIANCE
        for i, (one, other) in enumerate(zip(self.linear_parts(a), self.linear_parts(b), strict=True)):
            value += np.exp(theta[count + 1 + i]) * (one @ other.T)
        return value

    def diagonal(
        self, rows: Float[np.ndarray, "n c"], theta: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        count = self.lengthscales
        variance = np.full(len(rows), np.exp(theta[count]) + _MEAN_VARIANCE)
        for i, part in enumerate(self.linear_parts(rows)):
            variance += np.exp(theta[count + 1 + i]) * (part**2).sum(axis=1)
        return variance


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent normal priors of the logarithms of the hyper-parameters."""

    mean: Float[np.ndarray, " p"]
    deviation: Float[np.ndarray, " p"]
    start: Float[np.ndarray, " p"]
    low: Float[np.ndarray, " p"]
    high: Float[np.ndarray, " p"]


def prior(inputs: Inputs) -> Prior:
    """Priors for standardised outcomes and inputs in the unit cube.

    Lengthscales as in [Hvarfner24]_; those of levels expect no effect. The noise is expected small,
    but is never zero: a deterministic outcome still departs from the model.
    """
    count = inputs.lengthscales
    ordered = count - len(inputs.few)
    root = 0.5 * log(max(count, 1))
    mean = [sqrt(2.0) + root] * count + [0.0]
    deviation = [sqrt(3.0)] * count + [1.0]
    start = [root - 0.5] * count + [0.0]
    mean[ordered:count] = [m + 1.0 for m in mean[ordered:count]]
    start[ordered:count] = [root + 1.0] * (count - ordered)
    low, high = [log(0.03)] * count + [-5.0], [log(100.0)] * count + [4.0]
    for _ in range(inputs.kernel.linear + inputs.kernel.trend):
        mean, deviation, start = [*mean, -1.0], [*deviation, 2.0], [*start, -1.0]
        low, high = [*low, -9.0], [*high, 5.0]
    values = ([*mean, -5.0], [*deviation, 1.5], [*start, -4.0], [*low, log(1e-5)], [*high, 1.0])
    return Prior(*(np.array(v) for v in values))
