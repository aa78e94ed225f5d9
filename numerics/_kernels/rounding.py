"""One rounding: of a float64 to a target format, of a sum to odd, of a sum to a target.

A target is ``(mode, frac_bits, emin, min_value, max_value, overflow, flush)``, with ``random_bits`` at the
end where the mode is stochastic, so that kernels compile no random numbers where they need none. A
fixed-point format is a float of which only the subnormals are used: `emin` is its integer bits,
`frac_bits` all its magnitude bits.

`sum_to_odd` rounds to odd at 53 bits (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded
sums: proved algorithms using rounding to odd", IEEE Trans. Computers 57(4), 2008), so a second rounding
to at most 51 bits is the one rounding of the exact sum. Stochastic rounding compares the discarded part
itself with a random number and takes the sum as a pair (sum, error).
"""

import numpy as np
from numba import njit
from numba.extending import overload

from numerics._kernels.random import cast_digits, sum_word

NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, DOWN, UP, TO_ODD, STOCHASTIC = range(7)
SATURATE, INFINITY, NAN = range(3)
HALF = 16  # digits of a random number on page 0 of a cast
ENDLESS = 1 << 30
EXACT = 0  # random bits of a rounding up with exactly the discarded part as its probability


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
def _unit(magnitude, frac_bits, emin, flush):
    """Exponent of the spacing of the format around a finite positive number."""
    exponent = (np.float64(magnitude).view(np.int64) >> 52) - 1023
    if exponent < emin:
        # Without subnormals the only neighbours below the smallest normal number are it and zero.
        return emin if flush else emin - frac_bits
    return exponent - frac_bits


@njit(cache=True)
def _power(exponent):
    """``2.0**exponent`` for a normal result."""
    return np.int64((1023 + exponent) << 52).view(np.float64)


@njit(cache=True)
def _finished(negative, whole, unit, mode, min_value, max_value, overflow):
    """``whole * 2**unit`` with its sign, or what an overflow gives."""
    rounded = whole * _power(unit)
    if negative:
        rounded = -rounded
    if rounded > max_value or rounded < min_value:
        return _overflowed(negative, mode, min_value, max_value, overflow)
    return rounded


@njit(cache=True)
def round_one(x, mode, frac_bits, emin, min_value, max_value, overflow, flush):
    """Round one float64 to the target, not stochastically."""
    if x == 0.0 or x != x:
        return x
    negative = x < 0.0
    magnitude = -x if negative else x
    if magnitude == np.inf:
        return _overflowed(negative, NEAREST_EVEN, min_value, max_value, overflow)
    if magnitude >= 2.0**200:  # no format of ours reaches so far, and 2**-unit would be subnormal
        return _overflowed(negative, mode, min_value, max_value, overflow)
    unit = _unit(magnitude, frac_bits, emin, flush)
    scaled = magnitude * _power(-unit)
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
    if up:
        whole += 1.0
    return _finished(negative, whole, unit, mode, min_value, max_value, overflow)


@njit(cache=True)
def _goes_up(rest, error, random_bits, summed, element, number, k0, k1):
    """Whether the exact ``rest + error``, in 0 .. 1 exclusive, and a random number carry into 1.

    The number has `random_bits` bits, and the rest is cut to as many first; or it has as many as decide.
    Complemented, its digits are compared with those of the rest from the top, a page at a time: the carry
    happens if they are the lesser. `error` is far below the last bit of `rest`.
    """
    left = ENDLESS if random_bits == EXACT else random_bits
    page = 0
    while left > 0:
        width = 32 if summed or page > 0 else HALF
        bits = min(width, left)
        rest *= 2.0**bits
        error *= 2.0**bits
        top = np.floor(rest)
        if top == rest and error < 0.0:
            top -= 1.0
        digits = sum_word(element, number, page, k0, k1) if summed else cast_digits(element, page, k0, k1)
        complement = np.float64(((np.int64(1) << width) - 1 - np.int64(digits)) >> (width - bits))
        if complement != top:
            return complement < top
        rest -= top
        if error == 0.0 and rest == 0.0:
            return False
        if rest == 0.0 and error > 0.0:
            rest, error = error, 0.0
        left -= bits
        page += 1
    return False


@njit(cache=True)
def round_stochastic(x, error, target, summed, element, number, k0, k1):
    """Round the exact ``x + error`` to the target; `error` is at most half the spacing of float64 at x.

    The random number belongs to addition `number` of an output element if `summed`, else to an element
    of a cast array.
    """
    _, frac_bits, emin, min_value, max_value, overflow, flush, random_bits = target
    if x == 0.0 or x != x:
        return x
    negative = x < 0.0
    magnitude = -x if negative else x
    if magnitude >= 2.0**200:
        return _overflowed(negative, STOCHASTIC, min_value, max_value, overflow)
    if negative:
        error = -error
    # Truncated to a float64, the sum shows in which binade it is.
    inner = magnitude
    if error < 0.0:
        inner = np.int64(np.float64(magnitude).view(np.int64) - 1).view(np.float64)
    unit = _unit(inner, frac_bits, emin, flush)
    down = _power(-unit)
    whole = np.floor(inner * down)
    rest = magnitude * down - whole
    if rest == 0.0 and whole == 0.0:
        rest = 5e-324
    if (rest != 0.0 or error != 0.0) and _goes_up(
        rest, error * down, random_bits, summed, element, number, k0, k1
    ):
        whole += 1.0
    return _finished(negative, whole, unit, STOCHASTIC, min_value, max_value, overflow)


@njit(cache=True)
def sum_error(a, b, total):
    """``a + b - total`` exactly, for the rounded sum `total` (D. Knuth's two-sum); finite numbers."""
    part = total - a
    return (a - (total - part)) + (b - part)


@njit(cache=True)
def sum_to_odd(a, b):
    """``a + b`` rounded to odd at 53 bits: the exact sum, or the odd one of its two neighbours."""
    total = a + b
    if not np.isfinite(total):
        return total
    error = sum_error(a, b, total)
    if error != 0.0:
        bits = np.float64(total).view(np.int64)
        if bits & 1 == 0:
            bits += 1 if (error > 0.0) == (total > 0.0) else -1
            return np.int64(bits).view(np.float64)
    return total


@njit(cache=True)
def _round_sum_randomly(a, b, target, summed, element, number, k0, k1):
    total = a + b
    error = sum_error(a, b, total) if np.isfinite(total) else 0.0
    return round_stochastic(total, error, target, summed, element, number, k0, k1)


def round_sum(a, b, target, summed, element, number, k0, k1):
    """``a + b`` rounded once to the target, with random words as in `round_stochastic`."""
    if len(target) == 7:
        return round_one(sum_to_odd(a, b), *target)
    return _round_sum_randomly(a, b, target, summed, element, number, k0, k1)


@overload(round_sum)
def _round_sum(a, b, target, summed, element, number, k0, k1):
    if len(target) == 7:
        return lambda a, b, target, summed, element, number, k0, k1: round_one(sum_to_odd(a, b), *target)
    return lambda a, b, target, summed, element, number, k0, k1: _round_sum_randomly(
        a, b, target, summed, element, number, k0, k1
    )
