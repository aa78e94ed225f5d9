"""Numba kernels: rounding, counter-based random words, accumulation. No validation, no objects.

A target format is passed as ``(frac_bits, emin, min_value, max_value, overflow, flush)``. A fixed-point
format is a float of which only the subnormals are used: `emin` is its integer bits, `frac_bits` all
its magnitude bits. ``fastmath`` stays off: it reassociates the very additions that are studied.

Three accumulation paths give the same bits. `gemm_f32` and `gemm_f64` round a float sum and need the
conditions that `numerics.accumulate` checks; `gemm_exact` needs none: each sum is first rounded to odd
at 53 bits (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms
using rounding to odd", IEEE Trans. Computers 57(4), 2008), so a second rounding to at most 24 + 24
bits is the one rounding of the exact sum.
"""

import numpy as np
from numba import njit

NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, DOWN, UP, TO_ODD, STOCHASTIC = range(7)
SATURATE, INFINITY, NAN = range(3)

_EXPONENT_64 = np.int64(0x7FF0000000000000)
_HALF_64 = np.int64(0x0008000000000000)
_SIGN_64 = np.int64(-0x8000000000000000)
_EXPONENT_AND_SIGN_32 = np.int32(-0x00800000)  # 0xFF800000

_PHILOX_M0 = np.uint64(0xD2511F53)
_PHILOX_M1 = np.uint64(0xCD9E8D57)
_PHILOX_W0 = np.uint32(0x9E3779B9)
_PHILOX_W1 = np.uint32(0xBB67AE85)
_LOW_32 = np.uint64(0xFFFFFFFF)


