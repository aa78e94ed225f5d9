"""Sums in every order, and fused block adders, in exact rationals: the definitions, spelled out.

`sum_rational` follows the docstring of `Accumulator` by recursion; `fused_rational` aligns and cuts
Fractions. Of a format only its defining fields are read.
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

from oracles.rational import binade, exact_sum, largest, round_rational


def exact_product(x, y):
    """Product of two floats, a Fraction where both are finite."""
    x, y = float(x), float(y)
    return Fraction(x) * Fraction(y) if math.isfinite(x) and math.isfinite(y) else x * y


class Rounder:
    """Roundings with their random numbers, and what they did, counted."""

    def __init__(self, draws=None):
        self.draws = draws
        self.counts = Counter()

    def round(self, x, fmt, rounding, number):
        draw = self.draws(rounding.random_bits)(number) if rounding.is_stochastic else None
        mode = rounding.mode.value
        rounded = round_rational(x, fmt, mode, draw=draw)
        if x != 0 and (isinstance(x, Fraction) or math.isfinite(x)):
            x = Fraction(x)
            if not math.isfinite(rounded):
                self.counts["overflow"] += 1
            elif abs(x) > largest(fmt):
                # Without an upper end the neighbours of x are the largest value or lie beyond it.
                unit = Fraction(2) ** (binade(abs(x)) - fmt.frac_bits)
                low = abs(x) // unit * unit
                share = (abs(x) - low) / unit
                half = Fraction(1, 2)
                outwards = {
                    "nearest-even": share > half or (share == half and (low // unit) % 2 == 1),
                    "nearest-away": share >= half,
                    "toward-zero": False,
                    "down": x < 0 and share > 0,
                    "up": x > 0 and share > 0,
                    "to-odd": share > 0 and (low // unit) % 2 == 0,
                    "stochastic": draw and math.floor(share * 2 ** draw[0]) + draw[1] >= 2 ** draw[0],
                }[mode]
                self.counts["saturation"] += low > largest(fmt) or bool(outwards)
            elif rounded != x and abs(x) < Fraction(2) ** (1 - fmt.bias):
                self.counts["underflow"] += 1
        return rounded

    def add(self, x, y, fmt, rounding, number):
        total = self.round(exact_sum(x, y), fmt, rounding, number)
        self.counts["additions"] += 1
        if all(isinstance(v, Fraction) or math.isfinite(v) for v in (x, y)) and y != 0:
            self.counts["swamped"] += total == x
            if x != 0:
                shift = abs(binade(abs(Fraction(x))) - binade(abs(Fraction(y))))
                self.counts["max_shift"] = max(self.counts["max_shift"], shift)
        return total


def sum_rational(a, b, acc, rounder):
    """Dot product of two lists under an accumulator."""
    n = len(a)
    size = acc.chunk or max(n, 1)
    starts = list(range(0, n, size))
    numbers_of_products = n + len(starts) * acc.lanes

    def term(i):
        exact = exact_product(a[i], b[i])
        if acc.product is None:
            return exact
        return rounder.round(exact, acc.product, acc.rounding, numbers_of_products + i)

    def tree(first, last):
        if last - first == 1:
            return term(first)
        left = max(2**e for e in range(40) if 2**e < last - first)
        x, y = tree(first, first + left), tree(first + left, last)
        return rounder.add(x, y, acc.format, acc.rounding, first + left)

    def inner(j, first, last):
        if acc.order == "pairwise":
            if last - first == 1:
                return rounder.round(term(first), acc.format, acc.rounding, first)
            return tree(first, last)
        sums = [0.0] * acc.lanes
        for i in range(first, last):
            lane = (i - first) % acc.lanes
            sums[lane] = rounder.add(sums[lane], term(i), acc.format, acc.rounding, i)
        total = sums[0]
        for lane in range(1, acc.lanes):
            number = n + len(starts) + j * (acc.lanes - 1) + lane - 1
            total = rounder.add(total, sums[lane], acc.format, acc.rounding, number)
        return total

    outer = acc.outer or acc
    total = 0.0
    for j, first in enumerate(starts):
        partial = inner(j, first, min(first + size, n))
        if len(starts) == 1 and acc.outer is None:
            return partial
        total = rounder.add(total, partial, outer.format, outer.rounding, n + j)
    return total


def term_exponent(x, fmt):
    """Exponent of a finite number in its format: of zero -126, of a subnormal the smallest normal one."""
    return -126 if x == 0 else max(binade(abs(Fraction(x))), 1 - fmt.bias)


def fused_rational(a, b, formats, *, block, align_bits, output, mode, promote):
    """Dot product of two lists in a fused block adder, with a binary32 register for promotions."""
    addend, register = 0.0, 0.0
    for first in range(0, len(a), block):
        pairs = [(float(a[i]), float(b[i])) for i in range(first, min(first + block, len(a)))]
        terms = [x * y for x, y in pairs if not (math.isfinite(x) and math.isfinite(y))]
        special = [v for v in [addend, *terms] if not math.isfinite(v)]
        if special:
            values = set(special)
            addend = round_rational(values.pop() if len(values) == 1 else math.nan, output, mode)
        else:
            exponents = [term_exponent(addend, output)]
            exponents += [
                -126 if x * y == 0 else term_exponent(x, formats[0]) + term_exponent(y, formats[1])
                for x, y in pairs
            ]
            unit = Fraction(2) ** (max(exponents) - align_bits)
            exact = [Fraction(addend)] + [Fraction(x) * Fraction(y) for x, y in pairs]
            # int() of a Fraction cuts toward zero.
            addend = round_rational(unit * sum(int(t / unit) for t in exact), output, mode)
        done = min(first + block, len(a))
        if promote and (done % promote == 0 or done == len(a)):
            register = round_rational(exact_sum(register, addend), BINARY32)
            addend = 0.0
    return register if promote else addend


class BINARY32:
    """Defining fields of binary32."""

    exp_bits, frac_bits, bias, specials, subnormals, signed = 8, 23, 127, "ieee", True, True
