"""Which configurations to measure within a budget: D-optimal designs, relaxed or greedy, and simpler choices.

D-optimal is the largest information ``log det(ridge I + sum_j v_j y_j y_j')`` of the embeddings y_j, with
weights v_j of 0 or 1 (relaxed: between them) whose costs ``sum_j c_j v_j`` are within the budget.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
.. [Kiefer60] J. Kiefer, J. Wolfowitz, "The Equivalence of Two Extremum Problems", Canadian Journal of
   Mathematics 12, 1960.
.. [Fedorov72] V. V. Fedorov, "Theory of Optimal Experiments", Academic Press, 1972 (exchange algorithm).
.. [Boyd04] S. Boyd, L. Vandenberghe, "Convex Optimization", Cambridge, 2004, sections 7.5 and 11.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

GAP = 1e-6  # of the relaxation, in nats
EXCHANGE = 1e-9  # the least gain of an exchange, in nats
_NEWTON_STEPS = 60


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Solution of the convex relaxation.

    Attributes
    ----------
    weights : (n,)
        Share of each configuration that is measured, in 0..1.
    log_det
        Information.
    gap
        No design has a larger information than ``log_det + gap``. It is the equivalence theorem [Kiefer60]_
        for bounded weights and costs: at an optimum ``sum_j (w_j - v_j) y_j' M^-1 y_j`` is positive for no
        feasible w; elsewhere the largest such sum is, by concavity, a bound.
    """

    weights: Float[np.ndarray, " n"]
    log_det: float
    gap: float


def relaxed(
    embeddings: ArrayLike, costs: ArrayLike, budget: float, *, ridge: float, gap: float = GAP
) -> Relaxed:
    """Solve the relaxation of the D-optimal choice by a barrier method [Boyd04]_.

    Parameters
    ----------
    embeddings : (n, r)
        One row for each configuration.
    costs : (n,)
        Positive. What costs more than the budget has the weight 0, for it can never be measured.
    budget
        In units of the costs.
    ridge
        Positive, in squared units of the embeddings.
    gap
        Bound on the distance from the optimum at which to stop.

    Notes
    -----
    A Newton step is O(n^3), and some ninety are taken: 0.02 s for 72 configurations.

    Raises
    ------
    ValueError
        Bad shapes, a cost that is not positive and finite, or a budget below the cheapest configuration.
    RuntimeError
        The gap was not reached, for the problem is too badly scaled.
    """
    y, prices = _checked(embeddings, costs, budget, ridge)
    weights = np.zeros(len(y))
    fits = prices <= budget
    if prices[fits].sum() <= budget:
        weights[fits] = 1.0
    else:
        weights[fits] = _barrier(y[fits], prices[fits] / budget, ridge, gap)
    found = Relaxed(weights, information(y, weights, ridge), _gap(y, prices, budget, ridge, weights))
    if found.gap > gap:
        raise RuntimeError(
            f"the relaxed design is within {found.gap:.1e} of the optimum, {gap:.1e} is wanted"
        )
    return found


def _barrier(
    y: Float[np.ndarray, "n r"], prices: Float[np.ndarray, " n"], ridge: float, gap: float
) -> Float[np.ndarray, " n"]:
    """Weights of a problem whose budget is 1, and less than all costs together."""
    n = len(y)
    v = np.full(n, 0.5 / prices.sum())
    sharpness = 1.0
    while True:
        for _ in range(_NEWTON_STEPS):
            gram = y @ np.linalg.solve(ridge * np.eye(y.shape[1]) + (y.T * v) @ y, y.T)
            room = 1.0 - prices @ v
            slope = sharpness * np.diag(gram) + 1 / v - 1 / (1 - v) - prices / room
            # Scaled by the barrier's own diagonal: its entries differ by many orders of magnitude.
            scale = 1 / np.sqrt(1 / v**2 + 1 / (1 - v) ** 2)
            curvature = sharpness * gram**2 + np.outer(prices, prices) / room**2
            # By eigenvalues, for beside equal embeddings the identity is lost in the sum of the two.
            values, vectors = np.linalg.eigh(scale[:, None] * curvature * scale)
            along = vectors.T @ (scale * slope)
            step = scale * (vectors @ (along / (1.0 + np.maximum(values, 0.0))))
            decrement = float(slope @ step)
            length = min(1.0, _longest(v, step, room, float(prices @ step)))
            if decrement > 0.05:  # far from the centre; near it whole steps converge quadratically
                before = _barrier_value(y, v, prices, ridge, sharpness)
                while (
                    length > 1e-9
                    and _barrier_value(y, v + length * step, prices, ridge, sharpness)
                    < before + 0.1 * length * decrement
                ):
                    length /= 2.0
            v = v + length * step
            if decrement < 1e-6:
                break
        if (2 * n + 1) / sharpness < 0.5 * gap:
            return np.asarray(v)
        sharpness *= 10.0


