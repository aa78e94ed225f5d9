"""Rounding of arrays, element by element."""

import numpy as np
from numba import njit

from numerics._kernels.random import fill_words, stream_key
from numerics._kernels.rounding import EXACT, round_sum

_EXPONENT_64 = np.int64(0x7FF0000000000000)
_HALF_64 = np.int64(0x0008000000000000)
_SIGN_64 = np.int64(-0x8000000000000000)


@njit(cache=True)
def cast_any(x, out, target, first, seed, stream):
    """Round every element of a flat array, the first of which is element `first` of its stream."""
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        # To add -0 keeps the sign of a zero.
        out[i] = round_sum(np.float64(x[i]), -0.0, target, False, first + i, 0, k0, k1)


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


BLOCK = 1024  # elements whose random words are made at a time


@njit(cache=True)
def cast_stochastic(x, out, target, below, above, seed, stream, undecided):
    """Stochastic rounding with subnormals, without a branch: the results of `cast_any`.

    The discarded part is cut to the random bits by a floor, the random ones are added as an integer,
    and a second floor keeps the carry; all of it is exact in float64 if fraction and random bits, 32 for
    an exact rounding, are at most 51. `undecided` tells of every `BLOCK` elements whether 32 bits do not
    decide some exact rounding there.
    """
    _, frac_bits, emin, min_value, max_value, _, _, random_bits = target
    k0, k1 = stream_key(seed, stream)
    words = np.empty(BLOCK, np.uint32)
    least = np.int64(emin + 1023) << 52
    down = np.int64(2046 + frac_bits) << 52
    bits = 32 if random_bits == EXACT else random_bits
    finer, coarser = 2.0**bits, 2.0**-bits
    drop = np.uint32(32 - bits)
    for first in range(0, x.shape[0], BLOCK):
        count = min(BLOCK, x.shape[0] - first)
        fill_words(words, first // 4, k0, k1)
        doubt = False
        # Slices: an index that is a sum may be negative for all the compiler knows.
        source, result = x[first : first + count], out[first : first + count]
        for i in range(count):
            value = np.float64(source[i])
            field = value.view(np.int64) & _EXPONENT_64
            field = max(least, min(field, np.int64(1223) << 52))
            # 2**-unit and 2**unit, where unit is the exponent less the fraction bits.
            scaled = abs(value) * np.int64(down - field).view(np.float64) * finer
            cut = np.floor(scaled)
            summed = cut + np.float64(words[i] >> drop)
            whole = np.floor(summed * coarser)
            doubt |= (cut != scaled) & (summed * coarser - whole == 1.0 - coarser)
            rounded = whole * np.int64(field - (np.int64(frac_bits) << 52)).view(np.float64)
            rounded = -rounded if value < 0.0 else rounded
            rounded = above if rounded > max_value else rounded
            rounded = below if rounded < min_value else rounded
            signed = np.int64(np.float64(rounded).view(np.int64) | (value.view(np.int64) & _SIGN_64))
            result[i] = value if value != value else signed.view(np.float64)
        undecided[first // BLOCK] = doubt and random_bits == EXACT


@njit(cache=True)
def axpy_any(alpha, x, y, out, target, seed, stream):
    """``out = round(alpha * x + y)`` on flat arrays; `alpha` and `x` have at most 24 bits each.

    Element i uses the words of element i of the stream.
    """
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        out[i] = round_sum(np.float64(y[i]), alpha * np.float64(x[i]), target, False, i, 0, k0, k1)
