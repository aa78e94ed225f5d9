"""Rounding of arrays, element by element."""

import numpy as np
from numba import njit

from numerics._kernels.random import fill_halves, stream_key
from numerics._kernels.rounding import EXACT, round_sum, sum_error

_EXPONENT_64 = np.int64(0x7FF0000000000000)
_HALF_64 = np.int64(0x0008000000000000)
_SIGN_64 = np.int64(-0x8000000000000000)


@njit(cache=True)
def cast_any(x, out, target, seed, stream):
    """Round every element of a flat array."""
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        # To add -0 keeps the sign of a zero.
        out[i] = round_sum(np.float64(x[i]), -0.0, target, False, i, 0, k0, k1)


@njit(cache=True)
def cast_undecided(x, out, target, seed, stream, undecided, length):
    """The same for the elements of those runs of some length that are marked as undecided."""
    k0, k1 = stream_key(seed, stream)
    for group in range(undecided.shape[0]):
        if undecided[group]:
            for i in range(group * length, min((group + 1) * length, x.shape[0])):
                out[i] = round_sum(np.float64(x[i]), -0.0, target, False, i, 0, k0, k1)


@njit(cache=True)
def cast_nearest_even(x, out, frac_bits, emin, min_value, max_value, below, above):
    """Round a flat array to nearest even, with subnormals, without a branch, so that it vectorises.

    Adding and subtracting ``1.5 * 2**52`` units rounds to a multiple of the unit in hardware. `below`
    and `above` are the overflowed results (the limit, an infinity or NaN).
    """
    least = np.int64(emin + 1023) << 52
    lift = (np.int64(52 - frac_bits) << 52) | _HALF_64
    for i in range(x.shape[0]):
        value = np.float64(x[i])
        bits = value.view(np.int64)
        field = bits & _EXPONENT_64
        # Far above the target the result is an overflow anyway; the clamp keeps `lift` in range.
        field = max(least, min(field, np.int64(1800) << 52))
        big = np.int64(field + lift).view(np.float64)
        rounded = (value + big) - big
        rounded = above if rounded > max_value else rounded
        rounded = below if rounded < min_value else rounded
        signed = np.int64(np.float64(rounded).view(np.int64) | (bits & _SIGN_64)).view(np.float64)
        out[i] = value if value != value else signed


@njit(cache=True)
def cast_nearest_even_f32(x, out, frac_bits, emin, min_value, max_value, below, above):
    """The same for float32 in float32 arithmetic: ``1.5 * 2**23`` units must not overflow.

    Needs at most 21 fraction bits, `emin` of at least -126, and a largest value below
    ``2**(104 + frac_bits)``; beyond that, a clamped constant still leaves an overflow above the limit.
    """
    least = np.int32(emin + 127) << np.int32(23)
    most = np.int32(104 + frac_bits + 127) << np.int32(23)
    lift = (np.int32(23 - frac_bits) << np.int32(23)) | np.int32(0x400000)
    low, high = np.float32(min_value), np.float32(max_value)
    under, over = np.float32(below), np.float32(above)
    for i in range(x.shape[0]):
        value = x[i]
        bits = np.float32(value).view(np.int32)
        field = bits & np.int32(0x7F800000)
        field = field if field > least else least
        field = field if field < most else most
        big = np.int32(field + lift).view(np.float32)
        rounded = np.float32(value + big) - big
        rounded = over if rounded > high else rounded
        rounded = under if rounded < low else rounded
        signed = np.int32(np.float32(rounded).view(np.int32) | (bits & np.int32(-0x80000000))).view(
            np.float32
        )
        out[i] = value if value != value else signed


BLOCK = 1024  # elements whose random digits are made at a time
GROUP = 8  # elements that are rounded again where one of them needs more digits


@njit(cache=True)
def _round_block(source, result, halves, doubts, target, below, above):
    """Stochastic rounding of at most `BLOCK` numbers by their random digits of 16 bits.

    The discarded part is cut to the random bits by a floor, the random ones are added as an integer,
    and a second floor keeps the carry; all of it is exact in float64 for up to 35 fraction bits.
    `doubts` are those whose sums are all ones: further digits, if there are any, may carry.
    """
    _, frac_bits, emin, min_value, max_value, _, _, random_bits = target
    least = np.int64(emin + 1023) << 52
    down = np.int64(2046 + frac_bits) << 52
    bits = 16 if random_bits == EXACT else min(random_bits, 16)
    finer, coarser = 2.0**bits, 2.0**-bits
    drop = np.uint16(16 - bits)
    for i in range(source.shape[0]):
        value = np.float64(source[i])
        field = value.view(np.int64) & _EXPONENT_64
        field = max(least, min(field, np.int64(1223) << 52))
        # 2**-unit and 2**unit, where unit is the exponent less the fraction bits.
        scaled = abs(value) * np.int64(down - field).view(np.float64) * finer
        summed = np.floor(scaled) + np.float64(halves[i] >> drop)
        whole = np.floor(summed * coarser)
        doubts[i] = summed * coarser - whole == 1.0 - coarser
        rounded = whole * np.int64(field - (np.int64(frac_bits) << 52)).view(np.float64)
        rounded = -rounded if value < 0.0 else rounded
        rounded = above if rounded > max_value else rounded
        rounded = below if rounded < min_value else rounded
        signed = np.int64(np.float64(rounded).view(np.int64) | (value.view(np.int64) & _SIGN_64))
        result[i] = value if value != value else signed.view(np.float64)


