"""Rounding by looking up the sorted list of all values: a second judge, fast for small formats."""

from __future__ import annotations

from functools import cache

import numpy as np

from oracles.rational import has_minus_zero, is_fixed, largest, last_code, overflowed, smallest, value_of_code


@cache
def magnitudes(fmt):
    """Magnitudes of the codes 0, 1, ... up to one beyond the range of either sign, ascending."""
    top = last_code(fmt) + (2 if is_fixed(fmt) else 1)
    values = sorted({value_of_code(code, fmt) for code in range(top + 1)})
    return np.array([float(value) for value in values])


def round_by_table(x, fmt, mode, overflow="format"):
    """Round finite float64 `x`, whose differences from the values must be exact in float64."""
    assert fmt.frac_bits > 0 or is_fixed(fmt), "with one-digit significands no neighbour is even"
    assert not is_fixed(fmt) or fmt.overflow == "saturate", "the table ends, it does not wrap"
    grid = magnitudes(fmt)
    size = np.abs(x)
    low = np.minimum(np.searchsorted(grid, size, side="right") - 1, len(grid) - 2)
    below, above = size - grid[low], grid[low + 1] - size
    negative = np.signbit(x)
    # Without subnormals the list lacks the codes between zero and the smallest normal number.
    lacking = 0 if is_fixed(fmt) or fmt.subnormals else 2**fmt.frac_bits - 1
    odd = np.where(low == 0, 0, low + lacking) % 2 == 1
    up = (below > 0) & {
        "nearest-even": (above < below) | ((above == below) & odd),
        "nearest-away": above <= below,
        "toward-zero": np.zeros(x.shape, bool),
        "down": negative,
        "up": ~negative,
        "to-odd": ~odd,
    }[mode]
    result = np.where(negative, -1.0, 1.0) * grid[low + up]
    beyond = (result > float(largest(fmt))) | (result < float(smallest(fmt)))
    ends = [overflowed(sign, fmt, mode, overflow) for sign in (-1, 1)]
    result = np.where(beyond, np.where(negative, *ends), result)
    return result if has_minus_zero(fmt) else result + 0.0