def _barrier_value(
    y: np.ndarray, v: Float[np.ndarray, " n"], prices: np.ndarray, ridge: float, sharpness: float
) -> float:
    bounds = np.log(v).sum() + np.log1p(-v).sum() + np.log(1.0 - prices @ v)
    return float(sharpness * information(y, v, ridge) + bounds)


def _longest(v: np.ndarray, step: np.ndarray, room: float, spent: float) -> float:
    """Nearly the longest step that stays inside the bounds."""
    with np.errstate(divide="ignore"):
        ends = np.where(step < 0, -v / step, np.where(step > 0, (1 - v) / step, np.inf))
    return 0.99 * min(float(ends.min()), room / spent if spent > 0 else np.inf)


def _gap(
    y: np.ndarray, prices: np.ndarray, budget: float, ridge: float, weights: Float[np.ndarray, " n"]
) -> float:
    """The most that the linearised information gains over all feasible weights: a fractional knapsack."""
    information_matrix = ridge * np.eye(y.shape[1]) + (y.T * weights) @ y
    gains = np.einsum("ij,ji->i", y, np.linalg.solve(information_matrix, y.T))
    left, best = budget, 0.0
    for j in np.argsort(-gains / prices):
        if prices[j] <= budget:
            share = min(1.0, left / prices[j])
            best += share * gains[j]
            left -= share * prices[j]
    return max(0.0, float(best - gains @ weights))


def rounded(
    design: Relaxed, embeddings: ArrayLike, costs: ArrayLike, budget: float, *, ridge: float
) -> Int[np.ndarray, " s"]:
    """Measure the configurations of the largest weights that fit, and improve on that.

    What is left of the budget is spent greedily. Then measured configurations are exchanged for others, one
    for one, the most gainful exchange first, while information grows [Fedorov72]_. The greedy choice is
    improved in the same way, and the better one of the two is returned, the first where they are equal.
    """
    y, prices = _checked(embeddings, costs, budget, ridge)
    # Beyond the solver's own precision weights say nothing.
    heavy = [j for j in np.argsort(-design.weights, kind="stable") if design.weights[j] > 1e-3]
    choices = [
        _exchanged(y, prices, budget, ridge, greedy(y, prices, budget, ridge=ridge, first=first))
        for first in (_fitting(heavy, prices, budget), ())
    ]
    known = [information(y[chosen], np.ones(len(chosen)), ridge) for chosen in choices]
    return choices[int(known[1] > known[0] + EXCHANGE)]


def _exchanged(
    y: np.ndarray, prices: np.ndarray, budget: float, ridge: float, chosen: Int[np.ndarray, " s"]
) -> Int[np.ndarray, " s"]:
    for _ in range(len(y)):  # each exchange gains, so that none is undone; few are ever made
        best, gain = _best_exchange(y, prices, budget, ridge, chosen)
        if gain <= EXCHANGE:
            break
        # A cheaper configuration may have made room for one more.
        chosen = greedy(y, prices, budget, ridge=ridge, first=best)
    return chosen


def _best_exchange(
    y: np.ndarray, prices: np.ndarray, budget: float, ridge: float, chosen: Int[np.ndarray, " s"]
) -> tuple[Int[np.ndarray, " s"], float]:
    """The choice after the most gainful exchange within the budget, and its gain in nats."""
    left = budget - prices[chosen].sum()
    others = np.setdiff1d(np.arange(len(y)), chosen)
    best, most = chosen, 0.0
    whole = ridge * np.eye(y.shape[1]) + y[chosen].T @ y[chosen]
    now = float(np.linalg.slogdet(whole)[1])
    for place, old in enumerate(chosen):
        open_ = others[prices[others] <= left + prices[old]]
        if not len(open_):
            continue
        without = whole - np.outer(y[old], y[old])
        added = without + y[open_, :, None] * y[open_, None, :]
        gains = np.linalg.slogdet(added)[1] - now
        if gains.max() > most:
            most = float(gains.max())
            best = chosen.copy()
            best[place] = open_[int(np.argmax(gains))]
    return best, most


