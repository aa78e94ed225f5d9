"""Bayesian linear regression on columns, their squares and products, and category indicators.

Its coefficients are independent and normal, those of single functions s_i and those of products each with
a variance of their own, which makes it a Gaussian process [Rasmussen06]_ (section 2.1) of the covariance

    k(x, x') = 1 + a sum_i s_i s'_i + b sum_(i <= j) s_i s_j s'_i s'_j

where the last sum is ``(G^2 + H) / 2`` with ``G = sum_i s_i s'_i`` and ``H = sum_i s_i^2 s'_i^2``: no
product is written out. Indicators of one column exclude each other, so their products are taken out.

References
----------
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006.
"""

from __future__ import annotations

from math import log

import numpy as np
from jaxtyping import Float, Int

from dse._bayes.columns import Columns, Rows, check_training
from dse._bayes.correlations import Array, Pull
from dse._bayes.kernels import MEAN_VARIANCE, Pairs, Prior
from dse._bayes.surrogates import SingleTarget, fit_process, standardising


class QuadraticInputs:
    """The covariance above; its hyper-parameters are the logarithms of a and b.

    Parameters
    ----------
    rows : (n, c)
        Whose codes have indicators; another code has none.
    columns
        Those that varied.
    """

    def __init__(self, rows: Rows, columns: Columns) -> None:
        self._ordered = columns.ordered
        self._codes = {c: np.unique(rows[:, c]) for c in columns.categorical}
        self.prior = Prior.of(1, 0.0, 2.0, 0.0, log(0.1), log(10.0))
        self.prior += Prior.of(1, log(0.1), 2.0, log(0.1), log(0.01), log(1.0))

    def _functions(self, rows: Rows) -> list[Float[np.ndarray, "n s"]]:
        """Single functions: of all ordered columns, then of each categorical one."""
        indicators = [np.equal.outer(rows[:, c], codes) - 1 / len(codes) for c, codes in self._codes.items()]
        return [2.0 * rows[:, self._ordered] - 1.0, *indicators]

    def _sums(self, a: Rows, b: Rows) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
        """Sums over single functions and over products, (n, k) each."""
        each = [
            (one @ other.T, one**2 @ (other**2).T)
            for one, other in zip(self._functions(a), self._functions(b), strict=True)
        ]
        single = sum((g for g, _ in each), start=np.zeros((len(a), len(b))))
        products = _products(single, sum((h for _, h in each), start=np.zeros((len(a), len(b)))))
        for g, h in each[1:]:
            products -= _products(g, h)
        return single, products

    def cross(self, a: Rows, b: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, "n k"]:
        """Covariance of the function between rows `a` and rows `b`, without noise."""
        single, products = self._sums(a, b)
        covariance: Float[np.ndarray, "n k"] = MEAN_VARIANCE + np.exp(theta[0]) * single
        covariance += np.exp(theta[1]) * products
        return covariance

    def diagonal(self, rows: Rows, theta: Float[np.ndarray, " h"]) -> Float[np.ndarray, " n"]:
        """Prior variance of the function at each row."""
        each = [((part**2).sum(axis=1), (part**4).sum(axis=1)) for part in self._functions(rows)]
        single, fourth = (np.sum(part, axis=0) for part in zip(*each, strict=True))
        products = _products(single, fourth) - sum(_products(g, h) for g, h in each[1:])
        variance: Float[np.ndarray, " n"] = (
            MEAN_VARIANCE + np.exp(theta[0]) * single + np.exp(theta[1]) * products
        )
        return variance

    def pairs(self, rows: Rows, left: Int[np.ndarray, " p"], right: Int[np.ndarray, " p"]) -> Pairs:
        """Covariance between rows `left` and rows `right`, one by one."""
        single, products = (matrix[left, right] for matrix in self._sums(rows, rows))

        def covariances(theta: Float[np.ndarray, " h"]) -> tuple[Float[np.ndarray, " p"], Pull]:
            first, second = np.exp(theta[:2])

            def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
                return np.array([first * (by_pair @ single), second * (by_pair @ products)])

            values: Float[np.ndarray, " p"] = MEAN_VARIANCE + first * single + second * products
            return values, pull

        return covariances


def _products(single: Array, squares: Array) -> Array:
    products: Array = 0.5 * (single**2 + squares)
    return products


def fit_linear(rows: Rows, y: Float[np.ndarray, " n"], columns: Columns, seed: int = 0) -> SingleTarget:  # noqa: ARG001
    """Fit the variances of the coefficients and the noise by maximum a posteriori, as `fit_gp`."""
    check_training(rows, y)
    scale = standardising(y)
    inputs = QuadraticInputs(rows, columns.varied(rows))
    return SingleTarget(fit_process(inputs, rows, (y - scale[0]) / scale[1]), y, scale)
