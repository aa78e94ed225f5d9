"""Numbers on the unit interval: linear or logarithmic, and which of the two suits a list of values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def to_unit(
    values: Float[np.ndarray, " n"], low: float, high: float, *, log: bool
) -> Float[np.ndarray, " n"]:
    """Position of numbers between `low` and `high`, (n,) in [0, 1].

    With `log`, ``log2`` of them is taken first, or ``log2(v + 1)`` where `low` is 0: "off" is then
    one step below 1.
    """
    shift = float(log and low == 0)
    ends = np.array([low, high], dtype=np.float64)
    if log:
        values, ends = np.log2(values + shift), np.log2(ends + shift)
    unit: Float[np.ndarray, " n"] = (values - ends[0]) / (ends[1] - ends[0])
    inside: Float[np.ndarray, " n"] = np.clip(unit, 0.0, 1.0)
    return inside


def from_unit(
    points: Float[np.ndarray, " n"], low: float, high: float, *, log: bool
) -> Float[np.ndarray, " n"]:
    """Inverse of `to_unit`, (n,) in [`low`, `high`]."""
    shift = float(log and low == 0)
    ends = np.array([low, high], dtype=np.float64)
    if log:
        ends = np.log2(ends + shift)
    values = ends[0] + points * (ends[1] - ends[0])
    inside: Float[np.ndarray, " n"] = np.clip(np.exp2(values) - shift if log else values, low, high)
    return inside


def is_geometric(values: Float[np.ndarray, " k"]) -> bool:
    """Whether increasing numbers are spaced more evenly in their logarithm than as they are.

    Evenness is the standard deviation of the gaps over their mean. Negative numbers and fewer than
    three are linear.

    Examples
    --------
    >>> is_geometric(np.array([0.0, 1, 2, 4, 8])), is_geometric(np.array([10.0, 20, 30]))
    (True, False)
    """
    if len(values) < 3 or values[0] < 0:
        return False
    linear = np.diff(values)
    log = np.diff(np.log2(values + float(values[0] == 0)))
    return bool(log.std() * linear.mean() < linear.std() * log.mean() * (1 - 1e-9))


def step(position: float, rng: np.random.Generator) -> float:
    """Gaussian step from a position in the unit interval, reflected at its ends.

    The standard deviation is drawn between 0.005 and 0.5, evenly in its logarithm, so that a search
    that knows no scale makes wide and narrow steps.
    """
    moved = position + rng.standard_normal() * 0.5 * 10 ** (-2 * rng.random())
    folded = abs(moved) % 2.0
    return min(folded, 2.0 - folded)
