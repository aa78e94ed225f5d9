"""Rounding and accumulation in exact rationals: a judge that shares no code with the kernels.

A rounding finds the two neighbours of a Fraction on the format's grid and picks one by comparing
Fractions. Of a format only its defining fields are read, none of its derived properties. Slow, and
meant to be checked by reading.
"""

from __future__ import annotations

import math
from fractions import Fraction

INF = math.inf
DETERMINISTIC = ("nearest-even", "nearest-away", "toward-zero", "down", "up", "to-odd")


def is_fixed(fmt):
    """Fixed-point formats have integer bits where floats have exponent bits."""
    return hasattr(fmt, "int_bits")


def value_of_code(code, fmt):
    """Number that the positive code stands for, specials read as the numbers they displace."""
    if is_fixed(fmt):
        return Fraction(code, 1 << fmt.frac_bits)
    exponent, fraction = divmod(code, 1 << fmt.frac_bits)
    if exponent == 0:
        share = Fraction(fraction, 1 << fmt.frac_bits) if fmt.subnormals else Fraction(0)
        return share * Fraction(2) ** (1 - fmt.bias)
    return (1 + Fraction(fraction, 1 << fmt.frac_bits)) * Fraction(2) ** (exponent - fmt.bias)


def last_code(fmt):
    """Largest positive code that is a finite number."""
    if is_fixed(fmt):
        return (1 << (fmt.int_bits + fmt.frac_bits)) - 1
    codes = 1 << (fmt.exp_bits + fmt.frac_bits)
    reserved = {"ieee": 1 << fmt.frac_bits, "fn": 1, "p3109": 1, "fused-top": 1, "none": 0, "fnuz": 0}[
        fmt.specials
    ]
    return codes - reserved - 1


def has_minus_zero(fmt):
    """Fixed point has none, and two of the float families keep their NaN at its code."""
    return fmt.signed and not is_fixed(fmt) and fmt.specials not in ("fnuz", "p3109")


def largest(fmt):
    """Largest finite value."""
    return value_of_code(last_code(fmt), fmt)


def smallest(fmt):
    """Least value: minus the largest, zero if unsigned, one step more in two's complement."""
    if not fmt.signed:
        return Fraction(0)
    return -(Fraction(2) ** fmt.int_bits) if is_fixed(fmt) else -largest(fmt)


def binade(x):
    """Exponent of the power of two at or below a positive Fraction."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= x else exponent - 1


def neighbours(x, fmt):
    """(low, high, whole) around a positive Fraction on the grid without an upper end.

    `whole` is the significand of `low` as an integer.
    """
    if is_fixed(fmt):
        unit = Fraction(1, 1 << fmt.frac_bits)
    else:
        exponent, emin = binade(x), 1 - fmt.bias
        if exponent < emin and not fmt.subnormals:
            return Fraction(0), Fraction(2) ** emin, 0
        unit = Fraction(2) ** (max(exponent, emin) - fmt.frac_bits)
    whole = x // unit
    return whole * unit, (whole + 1) * unit, whole


def overflowed(sign, fmt, mode, overflow):
    """Result beyond the finite range; a directed mode stays finite unless it points outwards."""
    limit = largest(fmt) if sign > 0 else smallest(fmt)
    inward = mode in ("toward-zero", "to-odd") or mode == ("down" if sign > 0 else "up")
    if overflow == "format":
        overflow = "saturate"
        if not is_fixed(fmt):
            own = {"ieee": "infinity", "p3109": "infinity", "fused-top": "nan"}
            overflow = own.get(fmt.specials, "saturate")
    if overflow == "saturate" or limit == 0 or inward:
        return float(limit)
    return math.nan if overflow == "nan" else sign * INF


def round_rational(x, fmt, mode="nearest-even", *, overflow="format", draw=None):
    """Round a Fraction, or a float with its zeros, infinities and NaN, to a float on `fmt`.

    ``draw = (r, word)`` is stochastic rounding with r random bits of value `word` in 0 .. 2**r - 1.
    A tie goes to the even significand; with one-digit significands both are odd, and IEEE 754-2019,
    4.3.1 delivers the larger.
    """
    wraps = is_fixed(fmt) and fmt.overflow == "wrap" and overflow == "format"
    if isinstance(x, float):
        if math.isnan(x):
            return x
        if math.isinf(x):
            return math.nan if wraps else overflowed(math.copysign(1, x), fmt, "nearest-even", overflow)
        if x == 0.0:
            return x if has_minus_zero(fmt) else 0.0
        x = Fraction(x)
    if x == 0:
        return 0.0
    sign, magnitude = (-1, -x) if x < 0 else (1, x)
    low, high, whole = neighbours(magnitude, fmt)
    share = (magnitude - low) / (high - low)
    if mode == "stochastic":
        bits, word = draw
        assert 0 <= word < 2**bits
        up = math.floor(share * 2**bits) + word >= 2**bits
    else:
        half = Fraction(1, 2)
        up = (
            share > 0
            and {
                "nearest-even": share > half or (share == half and whole % 2 == 1),
                "nearest-away": share >= half,
                "toward-zero": False,
                "down": sign < 0,
                "up": sign > 0,
                "to-odd": whole % 2 == 0,
            }[mode]
        )
    result = sign * (high if up else low)
    if wraps:
        span = largest(fmt) - smallest(fmt) + Fraction(1, 1 << fmt.frac_bits)
        while result > largest(fmt):
            result -= span * max(1, (result - largest(fmt)) // span)
        while result < smallest(fmt):
            result += span * max(1, (smallest(fmt) - result) // span)
    if not smallest(fmt) <= result <= largest(fmt):
        return overflowed(sign, fmt, mode, overflow)
    if result == 0:
        return -0.0 if sign < 0 and has_minus_zero(fmt) else 0.0
    return float(result)


def exact_sum(x, y):
    """``x + y`` as a Fraction, or as a float where one of them is not finite."""
    special = [v for v in (x, y) if isinstance(v, float) and not math.isfinite(v)]
    return sum(special) if special else Fraction(x) + Fraction(y)


def dot_rational(a, b, fmt, mode="nearest-even", *, chunk=None, draws=None):
    """Sequential or chunked sum of exact products, each addition rounded once.

    ``draws(step)`` gives the draw of an addition: products are steps 0 .. n - 1, the outer additions
    of a chunked sum n, n + 1, ...
    """
    n = len(a)
    chunk = chunk or max(n, 1)

    def add(x, y, step):
        draw = draws(step) if draws else None
        return round_rational(exact_sum(x, y), fmt, mode, draw=draw)

    total = 0.0
    for number, first in enumerate(range(0, n, chunk)):
        partial = 0.0
        for i in range(first, min(first + chunk, n)):
            x, y = float(a[i]), float(b[i])
            finite = math.isfinite(x) and math.isfinite(y)
            partial = add(partial, Fraction(x) * Fraction(y) if finite else x * y, i)
        total = add(total, partial, n + number)
    return total


def matmul_rational(a, b, fmt, mode="nearest-even", *, chunk=None, draws=None):
    """Matrix of `dot_rational`; ``draws(element, step)`` with elements counted row by row."""
    columns = len(b[0])

    def element(i, j):
        chosen = None if draws is None else lambda step: draws(i * columns + j, step)
        return dot_rational(a[i], [row[j] for row in b], fmt, mode, chunk=chunk, draws=chosen)

    return [[element(i, j) for j in range(columns)] for i in range(len(a))]
