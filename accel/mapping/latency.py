"""How times that run beside each other add up.

The time of a step is that of its longest part if the parts overlap perfectly, and their sum if they
take turns. Between the two, the p-norm of the times.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def overlapped(*times: ArrayLike, exponent: float = inf) -> Floats:
    """Time of parts that overlap in part: ``(sum t^p)^(1/p)``.

    Parameters
    ----------
    times
        One array per part, not negative; shapes broadcast.
    exponent
        p: 1 is no overlap (the sum), infinity a perfect one (the longest).

    Raises
    ------
    ValueError
        No part, a negative time, or an exponent below 1.

    Examples
    --------
    >>> [round(float(overlapped(3, 4, exponent=p)), 2) for p in (1, 2, float("inf"))]
    [7.0, 5.0, 4.0]
    """
    if not exponent >= 1:
        raise ValueError(f"exponent must be at least 1, got {exponent}")
    if not times:
        raise ValueError("there must be at least 1 time, got none")
    parts = np.stack(np.broadcast_arrays(*(np.asarray(time, np.float64) for time in times)))
    if not (parts >= 0).all():
        raise ValueError(f"times must not be negative, got {parts[~(parts >= 0)].flat[0]}")
    longest: Floats = parts.max(axis=0)
    if exponent == inf:
        return longest
    # In units of the longest, so that no power overflows.
    shares = parts / np.where(longest > 0, longest, 1)
    return np.asarray(longest * (shares**exponent).sum(axis=0) ** (1 / exponent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How a machine overlaps its arithmetic with its off-chip transfers.

    The defaults are those of an ideal machine; to match a real one, fit all four.

    Attributes
    ----------
    exponent
        Of :func:`overlapped`, for arithmetic and off-chip transfers.
    compute_efficiency, memory_efficiency
        Fractions of the peak rates that are reached.
    start
        Time before anything runs, once per operator, in the unit of the times.
    """

    exponent: float = inf
    compute_efficiency: float = 1.0
    memory_efficiency: float = 1.0
    start: float = 0.0

    def __post_init__(self) -> None:
        if not self.exponent >= 1:
            raise ValueError(f"exponent must be at least 1, got {self.exponent}")
        for name in ("compute_efficiency", "memory_efficiency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.start >= 0:
            raise ValueError(f"start must not be negative, got {self.start}")

    def time(self, compute: ArrayLike, memory: ArrayLike, *ports: ArrayLike) -> Floats:
        """Time of an operator.

        Parameters
        ----------
        compute, memory
            Times of the arithmetic and of the off-chip transfers at peak rates; shapes broadcast.
        ports
            Times of on-chip memories: none can be undercut, nor do they slow the rest.
        """
        parts = (
            np.asarray(compute, np.float64) / self.compute_efficiency,
            np.asarray(memory, np.float64) / self.memory_efficiency,
        )
        return overlapped(overlapped(*parts, exponent=self.exponent), *ports) + self.start
