"""Every format of so many bits, all its codes and values, and roundings of whole arrays to them.

The third judge: values are searched in the sorted list of all values, as `oracles.table` does, here also
with one-digit significands, stochastically, and with infinities and NaN. Of a format only its defining fields
are read.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np

from numerics import FixedFormat, FloatFormat
from oracles.rational import has_minus_zero, is_fixed, largest, last_code, overflowed, smallest
from oracles.strategies import ALL_SPECIALS
from oracles.table import magnitudes


def float_formats_of(bits, *, specials=ALL_SPECIALS, signs=(True, False), extremes=False):
    """Every float format of exactly so many bits that there is with the usual bias.

    With `extremes`, with the lowest and the highest bias that keep it in the range of float32 instead.
    """
    for family, signed, exp_bits, subnormals in product(specials, signs, range(1, 9), (True, False)):
        frac_bits = bits - signed - exp_bits
        fields = {"exp_bits": exp_bits, "frac_bits": frac_bits, "specials": family, "signed": signed}
        biases = (None,)
        if extremes:
            lost = family == "ieee" or (family in ("fn", "p3109", "fused-top") and frac_bits == 0)
            biases = (max(-127, (1 << exp_bits) - 1 - lost - 127), 150 - frac_bits)
        for bias in biases:
            try:
                yield FloatFormat(**fields, subnormals=subnormals, bias=bias)
            except ValueError:  # too few bits, or no such format
                continue


def fixed_formats_of(bits):
    """Every fixed-point format of exactly so many bits."""
    for signed in (True, False):
        for frac_bits in range(bits - signed + 1):
            for overflow in ("saturate", "wrap"):
                yield FixedFormat(
                    int_bits=bits - signed - frac_bits, frac_bits=frac_bits, signed=signed, overflow=overflow
                )


def all_codes(fmt):
    """All codes, ascending, in the type that `encode` gives."""
    dtype = np.uint8 if fmt.bits <= 8 else np.uint16
    return np.arange(1 << fmt.bits, dtype=np.uint32).astype(dtype)


def numbers_of_codes(fmt):
    """What each code stands for, by the table of the families, as float64."""
    codes = np.arange(1 << fmt.bits, dtype=np.int64)
    if is_fixed(fmt):
        half = 1 << (fmt.bits - 1)
        return np.ldexp((codes - 2 * half * ((codes >= half) & fmt.signed)).astype(float), -fmt.frac_bits)
    width = fmt.exp_bits + fmt.frac_bits
    sign, magnitude = codes >> width, codes & ((1 << width) - 1)
    field, share = magnitude >> fmt.frac_bits, magnitude & ((1 << fmt.frac_bits) - 1)
    normal = field > 0
    whole = np.where(normal, share + (1 << fmt.frac_bits), share * fmt.subnormals).astype(float)
    values = np.ldexp(whole, np.where(normal, field, 1) - fmt.bias - fmt.frac_bits)
    beyond = magnitude - last_code(fmt)
    values[beyond > 0] = np.nan
    if fmt.specials in ("ieee", "p3109"):
        values[beyond == 1] = np.inf
    values = np.where(sign == 1, -values, values)
    if fmt.specials in ("fnuz", "p3109"):
        values[(sign == 1) & (magnitude == 0)] = np.nan
    return values


def is_unused(fmt):
    """Codes of a format without subnormals that read as zero though they are not the code of zero."""
    magnitude = np.arange(1 << fmt.bits) & ((1 << (fmt.bits - fmt.signed)) - 1)
    if is_fixed(fmt) or fmt.subnormals:
        return np.zeros(magnitude.shape, bool)
    return (magnitude > 0) & (magnitude < 1 << fmt.frac_bits)


def finite_values(fmt):
    """Finite values, ascending, one zero."""
    values = numbers_of_codes(fmt)
    return np.unique(values[np.isfinite(values)])


@cache
def lattice(fmt):
    """Magnitudes up to one beyond the range, and which of them have an odd significand."""
    grid = magnitudes(fmt)
    if is_fixed(fmt):
        return grid, np.arange(len(grid)) % 2 == 1
    # A magnitude of exponent e counts units of 2**(e - frac_bits); below the smallest normal, the least unit.
    exponent = np.maximum(np.frexp(grid)[1] - 1, 1 - fmt.bias)
    whole = np.ldexp(grid, fmt.frac_bits - exponent)
    return grid, whole % 2 == 1


class Located:
    """Float64 `x` between its neighbours on a format; from these, finite ones differ by a float64."""

    def __init__(self, x, fmt):
        self.x, self.fmt, self.negative = x, fmt, np.signbit(x)
        grid, is_odd = lattice(fmt)
        size = np.abs(np.where(np.isfinite(x), x, 0.0))
        low = np.minimum(np.searchsorted(grid, size, side="right") - 1, len(grid) - 2)
        self.odd, sign = is_odd[low], np.where(self.negative, -1.0, 1.0)
        self.below, self.above = size - grid[low], grid[low + 1] - size
        self.gap = grid[low + 1] - grid[low]
        self.inner, self.outer = sign * grid[low], sign * grid[low + 1]
        ends = float(smallest(fmt)), float(largest(fmt))
        self.inner_beyond, self.outer_beyond = (
            (v < ends[0]) | (v > ends[1]) for v in (self.inner, self.outer)
        )

    def goes_up(self, mode, draw):
        """Which magnitudes go to the upper neighbour."""
        if mode == "stochastic":
            bits, words = draw
            # Gaps are powers of two, so shares are exact; beyond the range any number above one will do.
            share = np.minimum(self.below / self.gap, 2.0)
            return np.floor(share * 2.0**bits) + words >= 2.0**bits
        if mode == "nearest-even":
            return (self.above < self.below) | ((self.above == self.below) & self.odd)
        if mode == "nearest-away":
            return self.above <= self.below
        if mode == "to-odd":
            return (self.below > 0) & ~self.odd
        if mode == "toward-zero":
            return np.zeros(self.x.shape, bool)
        return (self.below > 0) & (self.negative if mode == "down" else ~self.negative)

    def rounded(self, mode, overflow="format", draw=None):
        """The neighbours that the mode chooses; ``draw = (bits, words)``, the numbers of a stochastic one."""
        up, fmt = self.goes_up(mode, draw), self.fmt
        result = np.where(up, self.outer, self.inner)
        beyond = np.where(up, self.outer_beyond, self.inner_beyond)
        for wrong, by in ((beyond, mode), (np.isinf(self.x), "nearest-even")):
            if wrong.any():
                ends = [overflowed(sign, fmt, by, overflow) for sign in (-1, 1)]
                result = np.where(wrong, np.where(self.negative, *ends), result)
        result = np.where(np.isnan(self.x), np.nan, result)
        return result if has_minus_zero(fmt) else result + 0.0


def round_to_grid(x, fmt, mode, overflow="format", draw=None):
    """Round float64 `x` to a format."""
    return Located(x, fmt).rounded(mode, overflow, draw)


def same(found, expected, message=""):
    """Equal as numbers, NaN where NaN, zeros of equal sign."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    np.testing.assert_array_equal(found, expected, err_msg=message)
    numbers = ~np.isnan(expected)
    wrong = np.signbit(found)[numbers] != np.signbit(expected)[numbers]
    assert not wrong.any(), f"{message}: a zero of the other sign"
