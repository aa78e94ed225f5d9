"""Correlations as functions of scaled squared distances by column, and their gradients.

With ``q_j = d_j / l_j^2`` and ``r_j = sqrt(q_j)``, where d_j is the squared distance in column j:

- ``rbf``, ``matern32``, ``matern52``: of the sum of all q_j;
- ``product32``: the product over columns of ``(1 + sqrt(3) r_j) exp(-sqrt(3) r_j)``;
- ``additive``: ``exp(-q_j / 2)``, weighted means over columns, their pairs and their triples
  [Duvenaud11]_: a function of few columns at a time extrapolates where one of all of them does not.

References
----------
.. [Rasmussen06] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006,
   section 4.2.
.. [Duvenaud11] D. Duvenaud, H. Nickisch, C. E. Rasmussen, "Additive Gaussian Processes", arXiv
   1112.4394: sums over all products of a given order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import comb
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

Shape: TypeAlias = Literal["rbf", "matern32", "matern52", "product32", "additive"]
Array: TypeAlias = Float[np.ndarray, "..."]
#: Sum over pairs of weights times the derivatives of a value by its logarithmic parameters.
Pull: TypeAlias = Callable[[Float[np.ndarray, " p"]], Float[np.ndarray, " h"]]

ORDERS = 3  #: weights of an additive correlation


def radial(shape: Shape, q: Array) -> Array:
    """Correlation of an isotropic shape at the summed scaled squared distances `q`."""
    if shape == "rbf":
        return np.exp(-0.5 * q)
    if shape == "matern32":
        r = np.sqrt(3.0 * q)
        return (1.0 + r) * np.exp(-r)
    r = np.sqrt(5.0 * q)
    return (1.0 + r + (5.0 / 3.0) * q) * np.exp(-r)


def _radial_slope(shape: Shape, q: Array) -> Array:
    """Derivative of `radial` by `q`, finite at zero."""
    if shape == "rbf":
        return -0.5 * np.exp(-0.5 * q)
    if shape == "matern32":
        return -1.5 * np.exp(-np.sqrt(3.0 * q))
    r = np.sqrt(5.0 * q)
    return (-5.0 / 6.0) * (1.0 + r) * np.exp(-r)


def separable(shape: Shape, squares: Iterable[Array], orders: Float[np.ndarray, " o"]) -> Array:
    """Correlation of ``"product32"`` or ``"additive"``.

    Parameters
    ----------
    squares
        Scaled squared distances, column by column, so that those of many pairs need not exist at once.
    orders : (3,)
        Weights of single columns, pairs and triples; not read by the product.
    """
    if shape == "product32":
        value: Array = np.ones(())
        total: Array = np.zeros(())
        for q in squares:
            step = np.sqrt(3.0 * q)
            total = total + step
            value = value * (1.0 + step)
        product: Array = value * np.exp(-total)
        return product
    sums, count = _order_sums(np.exp(-0.5 * q) for q in squares)
    result: Array = sum(share * each for share, each in zip(_shares(orders, count), sums, strict=True))
    return result


def _order_sums(factors: Iterable[Array]) -> tuple[tuple[Array, Array, Array], int]:
    """Sums of all factors, of products of two and of three, and the number of factors."""
    first: Array = np.zeros(())
    second, third, count = first, first, 0
    for z in factors:
        third = third + z * second
        second = second + z * first
        first = first + z
        count += 1
    return (first, second, third), count


def _shares(orders: Float[np.ndarray, " o"], count: int) -> Float[np.ndarray, " o"]:
    """Weights of the sums over products, whose numbers of terms grow with their order."""
    return orders / [max(1, comb(count, order)) for order in range(1, ORDERS + 1)]


def with_gradient(
    shape: Shape,
    distances: Float[np.ndarray, "l p"],
    weight: Float[np.ndarray, " l"],
    orders: Float[np.ndarray, " o"],
) -> tuple[Float[np.ndarray, " p"], Pull]:
    """Correlations of pairs, and the gradient by the logarithms of lengthscales, then of orders.

    Parameters
    ----------
    distances : (l, p)
        Squared distances of each column, unscaled.
    weight : (l,)
        What they are multiplied with, ``1 / l_j^2``.
    orders
        As of `separable`; the gradient has entries for them if the shape is additive.
    """
    if shape == "product32":
        return _product(distances, weight, orders)
    if shape == "additive":
        return _additive(distances, weight, orders)
    q = weight @ distances

    def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
        result: Float[np.ndarray, " h"] = -2.0 * weight * (distances @ (by_pair * _radial_slope(shape, q)))
        return result

    return radial(shape, q), pull


def _product(
    distances: Float[np.ndarray, "l p"], weight: Float[np.ndarray, " l"], orders: Float[np.ndarray, " o"]
) -> tuple[Float[np.ndarray, " p"], Pull]:
    squares = weight[:, None] * distances
    # Without columns, the product is 1 for all pairs.
    value = np.broadcast_to(separable("product32", squares, orders), distances.shape[1:])

    def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
        # With s = sqrt(3) r: d log((1 + s) exp(-s)) / d log l = s^2 / (1 + s).
        squares_of_steps = 3.0 * squares
        result: Float[np.ndarray, " h"] = (squares_of_steps / (1.0 + np.sqrt(squares_of_steps))) @ (
            by_pair * value
        )
        return result

    return value, pull


def _additive(
    distances: Float[np.ndarray, "l p"], weight: Float[np.ndarray, " l"], orders: Float[np.ndarray, " o"]
) -> tuple[Float[np.ndarray, " p"], Pull]:
    squares = weight[:, None] * distances
    factors = np.exp(-0.5 * squares)
    found, count = _order_sums(factors)
    sums = np.array([np.broadcast_to(each, distances.shape[1:]) for each in found])
    shares = _shares(orders, count)

    def pull(by_pair: Float[np.ndarray, " p"]) -> Float[np.ndarray, " h"]:
        # The derivative of a sum of products by one factor is the sum of one order less over the others.
        others = sums[0] - factors
        slope = shares[0] + shares[1] * others + shares[2] * (sums[1] - factors * others)
        slope *= factors
        slope *= squares
        return np.concatenate([slope @ by_pair, shares * (sums @ by_pair)])

    return shares @ sums, pull