@njit(cache=True)
def cast_stochastic(x, out, target, below, above, seed, stream, undecided):
    """Stochastic rounding with subnormals, without a branch: the results of `cast_any`.

    `undecided` tells of every run of `GROUP` elements whether 16 random bits do not decide some rounding
    that has more.
    """
    k0, k1 = stream_key(seed, stream)
    halves = np.empty(BLOCK, np.uint16)
    doubts = np.zeros(BLOCK, np.bool_)
    more = target[7] == EXACT or target[7] > 16
    for first in range(0, x.shape[0], BLOCK):
        count = min(BLOCK, x.shape[0] - first)
        fill_halves(halves, first // 8, k0, k1)
        # Slices: an index that is a sum may be negative for all the compiler knows.
        source, result = x[first : first + count], out[first : first + count]
        _round_block(source, result, halves, doubts, target, below, above)
        if more:
            for i in range(count):
                undecided[(first + i) // GROUP] |= doubts[i]


@njit(cache=True)
def axpy_any(alpha, x, y, out, target, seed, stream):
    """``out = round(alpha * x + y)`` on flat arrays; `alpha` and `x` have at most 24 bits each.

    Element i uses the words of element i of the stream.
    """
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        out[i] = round_sum(np.float64(y[i]), alpha * np.float64(x[i]), target, False, i, 0, k0, k1)


@njit(cache=True)
def sums_to_odd(alpha, x, y, out):
    """``alpha * x + y`` of float32 numbers rounded to odd at 53 bits, without a branch.

    The result is as good as the exact sum S for every rounding to a format of p <= 51 bits, and for
    stochastic rounding by r bits with p + r <= 52. Such a rounding compares S with numbers of at most 52
    bits: values of the format, the halves between them, steps of ``2**-r`` of their unit; with fewer bits
    where the format is subnormal. As float64 numbers all these are even. If S is none of float64, it
    lies between two neighbours; the odd one, which is the result, lies on the same side of every even
    number as S does, powers of two among them, so in the same binade too.

    Nothing overflows or underflows: products are exact, multiples of ``2**-298`` and below ``2**256``.
    Infinities, NaN and the signs of zeros are those of the float64 sum.
    """
    for i in range(x.shape[0]):
        product, addend = alpha * np.float64(x[i]), np.float64(y[i])
        total = addend + product
        # Positive if the exact sum is larger in magnitude than `total`, negative if smaller; else 0 or NaN.
        side = sum_error(addend, product, total) * total
        before, beyond = np.int64(side < 0.0), np.int64(side > 0.0)
        # Cut toward zero, and the last bit set if anything was lost.
        bits = (np.float64(total).view(np.int64) - before) | before | beyond
        out[i] = np.int64(bits).view(np.float64)


@njit(cache=True)
def axpy_nearest_even(alpha, x, y, out, frac_bits, emin, min_value, max_value, below, above):
    """`axpy_any` to nearest even, with subnormals; `out` may be `x` or `y`."""
    sums = np.empty(BLOCK)  # a block at a time stays in the cache, and overlaps with no argument
    for first in range(0, x.shape[0], BLOCK):
        last = min(first + BLOCK, x.shape[0])
        block = sums[: last - first]
        sums_to_odd(alpha, x[first:last], y[first:], block)
        cast_nearest_even(block, out[first:], frac_bits, emin, min_value, max_value, below, above)


@njit(cache=True)
def axpy_stochastic(alpha, x, y, out, target, below, above, seed, stream):
    """`axpy_any` with stochastic rounding, with subnormals; `out` may be `x` or `y`.

    Where 16 random bits decide, they do so with the cut sum, which has at most 24 + 16 bits. Where they
    do not, the rounding looks at all bits of the exact sum.
    """
    k0, k1 = stream_key(seed, stream)
    sums, rounded = np.empty(BLOCK), np.empty(BLOCK, np.float32)
    halves, doubts = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.bool_)
    more = target[7] == EXACT or target[7] > 16
    for first in range(0, x.shape[0], BLOCK):
        count = min(BLOCK, x.shape[0] - first)
        p, q, result = x[first : first + count], y[first:], out[first:]
        sums_to_odd(alpha, p, q, sums)
        fill_halves(halves, first // 8, k0, k1)
        _round_block(sums[:count], rounded, halves, doubts, target, below, above)
        if more:
            for i in range(count):
                if doubts[i]:
                    a, b = np.float64(q[i]), alpha * np.float64(p[i])
                    rounded[i] = round_sum(a, b, target, False, first + i, 0, k0, k1)
        for i in range(count):
            result[i] = rounded[i]