@njit(cache=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Philox 4x32-10: four random words from a 128-bit counter and a 64-bit key.

    J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    for _ in range(10):
        p0 = _PHILOX_M0 * np.uint64(c0)
        p1 = _PHILOX_M1 * np.uint64(c2)
        c0, c1, c2, c3 = (
            np.uint32(p1 >> np.uint64(32)) ^ c1 ^ k0,
            np.uint32(p1 & _LOW_32),
            np.uint32(p0 >> np.uint64(32)) ^ c3 ^ k1,
            np.uint32(p0 & _LOW_32),
        )
        k0 = np.uint32(k0 + _PHILOX_W0)
        k1 = np.uint32(k1 + _PHILOX_W1)
    return c0, c1, c2, c3


@njit(cache=True)
def stream_key(seed, stream):
    """Key of a stream: the first words of Philox keyed by the seed, at the stream's number."""
    low, high = np.uint64(stream) & _LOW_32, np.uint64(stream) >> np.uint64(32)
    words = philox(
        np.uint32(low),
        np.uint32(high),
        np.uint32(0),
        np.uint32(0),
        np.uint32(np.uint64(seed) & _LOW_32),
        np.uint32(np.uint64(seed) >> np.uint64(32)),
    )
    return words[0], words[1]


@njit(cache=True)
def random_word(element, step, k0, k1):
    """Word number `step` of the sequence that belongs to a stream's key and an element."""
    block = np.uint64(step) >> np.uint64(2)
    words = philox(
        np.uint32(np.uint64(element) & _LOW_32),
        np.uint32(np.uint64(element) >> np.uint64(32)),
        np.uint32(block & _LOW_32),
        np.uint32(block >> np.uint64(32)),
        k0,
        k1,
    )
    lane = step & 3
    if lane == 0:
        return words[0]
    if lane == 1:
        return words[1]
    return words[2] if lane == 2 else words[3]


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


@njit(cache=True)
def cast_any(x, out, mode, frac_bits, emin, min_value, max_value, overflow, flush, random_bits, seed, stream):
    """Round every element of a flat array; element i uses word i of the stream."""
    word = np.uint32(0)
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        if mode == STOCHASTIC:
            word = random_word(0, i, k0, k1)
        out[i] = round_one(
            np.float64(x[i]), mode, frac_bits, emin, min_value, max_value, overflow, flush, word, random_bits
        )


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


_BLOCK = 1024  # elements whose random words are made at a time


@njit(cache=True)
def _fill_words(words, first, k0, k1):
    """Words ``4 * first, ...`` of element 0 of a stream: each round runs over all counters at once.

    Lane by lane this is `philox`; by rounds, the loops vectorise.
    """
    count = words.shape[0] // 4
    c0, c1 = np.empty(count, np.uint32), np.empty(count, np.uint32)
    c2, c3 = np.empty(count, np.uint32), np.empty(count, np.uint32)
    for j in range(count):
        block = np.uint64(first + j)
        c0[j], c1[j] = 0, 0
        c2[j], c3[j] = np.uint32(block & _LOW_32), np.uint32(block >> np.uint64(32))
    for _ in range(10):
        for j in range(count):
            p0 = _PHILOX_M0 * np.uint64(c0[j])
            p1 = _PHILOX_M1 * np.uint64(c2[j])
            c0[j] = np.uint32(p1 >> np.uint64(32)) ^ c1[j] ^ k0
            c1[j] = np.uint32(p1 & _LOW_32)
            c2[j] = np.uint32(p0 >> np.uint64(32)) ^ c3[j] ^ k1
            c3[j] = np.uint32(p0 & _LOW_32)
        k0 = np.uint32(k0 + _PHILOX_W0)
        k1 = np.uint32(k1 + _PHILOX_W1)
    for j in range(count):
        words[4 * j], words[4 * j + 1] = c0[j], c1[j]
        words[4 * j + 2], words[4 * j + 3] = c2[j], c3[j]


@njit(cache=True)
def cast_stochastic(x, out, frac_bits, emin, min_value, max_value, below, above, random_bits, seed, stream):
    """Stochastic rounding with subnormals, without a branch: the results of `cast_any`.

    The discarded part is cut to `random_bits` bits by a floor, the random ones are added as an integer,
    and a second floor keeps the carry; all of it is exact in float64.
    """
    k0, k1 = stream_key(seed, stream)
    words = np.empty(_BLOCK, np.uint32)
    least = np.int64(emin + 1023) << 52
    down = np.int64(2046 + frac_bits) << 52
    finer, coarser = 2.0**random_bits, 2.0**-random_bits
    drop = np.uint32(32 - random_bits)
    for first in range(0, x.shape[0], _BLOCK):
        count = min(_BLOCK, x.shape[0] - first)
        _fill_words(words, first // 4, k0, k1)
        # Slices: an index that is a sum may be negative for all the compiler knows.
        source, target = x[first : first + count], out[first : first + count]
        for i in range(count):
            value = np.float64(source[i])
            bits = value.view(np.int64)
            field = bits & _EXPONENT_64
            field = max(least, min(field, np.int64(1223) << 52))
            # 2**-unit and 2**unit, where unit is the exponent less the fraction bits.
            scaled = abs(value) * np.int64(down - field).view(np.float64)
            whole = np.floor((np.floor(scaled * finer) + np.float64(words[i] >> drop)) * coarser)
            unit = np.int64(field - (np.int64(frac_bits) << 52)).view(np.float64)
            rounded = whole * unit
            rounded = -rounded if bits < 0 else rounded
            rounded = above if rounded > max_value else rounded
            rounded = below if rounded < min_value else rounded
            signed = np.int64(np.float64(rounded).view(np.int64) | (bits & _SIGN_64)).view(np.float64)
            target[i] = value if value != value else signed


@njit(cache=True)
def axpy_any(
    alpha, x, y, out, mode, frac_bits, emin, min_value, max_value, overflow, flush, random_bits, seed, stream
):
    """``out = round(alpha * x + y)`` on flat arrays; `alpha` and `x` have at most 24 bits each."""
    word = np.uint32(0)
    k0, k1 = stream_key(seed, stream)
    for i in range(x.shape[0]):
        if mode == STOCHASTIC:
            word = random_word(0, i, k0, k1)
        total = sum_to_odd(np.float64(y[i]), alpha * np.float64(x[i]))
        out[i] = round_one(
            total, mode, frac_bits, emin, min_value, max_value, overflow, flush, word, random_bits
        )


@njit(cache=True)
def operand_facts(x):
    """(largest magnitude, exponent of the least unit, significand bits, all finite) of a flat array.

    The least unit is the largest power of two that divides every element. Infinities and NaNs count
    for the last one only.
    """
    largest = 0.0
    unit = np.int64(2000)
    precision = np.int64(0)
    finite = True
    for i in range(x.shape[0]):
        value = np.float64(x[i])
        if not np.isfinite(value):
            finite = False
        elif value != 0.0:
            largest = max(largest, abs(value))
            bits = value.view(np.int64)
            field = (bits >> 52) & 0x7FF
            fraction = bits & 0xFFFFFFFFFFFFF
            if field == 0:
                field = np.int64(1)
            else:
                fraction |= np.int64(1) << 52
            lowest = (np.float64(fraction & -fraction).view(np.int64) >> 52) - 1023
            unit = min(unit, field - 1075 + lowest)
            precision = max(precision, 53 - lowest)
    return largest, unit, precision, finite


@njit(cache=True)
def operand_facts_f32(x):
    """`operand_facts` of a float32 array without a branch, so that it vectorises.

    Integers stand for floats: for finite ones the order of magnitudes is that of the bit patterns, and
    the lowest set bit of the fraction, converted to float, tells its position by its exponent.
    """
    largest = np.int32(0)
    unit = np.int32(2000)
    precision = np.int32(0)
    bits = x.view(np.int32)
    for i in range(bits.shape[0]):
        magnitude = bits[i] & np.int32(0x7FFFFFFF)
        field = magnitude >> np.int32(23)
        fraction = (magnitude & np.int32(0x7FFFFF)) | (np.int32(0x800000) if field > 0 else np.int32(0))
        lowest = (np.float32(fraction & -fraction).view(np.int32) >> np.int32(23)) - np.int32(127)
        exponent = (field if field > 1 else np.int32(1)) - np.int32(150) + lowest
        used = magnitude > 0
        largest = max(largest, magnitude)
        unit = min(unit, exponent if used else np.int32(2000))
        precision = max(precision, np.int32(24) - lowest if used else np.int32(0))
    return largest, unit, precision


@njit(cache=True)
def gemm_f32(a, b, out, chunk, frac_bits, block):
    """``out = a @ b`` in float32, every addition rounded to nearest even at `frac_bits` (at most 22).

    Lanes run over columns of `b`; along k the additions keep their order. ``x + s - s`` with s a
    power of two ``2**(23 - frac_bits)`` above x rounds x to its own unit in the last place.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    lift = np.float32(2.0 ** (23 - frac_bits))
    partial = np.empty(block, np.float32)
    for start in range(0, columns, block):
        width = min(block, columns - start)
        for i in range(rows):
            total = out[i, start : start + width]
            total[:] = np.float32(0.0)
            for first in range(0, depth, chunk):
                last = min(first + chunk, depth)
                target = total if chunk >= depth else partial[:width]
                target[:] = np.float32(0.0)
                for k in range(first, last):
                    scale = a[i, k]
                    row = b[k, start : start + width]
                    for j in range(width):
                        x = target[j] + scale * row[j]
                        s = (
                            np.int32(np.float32(x).view(np.int32) & _EXPONENT_AND_SIGN_32).view(np.float32)
                            * lift
                        )
                        target[j] = (x + s) - s
                if chunk < depth:
                    for j in range(width):
                        x = total[j] + target[j]
                        s = (
                            np.int32(np.float32(x).view(np.int32) & _EXPONENT_AND_SIGN_32).view(np.float32)
                            * lift
                        )
                        total[j] = (x + s) - s


@njit(cache=True)
def gemm_f64(a, b, out, chunk, frac_bits, block):
    """The same with float64 sums."""
    rows, depth = a.shape
    columns = b.shape[1]
    lift = 2.0 ** (52 - frac_bits)
    keep = _EXPONENT_64 | _SIGN_64
    partial = np.empty(block, np.float64)
    total = np.empty(block, np.float64)
    for start in range(0, columns, block):
        width = min(block, columns - start)
        for i in range(rows):
            total[:] = 0.0
            for first in range(0, depth, chunk):
                last = min(first + chunk, depth)
                target = total if chunk >= depth else partial
                target[:] = 0.0
                for k in range(first, last):
                    scale = np.float64(a[i, k])
                    row = b[k, start : start + width]
                    for j in range(width):
                        x = target[j] + scale * np.float64(row[j])
                        s = np.int64(np.float64(x).view(np.int64) & keep).view(np.float64) * lift
                        target[j] = (x + s) - s
                if chunk < depth:
                    for j in range(width):
                        x = total[j] + target[j]
                        s = np.int64(np.float64(x).view(np.int64) & keep).view(np.float64) * lift
                        total[j] = (x + s) - s
            for j in range(width):
                out[i, start + j] = total[j]


@njit(cache=True)
def gemm_exact(
    a, b, out, chunk, mode, frac_bits, emin, min_value, max_value, overflow, flush, random_bits, seed, stream
):
    """The same for any format, mode and data. Products must be exact in float64.

    The random word of an addition depends on (seed, stream, output element, number of the addition):
    products count 0, 1, 2, ..., the outer additions of a chunked sum follow from ``depth`` on.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    word = np.uint32(0)
    k0, k1 = stream_key(seed, stream)
    for i in range(rows):
        for j in range(columns):
            element = i * columns + j
            total = 0.0
            for first in range(0, depth, chunk):
                partial = 0.0
                for k in range(first, min(first + chunk, depth)):
                    if mode == STOCHASTIC:
                        word = random_word(element, k, k0, k1)
                    exact = sum_to_odd(partial, np.float64(a[i, k]) * np.float64(b[k, j]))
                    partial = round_one(
                        exact, mode, frac_bits, emin, min_value, max_value, overflow, flush, word, random_bits
                    )
                if chunk >= depth:
                    total = partial
                else:
                    if mode == STOCHASTIC:
                        word = random_word(element, depth + first // chunk, k0, k1)
                    total = round_one(
                        sum_to_odd(total, partial),
                        mode,
                        frac_bits,
                        emin,
                        min_value,
                        max_value,
                        overflow,
                        flush,
                        word,
                        random_bits,
                    )
            out[i, j] = total
