"""Pareto frontiers of memory and error, and how far an estimated one is from the true one.

References
----------
.. [Yang21] C. Yang et al., "How Low Can We Go: Trading Memory for Error in Low-Precision Training",
   arXiv 2106.09686.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from dse.metrics import hypervolume, non_dominated

MARGIN = 0.1  #: of the reference point beyond the worst memory and the worst error


@dataclass(frozen=True, slots=True)
class Frontier:
    """Configurations that no other one dominates, by ascending memory.

    Attributes
    ----------
    indices : (p,)
        Of the configurations.
    memory : (p,)
        In the units of the given memory.
    errors : (p,)
        As estimated, or true.
    """

    indices: Int[np.ndarray, " p"]
    memory: Float[np.ndarray, " p"]
    errors: Float[np.ndarray, " p"]


def frontier(memory: ArrayLike, errors: ArrayLike) -> Frontier:
    """Non-dominated configurations; of several with equal memory and error, the first.

    Examples
    --------
    >>> frontier([1.0, 2.0, 2.0, 3.0], [0.5, 0.2, 0.4, 0.2]).indices
    array([0, 1])
    """
    sizes, values = _pair(memory, errors)
    best = np.flatnonzero(non_dominated(np.column_stack([sizes, values])))
    best = best[np.lexsort((best, sizes[best]))]
    first = np.append(True, np.diff(sizes[best]) > 0)
    return Frontier(best[first], sizes[best][first], values[best][first])


def convergence(indices: ArrayLike, memory: ArrayLike, errors: ArrayLike) -> float:
    """Mean distance of an estimated frontier's points to the nearest true one, 0 at best [Yang21]_.

    Parameters
    ----------
    indices : (p,)
        Configurations of the estimated frontier; they count where they truly are.
    memory, errors : (n,)
        True values of all configurations. Both axes are scaled to 0..1 over them, an axis that is constant
        to 0.
    """
    points = _normalised(memory, errors)
    truth = points[frontier(points[:, 0], points[:, 1]).indices]
    found = points[_some(indices, len(points))]
    return float(np.linalg.norm(found[:, None] - truth, axis=2).min(axis=1).mean())


def hypervolume_difference(
    indices: ArrayLike, memory: ArrayLike, errors: ArrayLike, *, margin: float = MARGIN
) -> float:
    """Hypervolume of the true frontier less that of the estimated one, 0 at best [Yang21]_.

    Parameters
    ----------
    indices, memory, errors
        See `convergence`; axes are scaled as there.
    margin
        The reference point is (1 + margin, 1 + margin), the same for every estimate.
    """
    points, corner = _normalised(memory, errors), np.full(2, 1.0 + margin)
    found = points[_some(indices, len(points))]
    return hypervolume(points, corner) - hypervolume(found, corner)


def _normalised(memory: ArrayLike, errors: ArrayLike) -> Float[np.ndarray, "n 2"]:
    points = np.column_stack(_pair(memory, errors))
    width = np.ptp(points, axis=0)
    scaled: Float[np.ndarray, "n 2"] = (points - points.min(axis=0)) / np.where(width > 0, width, 1.0)
    return scaled


def _some(indices: ArrayLike, count: int) -> Int[np.ndarray, " p"]:
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.ndim != 1 or len(chosen) == 0:
        raise ValueError(f"an estimated frontier must have at least one point, got the shape {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= count:
        bad = chosen[(chosen < 0) | (chosen >= count)][0]
        raise ValueError(f"indices must be in 0..{count - 1}, got {bad}")
    return chosen


def _pair(memory: ArrayLike, errors: ArrayLike) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    sizes, values = np.asarray(memory, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if sizes.ndim != 1 or sizes.shape != values.shape or len(sizes) == 0:
        raise ValueError(
            f"memory and errors must have one shape, (n,) with n > 0, got {sizes.shape} and {values.shape}"
        )
    return sizes, values
