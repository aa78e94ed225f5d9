"""Sums in plain integers: as exact as the rationals, and fast enough for a million dot products.

All numbers of a case are integers that count units of one small power of two, ``2**-places``. A rounding
shifts, looks at what was shifted out, and shifts back. Of a format only its defining fields are read.
Beside integers there are the floats infinity, NaN and -0.0, what a negative number becomes that underflows.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from oracles.philox import MASK, mixed, philox4x32, stream_key
from oracles.rational import has_minus_zero, largest, overflowed


def least_place(fmt):
    """Exponent of the least unit of a float format."""
    return 1 - fmt.bias - (fmt.frac_bits if fmt.subnormals else 0)


def places_of(x):
    """Places that the finite elements of a float array need."""
    ratios = (
        value.as_integer_ratio()
        for value in np.asarray(x, np.float64).ravel().tolist()
        if math.isfinite(value)
    )
    return max((below.bit_length() - 1 for _, below in ratios), default=0)


def as_integers(x, places):
    """Rows of a float array as integers in units of ``2**-places``; infinities and NaNs stay floats."""

    def one(value):
        if not math.isfinite(value):
            return value
        whole, below = value.as_integer_ratio()
        assert below <= 1 << places, "units that are too large"
        return (whole << places) // below

    return [[one(value) for value in row] for row in np.asarray(x, np.float64).tolist()]


def as_float(x, places):
    """The number that an integer stands for; floats are themselves."""
    return x if isinstance(x, float) else math.ldexp(float(x), -places)


class Words:
    """The words of the additions of one output element after another, each hash computed once."""

    def __init__(self, seed, stream=0):
        key = stream_key(seed, stream)
        self.step = cache(
            lambda number, page: philox4x32((number & MASK, number >> 32, page, 1 << 31), key)[:2]
        )
        self.hash = cache(lambda element: mixed((element & MASK) ^ mixed(element >> 32)))

    def of(self, element):
        """Function from the number and page of an addition to a word."""
        chosen = self.hash(element)

        def word(number, page):
            a, b = self.step(number, page)
            return ((a | 1) * chosen + b) & MASK

        return word


def chance(bits):
    """Whether a stochastic rounding goes up, by `bits` digits, or for 0 by as many as decide, at most 128."""

    def decide(whole, rest, place, negative, word, number):
        if bits:
            return (rest << bits >> place) + (word(number, 0) >> (32 - bits)) >> bits
        total = 0
        for page in range(4):
            total, width = total << 32 | word(number, page), 32 * (page + 1)
            reached = (rest << width >> place) + total
            if reached != (1 << width) - 1:
                return reached >> width
        return 0

    return decide


#: Whether the magnitude `whole` with a rest that is not zero goes up.
DECISIONS = {
    "nearest-even": lambda whole, rest, place, *_: rest + (whole & 1) > 1 << (place - 1),
    "nearest-away": lambda whole, rest, place, *_: rest >> (place - 1),
    "toward-zero": lambda *_: 0,
    "down": lambda whole, rest, place, negative, *_: negative,
    "up": lambda whole, rest, place, negative, *_: not negative,
    "to-odd": lambda whole, *_: not whole & 1,
}


def decision(rounding):
    """The function that decides, of a rounding with fields `mode` and `random_bits`."""
    return DECISIONS.get(rounding.mode.value) or chance(rounding.random_bits)


def rounder(fmt, rounding, places):
    """Function ``(x, word, number)`` that rounds an integer to a format, stochastically by the last two."""
    precision, normal, least = fmt.frac_bits + 1, 1 - fmt.bias + places, least_place(fmt) + places
    assert least >= 0, "units that are too large"
    decide, mode = decision(rounding), rounding.mode.value
    top = int(largest(fmt) * 2**places)
    minus_zero = -0.0 if has_minus_zero(fmt) else 0

    def end(negative, by):
        value = overflowed(-1 if negative else 1, fmt, by, "format")
        return value if not math.isfinite(value) else (-top if negative else top)

    def rounded(x, word=None, number=0):
        if x.__class__ is float:
            if math.isinf(x):
                return end(x < 0, "nearest-even")
            return x if x != x else 0
        negative = x < 0
        size = -x if negative else x
        width = size.bit_length()
        # The unit is a last place; below the smallest normal number it is the least unit.
        place = max(width - precision, 0) if width > normal else least
        whole = size >> place
        rest = size - (whole << place)
        if rest:
            if decide(whole, rest, place, negative, word, number):
                whole += 1
            size = whole << place
            if size == 0:
                return minus_zero if negative else 0
        if size > top:
            return end(negative, mode)
        return -size if negative else size

    return rounded


def added(x, y):
    """Exact sum; of -0.0 and floats that are not finite as IEEE 754 says."""
    if x.__class__ is float or y.__class__ is float:
        special = [v for v in (x, y) if isinstance(v, float) and not math.isfinite(v)]
        return sum(special) if special else int(x) + int(y)
    return x + y


def multiplied(x, y):
    """Exact product, with the infinities and NaN of IEEE 754."""
    if x.__class__ is float or y.__class__ is float:
        # Only signs matter: an infinity times a finite number.
        return (
            math.nan
            if x == 0 or y == 0
            else (x if isinstance(x, float) else (x > 0) - (x < 0))
            * (y if isinstance(y, float) else (y > 0) - (y < 0))
        )
    return x * y


def float_sum(acc, places):
    """Function ``(terms, word)`` that sums integers as `Accumulator` says; `acc` is read by its fields."""
    inner = rounder(acc.format, acc.rounding, places)
    outer = inner if acc.outer is None else rounder(acc.outer.format, acc.outer.rounding, places)
    product = None if acc.product is None else rounder(acc.product, acc.rounding, places)

    def tree(terms, first, last, word):
        if last - first == 1:
            return terms[first]
        left = 1 << ((last - first - 1).bit_length() - 1)
        middle = first + left
        total = added(tree(terms, first, middle, word), tree(terms, middle, last, word))
        return inner(total, word, middle)

    def total_of(terms, word=None):
        n = len(terms)
        size = acc.chunk or max(n, 1)
        starts = range(0, n, size)
        chunks = len(starts)
        if product is not None:
            base = n + chunks * acc.lanes
            terms = [product(term, word, base + i) for i, term in enumerate(terms)]
        total = 0
        for j, first in enumerate(starts):
            last = min(first + size, n)
            if acc.order == "pairwise":
                lone = last - first == 1
                part = inner(terms[first], word, first) if lone else tree(terms, first, last, word)
            else:
                sums = [0] * acc.lanes
                for i in range(first, last):
                    lane = (i - first) % acc.lanes
                    sums[lane] = inner(added(sums[lane], terms[i]), word, i)
                part = sums[0]
                for lane in range(1, acc.lanes):
                    number = n + chunks + j * (acc.lanes - 1) + lane - 1
                    part = inner(added(part, sums[lane]), word, number)
            if chunks == 1 and acc.outer is None:
                return part
            total = outer(added(total, part), word, n + j)
        return total

    return total_of


def exact_sum(acc, places):
    """Function ``(terms, word)``: the exact sum, rounded once."""
    once = rounder(acc.output, acc.rounding, places)

    def total_of(terms, word=None):
        total = 0
        for term in terms:
            total = added(total, term)
        return once(total, word, 0)

    return total_of


def fused_sum(adder, formats, places, binary32):
    """Function ``(left, right)`` of two rows of (integer, float) pairs: blocks aligned and cut.

    `places` are those of products. `binary32` is the format, and `adder.rounding` its rounding to nearest
    even, of the register of the promotions.
    """
    block = adder.products // 2 if adder.halves else adder.products
    finish = rounder(adder.output, adder.rounding, places)
    promoted = rounder(*binary32, places)
    emins = [1 - fmt.bias for fmt in formats]

    def exponent(value, emin):
        return max(math.frexp(value)[1] - 1, emin)

    def total_of(left, right):
        addend, register = 0, 0
        n = len(left)
        for first in range(0, n, block):
            done = min(first + block, n)
            if isinstance(addend, float) and math.isfinite(addend):
                addend = 0
            if not isinstance(addend, float):
                terms = [addend]
                exponents = [
                    max(abs(addend).bit_length() - 1 - places, 1 - adder.output.bias) if addend else -126
                ]
                for (x, float_x), (y, float_y) in zip(left[first:done], right[first:done], strict=True):
                    terms.append(x * y)
                    if x and y:
                        exponents.append(exponent(float_x, emins[0]) + exponent(float_y, emins[1]))
                    else:
                        exponents.append(-126)
                place = max(max(exponents) - adder.align_bits + places, 0)
                # Shifts of magnitudes cut toward zero.
                addend = finish(sum((t >> place if t > 0 else -(-t >> place)) << place for t in terms))
            if adder.promote and (done % adder.promote == 0 or done == n):
                register, addend = promoted(added(register, addend)), 0
        return register if adder.promote else addend

    return total_of


def register_sum(acc, places):
    """Function of the terms: a register of Python integers, in units of ``2**-acc.frac_bits``."""
    shift = places - acc.frac_bits
    decide = None if acc.rounding is None else decision(acc.rounding)

    def unit(x):
        size = abs(x)
        if shift <= 0:
            return x << -shift
        whole = size >> shift
        rest = size - (whole << shift)
        if rest and decide(whole, rest, shift, x < 0, None, 0):
            whole += 1
        return -whole if x < 0 else whole

    def fit(x, bits):
        half = 1 << (bits - 1)
        if acc.overflow == "wrap":
            return ((x + half) & (2 * half - 1)) - half
        return min(max(x, -half), half - 1)

    def total_of(terms):
        n = len(terms)
        size = acc.chunk or max(n, 1)
        total = 0
        for first in range(0, n, size):
            part = 0
            for term in terms[first : first + size]:
                part = fit(part + unit(term), acc.bits)
            if size >= n and acc.outer is None:
                return part
            total = fit(total + part, acc.outer or acc.bits)
        return total

    return total_of
