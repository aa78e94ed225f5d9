"""Pareto fronts and hypervolumes of small sets. Everything is minimised.

References
----------
.. [While12] L. While, L. Bradstreet, L. Barone, "A Fast Way of Calculating Exact Hypervolumes", IEEE
   Transactions on Evolutionary Computation 16(1), 2012 (the WFG algorithm).
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
    return np.array(
        [not ((array <= row).all(axis=1) & (array < row).any(axis=1)).any() for row in array], dtype=bool
    )


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


def _volume(points: Float[np.ndarray, "n m"], corner: Float[np.ndarray, " m"]) -> float:
    if len(points) == 0:
        return 0.0
    points = np.unique(points[non_dominated(points)], axis=0)
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
