"""Pareto fronts, hypervolumes, and how far a search is from a true front. Everything is minimised.

References
----------
.. [While12] L. While, L. Bradstreet, L. Barone, "A Fast Way of Calculating Exact Hypervolumes", IEEE
   Transactions on Evolutionary Computation 16(1), 2012 (the WFG algorithm).
.. [Palermo09] G. Palermo, C. Silvano, V. Zaccaria, "ReSPIR: A Response Surface-Based Pareto Iterative
   Refinement for Application-Specific Design Space Exploration", IEEE Transactions on CAD 28(12), 2009
   (the average distance from the reference set).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike


def _matrix(values: ArrayLike) -> Float[np.ndarray, "n m"]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] < 1:
        raise ValueError(f"values must have the shape (n, m) with m at least 1, got {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"values must not be NaN, got {array[np.isnan(array).any(axis=1)][0].tolist()}")
    return array


def non_dominated(values: ArrayLike) -> Bool[np.ndarray, " n"]:
    """Rows that no other row dominates, as a mask; equal rows do not dominate each other.

    Parameters
    ----------
    values : (n, m)
        Minimised objectives. A row dominates another one if it is nowhere worse and somewhere better.

    Examples
    --------
    >>> non_dominated([[1, 3], [2, 2], [2, 3]])
    array([ True,  True, False])
    """
    array = _matrix(values)
    rows, inverse = np.unique(array, axis=0, return_inverse=True)
    return _best(rows)[inverse.reshape(-1)]


def _best(rows: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, " n"]:
    """As `non_dominated`, of distinct rows in lexicographic order: only an earlier one can dominate."""
    best = np.zeros(len(rows), dtype=bool)
    left = np.arange(len(rows))
    while len(left):
        best[left[0]] = True
        left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return best


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Volume dominated by the rows and bounded by the reference point.

    Exact: a sweep for two objectives, the exclusive volumes of [While12]_ for more.

    Parameters
    ----------
    values : (n, m)
        Minimised objectives; rows that are not better than the reference everywhere add nothing.
    reference : (m,)
        The worst corner.

    Examples
    --------
    >>> hypervolume([[1, 3], [2, 2]], [4, 4])  # 3 x 1 and 2 x 2, of which 2 x 1 twice
    5.0
    """
    array = _matrix(values)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (array.shape[1],):
        raise ValueError(f"reference must have the shape ({array.shape[1]},), got {corner.shape}")
    if not np.isfinite(corner).all():
        raise ValueError(f"reference must be finite, got {corner.tolist()}")
    return _volume(array[(array < corner).all(axis=1)], corner)


def adrs(found: ArrayLike, front: ArrayLike) -> float:
    """Average distance of the reference set [Palermo09]_: how much worse than a true front.

    The mean over the rows of `front` of the least, over the rows of `found`, of the largest relative
    excess in any objective: 0.05 is within 5 % in the worst objective on average, 0 is the whole front.
    Infinite where nothing is found.

    Parameters
    ----------
    found : (n, m)
        Minimised objectives as measured, not transformed.
    front : (p, m)
        The true front, all values positive: excess is relative to them.

    Examples
    --------
    >>> adrs([[2.0, 10.0]], [[2.0, 8.0], [4.0, 5.0]])  # a quarter over the first, twice the second
    0.625
    """
    values, truth = _matrix(found), _matrix(front)
    if len(truth) == 0:
        raise ValueError("front must have at least one row, got none")
    if values.shape[1] != truth.shape[1]:
        raise ValueError(f"found and front must have as many columns, got {values.shape} and {truth.shape}")
    if (truth <= 0).any():
        raise ValueError(f"front must be positive, got {truth[truth <= 0][0]}")
    if len(values) == 0:
        return float("inf")
    excess = np.array([((values - row) / row).max(axis=1).clip(min=0.0).min() for row in truth])
    return float(excess.mean())


def hypervolume_regret(found: ArrayLike, everything: ArrayLike, *, margin: float = 0.1) -> float:
    """Share of the hypervolume of the true front that is missing: 0 is all of it found, 1 nothing.

    Parameters
    ----------
    found : (n, m)
        Minimised objectives of what was evaluated, transformed as `everything` is.
    everything : (N, m)
        Those of all designs. Each objective is scaled to [0, 1] over them, and the reference point lies
        `margin` beyond 1.

    Raises
    ------
    ValueError
        Other shapes, no row, or an objective that is constant over all designs.

    Examples
    --------
    >>> hypervolume_regret([[1, 1]], [[0, 0], [1, 1]])  # 0.1 x 0.1 of 1.1 x 1.1
    0.9917355371900827
    """
    values, table = _matrix(found), _matrix(everything)
    if len(table) == 0:
        raise ValueError("everything must have at least one row, got none")
    if values.shape[1] != table.shape[1]:
        raise ValueError(
            f"found and everything must have as many columns, got {values.shape} and {table.shape}"
        )
    low, width = table.min(axis=0), np.ptp(table, axis=0)
    if (width == 0).any():
        raise ValueError(
            f"objective {int(np.argmin(width))} must vary, got {low[np.argmin(width)]} everywhere"
        )
    corner = np.full(table.shape[1], 1.0 + margin)
    whole = hypervolume((table[non_dominated(table)] - low) / width, corner)
    return 1.0 - hypervolume((values - low) / width, corner) / whole


def _volume(points: Float[np.ndarray, "n m"], corner: Float[np.ndarray, " m"]) -> float:
    if len(points) == 0:
        return 0.0
    points = np.unique(points, axis=0)
    points = points[_best(points)]
    if points.shape[1] == 1:
        return float(corner[0] - points[0, 0])
    if points.shape[1] == 2:
        # Ascending in the first, hence descending in the second objective: a staircase.
        heights = np.append(corner[1], points[:-1, 1]) - points[:, 1]
        return float(((corner[0] - points[:, 0]) * heights).sum())
    total = 0.0
    for index, point in enumerate(points):
        # What this point shares with the later ones is what the later ones dominate inside its box.
        shared = np.maximum(points[index + 1 :], point)
        total += float(np.prod(corner - point)) - _volume(shared, corner)
    return total


def reference_point(costs: ArrayLike, thresholds: ArrayLike) -> Float[np.ndarray, " m"]:
    """Worst costs of interest: the threshold, or the worst so far plus 10 % of the range, (m,).

    Parameters
    ----------
    costs : (n, m)
        Minimised objectives.
    thresholds : (m,)
        NaN where there is none. Where all costs are equal, the margin is 0.1.

    Examples
    --------
    >>> reference_point([[1, 3], [2, 2]], [float("nan"), 5.0])
    array([2.1, 5. ])
    """
    array, wanted = _matrix(costs), np.asarray(thresholds, dtype=np.float64)
    spread = np.ptp(array, axis=0)
    worst = array.max(axis=0) + 0.1 * np.where(spread > 0, spread, 1.0)
    return np.where(np.isnan(wanted), worst, wanted)
