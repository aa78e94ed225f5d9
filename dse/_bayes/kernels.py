"""Covariance functions of mixed inputs, with gradients for the fit.

Every input contributes a squared distance: ordered columns the square of the difference, categorical
ones 1 where the codes differ (the distance of one-hot vectors, so any isotropic kernel of the sum is
positive definite, and any kernel of one column too). Each has a lengthscale of its own:

    q_j(x, x') = d_j(x, x') / l_j^2
    k(x, x') = s * shape(q_1, q_2, ...) + a * (sum over ordered columns of (x_j - 1/2)(x'_j - 1/2)) + 1

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

from collections.abc import Iterator
from dataclasses import dataclass
from math import log, sqrt
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from dse._bayes.columns import Columns, Rows
from dse._bayes.correlations import ORDERS, Array, Pull, Shape, radial, separable, with_gradient

MEAN_VARIANCE = 1.0  #: of the unknown mean, in units of standardised outcomes
_PART = 1 << 16  # pairs at a time: what is computed of them stays in the cache


@dataclass(frozen=True, slots=True)
class Kernel:
    """A family of covariance functions.

    Attributes
    ----------
    shape
        Correlation as a function of the scaled squared distances, `dse._bayes.correlations`.
    linear
        Adds the linear part.
    levels
        Ordered columns of few values also count as categories, with lengthscales of their own: for knobs
        whose values have effects that no smooth function of them has. Of many values, it would be noise.
    trend
        Adds a linear part in the trend columns: predictions of other models, whose coefficients are
        unknown. Integrated over, they are the rho of a prior mean rho * prediction [Kennedy00]_.
    """

    shape: Shape = "matern52"
    linear: bool = False
    levels: bool = False
    trend: bool = False

    def __str__(self) -> str:
        return self.shape + "+linear" * self.linear + "+levels" * self.levels + "+trend" * self.trend


@dataclass(frozen=True, slots=True)
class Prior:
    """Independent normal priors of hyper-parameters, most of them logarithms, and their bounds."""

    mean: Float[np.ndarray, " p"]
    deviation: Float[np.ndarray, " p"]
    start: Float[np.ndarray, " p"]
    low: Float[np.ndarray, " p"]
    high: Float[np.ndarray, " p"]

    def __add__(self, other: Prior) -> Prior:
        """Of the hyper-parameters of both, one after the other."""
        parts = ("mean", "deviation", "start", "low", "high")
        return Prior(*(np.concatenate([getattr(self, part), getattr(other, part)]) for part in parts))

    @staticmethod
    def of(count: int, mean: float, deviation: float, start: float, low: float, high: float) -> Prior:
        """The same for each of `count` hyper-parameters."""
        return Prior(*(np.full(count, value) for value in (mean, deviation, start, low, high)))


class Pairs(Protocol):
    """Covariances of certain pairs of rows, as a function of the hyper-parameters."""

    def __call__(self, theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
        """Values, and their gradient: weighted with numbers (p,) and summed over the pairs, (h,)."""
        ...


class Covariance(Protocol):
    """A covariance function of rows; of `theta` it reads its own hyper-parameters, which come first."""

    @property
    def prior(self) -> Prior:
        """Of its own hyper-parameters."""
        ...

    def cross(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        ...

    def diagonal(self, rows: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        ...

    def pairs(self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> Pairs:
        """Covariance between rows `left` and rows `right`, one by one."""
        ...


class Inputs:
    """A kernel over columns: their lengthscales, orders if it is additive, scale, linear variances.

    Parameters
    ----------
    kernel
    columns
        Those that varied; all others are ignored.
    few
        Ordered columns of few values, which a kernel with levels also compares.
    """

    def __init__(self, kernel: Kernel, columns: Columns, few: tuple[int, ...] = ()) -> None:
        self.kernel, self.columns = kernel, columns
        self.ordered = columns.ordered
        self.few = few if kernel.levels else ()
        self.compared = (*columns.categorical, *self.few)
        self.lengthscales = len(self.ordered) + len(self.compared)
        self.orders = ORDERS if kernel.shape == "additive" else 0
        self.scale = self.lengthscales + self.orders  # its place; those of linear variances follow

    @property
    def prior(self) -> Prior:
        """For standardised outcomes and inputs in the unit cube.

        Lengthscales as in [Hvarfner24]_, those of levels expect no effect, and those of an additive shape,
        whose functions are of few columns, are shorter.
        """
        root = 0.5 * log(max(self.lengthscales, 1))
        mean, bounds = sqrt(2.0) + root - bool(self.orders), (log(0.03), log(100.0))
        smooth, few = len(self.ordered), len(self.few)
        result = Prior.of(smooth, mean, sqrt(3.0), root - 0.5, *bounds)
        result += Prior.of(len(self.compared) - few, mean, sqrt(3.0), root + 1.0, *bounds)
        result += Prior.of(few, mean + 1.0, sqrt(3.0), root + 1.0, *bounds)
        result += Prior.of(self.orders, 0.0, 1.5, 0.0, -9.0, 5.0)
        result += Prior.of(1, 0.0, 1.0, 0.0, -5.0, 4.0)
        return result + Prior.of(self.kernel.linear + self.kernel.trend, -1.0, 2.0, -1.0, -9.0, 5.0)

    def linear_parts(self, rows: Rows) -> list[Float[np.ndarray, "n d"]]:
        """What each linear part is linear in."""
        parts = [rows[:, self.ordered] - 0.5] if self.kernel.linear else []
        return [*parts, rows[:, self.columns.trend]] if self.kernel.trend else parts

    def cross(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        value = self.correlated(a, b, theta)
        value += MEAN_VARIANCE
        for i, (one, other) in enumerate(zip(self.linear_parts(a), self.linear_parts(b), strict=True)):
            value += np.exp(theta[self.scale + 1 + i]) * (one @ other.T)
        return value

    def correlated(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """The part of the covariance that falls with the distance."""
        weight = np.exp(-2.0 * theta[: self.lengthscales])
        orders, scale = np.exp(theta[self.lengthscales : self.scale]), np.exp(theta[self.scale])
        value = np.empty((len(a), len(b)))
        step = max(1, _PART // max(1, len(b)))
        for begin in range(0, len(a), step):
            part = a[begin : begin + step]
            if self.kernel.shape in ("product32", "additive"):
                found = separable(self.kernel.shape, self._squares(part, b, weight), orders)
            else:
                found = radial(self.kernel.shape, self._summed(part, b, weight))
            value[begin : begin + step] = found
        value *= scale
        return value

    def _squares(self, a: Rows, b: Rows, weight: Float[np.ndarray, " l"]) -> Iterator[Array]:
        """Scaled squared distances, (n, k) each: of ordered columns, then of compared ones."""
        split = len(self.ordered)
        for j, w in zip(self.ordered, weight[:split], strict=True):
            difference = np.subtract.outer(a[:, j], b[:, j])
            difference *= difference
            difference *= w
            yield difference
        for j, w in zip(self.compared, weight[split:], strict=True):
            yield w * np.not_equal.outer(a[:, j], b[:, j])

    def _summed(self, a: Rows, b: Rows, weight: Float[np.ndarray, " l"]) -> Float[np.ndarray, "n k"]:
        # The expanded square is one matrix product instead of one pass per column.
        split = len(self.ordered)
        root = np.sqrt(weight[:split])
        left, right = (a[:, self.ordered] - 0.5) * root, (b[:, self.ordered] - 0.5) * root
        q: Float[np.ndarray, "n k"] = (
            (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2.0 * left @ right.T
        )
        np.maximum(q, 0.0, out=q)
        for j, w in zip(self.compared, weight[split:], strict=True):
            q += w * (a[:, [j]] != b[:, j])
        return q

    def diagonal(self, rows: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        # At no distance a shape is 1, and an additive one the sum of the orders it has.
        orders = np.exp(theta[self.lengthscales : self.scale])[: self.lengthscales]
        peak = float(orders.sum()) if self.orders else 1.0
        variance = np.full(len(rows), peak * np.exp(theta[self.scale]) + MEAN_VARIANCE)
        for i, part in enumerate(self.linear_parts(rows)):
            variance += np.exp(theta[self.scale + 1 + i]) * (part**2).sum(axis=1)
        return variance

    def pairs(self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> Pairs:
        """Covariance between rows `left` and rows `right`, one by one."""
        correlated = self.correlated_pairs(rows, left, right)
        products = [np.einsum("pd,pd->p", part[left], part[right]) for part in self.linear_parts(rows)]

        def covariances(theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
            value, pull_correlated = correlated(theta)
            variances = np.exp(theta[self.scale + 1 : self.scale + 1 + len(products)])
            total = value + MEAN_VARIANCE
            for variance, product in zip(variances, products, strict=True):
                total += variance * product

            def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
                linear = [v * (by_pair @ product) for v, product in zip(variances, products, strict=True)]
                return np.concatenate([pull_correlated(by_pair), linear])

            return total, pull

        return covariances

    def correlated_pairs(
        self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]
    ) -> Pairs:
        """Of `correlated` alone: its gradient ends with that of the scale."""
        ordered = [(rows[left, j] - rows[right, j]) ** 2 for j in self.ordered]
        compared = [(rows[left, j] != rows[right, j]).astype(np.float64) for j in self.compared]
        distances = np.array([*ordered, *compared]).reshape(self.lengthscales, len(left))

        def correlations(theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
            weight = np.exp(-2.0 * theta[: self.lengthscales])
            orders, scale = np.exp(theta[self.lengthscales : self.scale]), np.exp(theta[self.scale])
            plain, pull_plain = with_gradient(self.kernel.shape, distances, weight, orders)
            value = scale * plain

            def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
                return np.append(scale * pull_plain(by_pair), by_pair @ value)

            return value, pull

        return correlations


#: Of the logarithm of the noise. It is expected small, but is never zero: a deterministic outcome still
#: departs from the model.
SMALL_NOISE = Prior.of(1, -5.0, 1.5, -4.0, log(1e-5), 1.0)


def prior(covariance: Covariance, noise: Prior = SMALL_NOISE) -> Prior:
    """Of the hyper-parameters of a covariance and, last, the logarithm of the noise."""
    return covariance.prior + noise