def greedy(
    embeddings: ArrayLike,
    costs: ArrayLike,
    budget: float,
    *,
    ridge: float,
    first: ArrayLike = (),
) -> Int[np.ndarray, " s"]:
    """Add the configuration with the largest ``y' M^-1 y`` for its cost, until nothing fits [Yang21]_.

    M begins as ridge I and becomes M + y y'; its determinant grows by the factor 1 + y' M^-1 y.

    Parameters
    ----------
    embeddings, costs, budget, ridge
        See `relaxed`.
    first : (s,)
        Configurations that are taken before.

    Returns
    -------
    Configurations in the order in which they were added.
    """
    y, prices = _checked(embeddings, costs, budget, ridge)
    inverse = np.eye(y.shape[1]) / ridge
    gains = np.einsum("ij,ij->i", y, y) / ridge
    chosen: list[int] = []
    left, waiting = budget, list(np.asarray(first, dtype=np.int64))
    while True:
        if waiting:
            j = int(waiting.pop(0))
        else:
            open_ = prices <= left
            open_[chosen] = False
            if not open_.any():
                return np.array(chosen, dtype=np.int64)
            j = int(np.argmax(np.where(open_, gains / prices, -np.inf)))
        chosen.append(j)
        left -= prices[j]
        # Sherman and Morrison's formula: one new measurement changes every gain by a square.
        moved = inverse @ y[j]
        inverse = inverse - np.outer(moved, moved) / (1.0 + gains[j])
        gains = gains - (y @ moved) ** 2 / (1.0 + gains[j])


def pivoted(embeddings: ArrayLike, costs: ArrayLike, budget: float) -> Int[np.ndarray, " s"]:
    """Pivots of QR factorisations of the embeddings, one after the other, as far as they fit."""
    from scipy.linalg import qr

    y, prices = _checked(embeddings, costs, budget, 1.0)
    order: list[int] = []
    rest = np.arange(len(y))
    while len(rest):
        pivots = qr(y[rest].T, mode="r", pivoting=True)[1][: y.shape[1]]
        order += rest[pivots].tolist()
        rest = np.delete(rest, pivots)
    return _fitting(order, prices, budget)


def random_choice(costs: ArrayLike, budget: float, *, seed: int) -> Int[np.ndarray, " s"]:
    """Configurations in a random order, as far as they fit."""
    prices = _checked(np.ones((np.size(costs), 1)), costs, budget, 1.0)[1]
    return _fitting(np.random.default_rng(seed).permutation(len(prices)), prices, budget)


def information(embeddings: ArrayLike, weights: ArrayLike, ridge: float) -> float:
    """``log det(ridge I + sum_j v_j y_j y_j')``, in nats."""
    y = np.asarray(embeddings, dtype=np.float64)
    matrix = ridge * np.eye(y.shape[1]) + (y.T * np.asarray(weights, dtype=np.float64)) @ y
    return float(np.linalg.slogdet(matrix)[1])


def _fitting(order: Iterable[int], prices: np.ndarray, budget: float) -> Int[np.ndarray, " s"]:
    chosen, left = [], budget
    for j in order:
        if prices[j] <= left:
            chosen.append(int(j))
            left -= prices[j]
    return np.array(chosen, dtype=np.int64)


def _checked(
    embeddings: ArrayLike, costs: ArrayLike, budget: float, ridge: float
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " n"]]:
    y, prices = np.asarray(embeddings, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    if y.ndim != 2 or y.size == 0 or not np.isfinite(y).all():
        raise ValueError(f"embeddings must be a finite table (configurations, rank), got the shape {y.shape}")
    check_costs(prices, len(y))
    if not (np.isfinite(budget) and budget >= prices.min()):
        raise ValueError(
            f"budget must be finite and at least {prices.min():g}, the cost of the cheapest configuration, "
            f"got {budget:g}"
        )
    if not (np.isfinite(ridge) and ridge > 0):
        raise ValueError(f"ridge must be positive and finite, got {ridge}")
    return y, prices


def check_costs(costs: Float[np.ndarray, " n"], count: int) -> None:
    """Refuse costs of another number of configurations, or that are not positive and finite."""
    if costs.shape != (count,):
        raise ValueError(
            f"costs must have the shape ({count},), one for each configuration, got {costs.shape}"
        )
    bad = ~(np.isfinite(costs) & (costs > 0))
    if bad.any():
        j = int(np.argmax(bad))
        raise ValueError(f"costs must be positive and finite, got {costs[j]} of configuration {j}")
