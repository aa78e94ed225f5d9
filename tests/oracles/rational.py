"""Rounding and accumulation in exact rationals: a judge that shares no code with the kernels.

A rounding picks between the two neighbours on the format's grid by comparing Fractions. Slow, and
meant to be checked by reading.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

INF = math.inf


@cache
def positive_values(exp_bits, frac_bits, bias, specials, subnormals):
    """Every positive finite value, ascending, by enumerating the codes."""
    found = []
    for exponent in range(1 << exp_bits):
        for fraction in range(1 << frac_bits):
            top = exponent == (1 << exp_bits) - 1
            if specials == "ieee" and top:
                continue
            if specials == "fn" and top and fraction == (1 << frac_bits) - 1:
                continue
            if exponent == 0:
                value = Fraction(fraction, 1 << frac_bits) * Fraction(2) ** (1 - bias)
                if not subnormals:
                    continue
            else:
                value = (1 + Fraction(fraction, 1 << frac_bits)) * Fraction(2) ** (exponent - bias)
            if value > 0:
                found.append(value)
    return sorted(found)


def neighbours(x, fmt):
    """(low, high, rank of low) around a positive Fraction on the grid without an upper end.

    Codes ascend with values, so the parity of a value's code is that of its rank; zero has rank 0.
    """
    exponent = 0
    while Fraction(2) ** (exponent + 1) <= x:
        exponent += 1
    while Fraction(2) ** exponent > x:
        exponent -= 1
    emin = 1 - fmt.bias
    if exponent < emin and not fmt.subnormals:
        return Fraction(0), Fraction(2) ** emin, 0
    unit = Fraction(2) ** (max(exponent, emin) - fmt.frac_bits)
    steps = x // unit
    rank = steps + max(exponent - emin, 0) * 2**fmt.frac_bits
    return steps * unit, (steps + 1) * unit, rank


def largest(fmt):
    """Largest finite value: the last code that is a number."""
    top = 2 ** (fmt.exp_bits + fmt.frac_bits) - 1
    if fmt.specials == "ieee":
        top -= 2**fmt.frac_bits
    elif fmt.specials == "fn":
        top -= 1
    exponent, fraction = divmod(top, 2**fmt.frac_bits)
    return (1 + Fraction(fraction, 2**fmt.frac_bits)) * Fraction(2) ** (exponent - fmt.bias)


def round_rational(x, fmt, mode, *, infinity, draw=None):
    """Round a Fraction to `fmt`; overflow gives ``inf`` if `infinity`, else the largest value.

    ``draw = (r, word)``: stochastic with r random bits of value `word` in 0 .. 2**r - 1.
    """
    if x == 0:
        return Fraction(0)
    sign, x = (-1, -x) if x < 0 else (1, x)
    low, high, rank = neighbours(x, fmt)
    share = (x - low) / (high - low)
    if mode == "stochastic":
        bits, word = draw
        up = math.floor(share * 2**bits) + word >= 2**bits
    else:
        up = (
            share > 0
            and {
                "nearest-even": share > Fraction(1, 2) or (share == Fraction(1, 2) and rank % 2 == 1),
                "nearest-away": share >= Fraction(1, 2),
                "toward-zero": False,
                "down": sign < 0,
                "up": sign > 0,
                "to-odd": rank % 2 == 0,
            }[mode]
        )
    result = high if up else low
    if result > largest(fmt):
        directed = mode in ("toward-zero", "to-odd") or mode == ("down" if sign > 0 else "up")
        return sign * (INF if infinity and not directed else largest(fmt))
    return sign * result


def dot_rational(a, b, fmt, mode="nearest-even", *, chunk=None, infinity=True):
    """Sequential or chunked sum of exact products, each addition rounded once."""
    n = len(a)
    chunk = chunk or max(n, 1)
    total = Fraction(0)
    for first in range(0, n, chunk):
        partial = Fraction(0)
        for i in range(first, min(first + chunk, n)):
            partial = _add(partial, Fraction(a[i]) * Fraction(b[i]), fmt, mode, infinity)
        total = _add(total, partial, fmt, mode, infinity)
    return float(total)


def _add(x, y, fmt, mode, infinity):
    if abs(x) == INF or abs(y) == INF:
        return float(x) + float(y)
    return round_rational(x + y, fmt, mode, infinity=infinity)
