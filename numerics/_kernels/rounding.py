"""One rounding: of a float64 to a target format, and of a sum to odd.

A target is ``(mode, frac_bits, emin, min_value, max_value, overflow, flush, random_bits)``. A fixed-point
format is a float of which only the subnormals are used: `emin` is its integer bits, `frac_bits` all its
magnitude bits.

`sum_to_odd` rounds to odd at 53 bits (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded
sums: proved algorithms using rounding to odd", IEEE Trans. Computers 57(4), 2008), so a second rounding
to at most 24 + 24 bits is the one rounding of the exact sum.
"""

import numpy as np
from numba import njit

NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, DOWN, UP, TO_ODD, STOCHASTIC = range(7)
SATURATE, INFINITY, NAN = range(3)


@njit(cache=True)
def _overflowed(negative, mode, min_value, max_value, overflow):
    """Value of a result beyond the largest finite one; directed modes stay finite (IEEE 754, 7.4)."""
    limit = min_value if negative else max_value
    if overflow == SATURATE or limit == 0.0:
        return limit
    if mode == TOWARD_ZERO or mode == TO_ODD or (mode == DOWN and not negative) or (mode == UP and negative):
        return limit
    if overflow == NAN:
        return np.nan
    return -np.inf if negative else np.inf


@njit(cache=True)
def round_one(x, mode, frac_bits, emin, min_value, max_value, overflow, flush, word, random_bits):
    """Round one float64 to the target; `word` is 32 random bits, used by stochastic rounding."""
    if x == 0.0 or x != x:
        return x
    negative = x < 0.0
    magnitude = -x if negative else x
    if magnitude == np.inf:
        return _overflowed(negative, NEAREST_EVEN, min_value, max_value, overflow)
    exponent = (np.float64(magnitude).view(np.int64) >> 52) - 1023
    if exponent > 200:  # no format of ours reaches so far, and 2**-exponent would be subnormal
        return _overflowed(negative, mode, min_value, max_value, overflow)
    if exponent < emin:
        # Without subnormals the only neighbours below the smallest normal number are it and zero.
        unit = emin if flush else emin - frac_bits
    else:
        unit = exponent - frac_bits
    scaled = magnitude * np.int64((1023 - unit) << 52).view(np.float64)
    if scaled == 0.0:
        scaled = 5e-324  # a unit above 1 made a float64 subnormal vanish: keep it sticky
    whole = np.floor(scaled)
    rest = scaled - whole
    up = False
    if rest > 0.0:
        if mode == NEAREST_EVEN:
            up = rest > 0.5 or (rest == 0.5 and np.int64(whole) & 1 == 1)
        elif mode == NEAREST_AWAY:
            up = rest >= 0.5
        elif mode == DOWN:
            up = negative
        elif mode == UP:
            up = not negative
        elif mode == TO_ODD:
            up = np.int64(whole) & 1 == 0
        elif mode == STOCHASTIC:
            threshold = np.int64(1) << random_bits
            discarded = np.int64(rest * threshold)
            up = discarded + (np.int64(word) >> (32 - random_bits)) >= threshold
    if up:
        whole += 1.0
    rounded = whole * np.int64((1023 + unit) << 52).view(np.float64)
    if negative:
        rounded = -rounded
    if rounded > max_value or rounded < min_value:
        return _overflowed(negative, mode, min_value, max_value, overflow)
    return rounded


@njit(cache=True)
def sum_to_odd(a, b):
    """``a + b`` rounded to odd at 53 bits: the exact sum, or the odd one of its two neighbours."""
    total = a + b
    if not np.isfinite(total):
        return total
    part = total - a
    error = (a - (total - part)) + (b - part)
    if error != 0.0:
        bits = np.float64(total).view(np.int64)
        if bits & 1 == 0:
            bits += 1 if (error > 0.0) == (total > 0.0) else -1
            return np.int64(bits).view(np.float64)
    return total
