"""Numba kernels of block formats. Arrays are (rows, n); a row is cut into blocks, the last may be short.

`round_deterministic` does all of a block format with power-of-two scales: the scale of each block, its
elements, and the products of the two. `round_nearest_even_f32` is the same for one rounding of float32,
without a branch for an element. With a scale ``2**X`` an element is rounded where it stands, on the
grid of the element format moved by X binades; nothing is divided.

For other scales, `divide` and `multiply` enclose any rounding of the elements.
"""

import math

import numpy as np
from numba import njit

from numerics._kernels.rounding import DOWN, NEAREST_AWAY, NEAREST_EVEN, TO_ODD, UP

_MAGNITUDE_32, _MAGNITUDE_64 = np.int32(0x7FFFFFFF), np.int64(0x7FFFFFFFFFFFFFFF)
_INFINITY_64 = np.int64(0x7FF0000000000000)
_NAN_SCALE = 128  # as an exponent; codes are 127 more, 255 is NaN
_SPLIT = 134217729.0  # 2**27 + 1, Dekker's constant


@njit(cache=True)
def _power(exponent):
    """``2.0**exponent`` of a float64 normal number."""
    return np.int64((exponent + 1023) << 52).view(np.float64)


@njit(cache=True)
def _bounds(k, block, n):
    """Places of the first element of block k in its row, and behind its last one."""
    first = np.uint64(k) * np.uint64(block)
    return first, min(first + np.uint64(block), np.uint64(n))


@njit(cache=True)
def maxima(x, out, block):
    """Largest magnitude of every block as float64: an infinity or NaN if the block has one."""
    for row in range(out.shape[0]):
        for k in range(out.shape[1]):
            first, last = _bounds(k, block, x.shape[1])
            most = np.int64(0)
            for i in range(first, last):
                most = max(most, np.float64(x[row, np.uint64(i)]).view(np.int64) & _MAGNITUDE_64)
            out[row, k] = np.int64(most).view(np.float64)


@njit(cache=True)
def _exponent_of_scale(most, emax):
    """X of a block from the bits of its largest magnitude: at least -127, and NaN beyond 127."""
    exponent = max((most >> 52) - 1023 - emax, -127)
    return _NAN_SCALE if most >= _INFINITY_64 or exponent > 127 else exponent


@njit(cache=True)
def round_block(
    x, out, row, first, last, scale, mode, frac_bits, emin, min_value, max_value, flush, minus_zero, divided
):
    """Round one block whose scale is ``2**scale``; leave its elements, or the values if not `divided`."""
    if scale == _NAN_SCALE:
        for i in range(first, last):
            out[row, np.uint64(i)] = 0.0 if divided else np.nan
        return
    factor = _power(0 if divided else scale)
    least = emin + scale
    finest = least if flush else least - frac_bits
    for i in range(first, last):
        value = np.float64(x[row, np.uint64(i)])
        magnitude = abs(value)
        exponent = (np.float64(magnitude).view(np.int64) >> 52) - 1023
        unit = finest if exponent < least else exponent - frac_bits
        steps = magnitude * _power(-unit)
        steps = 5e-324 if steps == 0.0 and magnitude > 0.0 else steps
        whole = np.floor(steps)
        rest = steps - whole
        odd = whole - 2.0 * np.floor(0.5 * whole)
        if mode == NEAREST_EVEN:
            up = rest > 0.5 or (rest == 0.5 and odd == 1.0)
        elif mode == NEAREST_AWAY:
            up = rest >= 0.5
        elif mode == DOWN:
            up = rest > 0.0 and value < 0.0
        elif mode == UP:
            up = rest > 0.0 and value > 0.0
        elif mode == TO_ODD:
            up = rest > 0.0 and odd == 0.0
        else:
            up = False
        element = (whole + 1.0 if up else whole) * _power(unit - scale)
        element = -element if value < 0.0 else element
        element = max_value if element > max_value else element
        element = min_value if element < min_value else element
        if element == 0.0:
            element = np.copysign(0.0, value) if minus_zero else 0.0
        out[row, np.uint64(i)] = element * factor


@njit(cache=True)
def round_deterministic(
    x, out, codes, block, mode, frac_bits, emin, emax, min_value, max_value, flush, minus_zero, divided
):
    """Round all blocks with scales that are powers of two, and give the E8M0 codes of those.

    The element format is a target as in `rounding`, with `emax` its largest exponent; elements saturate.
    """
    for row in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            first, last = _bounds(k, block, x.shape[1])
            most = np.int64(0)
            for i in range(first, last):
                most = max(most, np.float64(x[row, np.uint64(i)]).view(np.int64) & _MAGNITUDE_64)
            scale = _exponent_of_scale(most, emax)
            codes[row, k] = scale + 127
            round_block(
                x,
                out,
                row,
                first,
                last,
                scale,
                mode,
                frac_bits,
                emin,
                min_value,
                max_value,
                flush,
                minus_zero,
                divided,
            )


@njit(cache=True)
def round_nearest_even_f32(
    x, out, codes, block, frac_bits, emin, emax, min_value, max_value, minus_zero, divided
):
    """`round_deterministic` to nearest even of float32 arrays, with subnormals, at most 21 fraction bits.

    Adding and subtracting ``1.5 * 2**23`` units rounds to a multiple of the unit in hardware, as in
    `casts.cast_nearest_even_f32`. Blocks for which that constant or the smallest normal element is out
    of the range of normal float32 numbers go the other way.
    """
    words = x.view(np.int32)
    kept = np.int32(-0x80000000) if minus_zero else np.int32(0)
    lift = np.int32(((23 - frac_bits) << 23) + 0x400000)
    for row in range(codes.shape[0]):
        for k in range(codes.shape[1]):
            first, last = _bounds(k, block, x.shape[1])
            most = np.int32(0)
            for i in range(first, last):
                most = max(most, np.int32(words[row, np.uint64(i)] & _MAGNITUDE_32))
            wide = np.float64(np.int32(most).view(np.float32)).view(np.int64)
            scale = _exponent_of_scale(wide, emax)
            codes[row, k] = scale + 127
            highest = max((wide >> 52) - 1023, emin + scale)
            if emin + scale < -126 or highest > 103 + frac_bits:  # also if there is no scale
                round_block(
                    x,
                    out,
                    row,
                    first,
                    last,
                    scale,
                    NEAREST_EVEN,
                    frac_bits,
                    emin,
                    min_value,
                    max_value,
                    False,
                    minus_zero,
                    divided,
                )
                continue
            least = np.int32((emin + scale + 127) << 23)
            low, high = np.float32(min_value * _power(scale)), np.float32(max_value * _power(scale))
            factor = np.float32(_power(-scale if divided else 0))
            for i in range(first, last):
                value, word = x[row, np.uint64(i)], words[row, np.uint64(i)]
                field = np.int32(word & np.int32(0x7F800000))
                field = field if field > least else least
                big = np.int32(field + lift).view(np.float32)
                rounded = np.float32(np.float32(value + big) - big)
                rounded = high if rounded > high else rounded
                rounded = low if rounded < low else rounded
                signed = np.int32(np.float32(rounded).view(np.int32) | np.int32(word & kept))
                out[row, np.uint64(i)] = signed.view(np.float32) * factor


@njit(cache=True)
def _quotient_to_odd(x, divisor):
    """``x / divisor`` rounded to odd at 53 bits, where neither is extreme: no product below underflows."""
    quotient = x / divisor
    # x - quotient * divisor exactly, by the product of Dekker (1971)
    product = quotient * divisor
    wide_q, wide_d = _SPLIT * quotient, _SPLIT * divisor
    q_high, d_high = wide_q - (wide_q - quotient), wide_d - (wide_d - divisor)
    q_low, d_low = quotient - q_high, divisor - d_high
    error = ((q_high * d_high - product) + q_high * d_low + q_low * d_high) + q_low * d_low
    residual = (x - product) - error
    # The exact quotient lies beside an even one: towards zero or away from it.
    bits = np.float64(quotient).view(np.int64)
    away = np.int64(1) if (residual > 0.0) == (quotient > 0.0) else np.int64(-1)
    bits += away if residual != 0.0 and bits & 1 == 0 else np.int64(0)
    return np.int64(bits).view(np.float64)


@njit(cache=True)
def divide_to_odd(x, divisor):
    """``x / divisor`` rounded to odd at 53 bits, so that one more rounding to 51 or fewer is exact.

    `x` is finite, `divisor` a positive normal number. Quotients beyond the float64 range are
    infinities, those below it keep their sign and stay off zero.
    """
    if x == 0.0:
        return x
    top, top_exponent = math.frexp(x)
    bottom, bottom_exponent = math.frexp(divisor)
    quotient = math.ldexp(_quotient_to_odd(top, bottom), top_exponent - bottom_exponent)
    return np.copysign(5e-324, x) if quotient == 0.0 else quotient


@njit(cache=True)
def divide(x, divisors, out, block, single):
    """Elements before they are rounded: every x over the divisor of its block, as `divide_to_odd`.

    A zero divisor gives zeros with the signs of x, a NaN gives +0. `single`: the magnitudes of x are
    those of float32.
    """
    for row in range(divisors.shape[0]):
        for k in range(divisors.shape[1]):
            first, last = _bounds(k, block, x.shape[1])
            divisor = divisors[row, k]
            if not divisor > 0.0:
                for i in range(first, last):
                    zero = np.copysign(0.0, np.float64(x[row, np.uint64(i)]))
                    out[row, np.uint64(i)] = zero if divisor == 0.0 else 0.0
            elif single:
                for i in range(first, last):
                    out[row, np.uint64(i)] = _quotient_to_odd(np.float64(x[row, np.uint64(i)]), divisor)
            else:
                for i in range(first, last):
                    out[row, np.uint64(i)] = divide_to_odd(np.float64(x[row, np.uint64(i)]), divisor)


@njit(cache=True)
def nearest_scales(amax, out, unit, frac_bits, emin, max_value, flush, single):
    """``amax / unit`` of a row of blocks, rounded once to nearest even and saturated; NaN stays NaN."""
    first, last = np.uint64(0), np.uint64(amax.shape[1])
    divide(amax, np.full((1, 1), unit), out, amax.shape[1], single)
    round_block(
        out, out, 0, first, last, 0, NEAREST_EVEN, frac_bits, emin, 0.0, max_value, flush, False, True
    )
    for i in range(first, last):
        if amax[0, np.uint64(i)] != amax[0, np.uint64(i)]:
            out[0, np.uint64(i)] = np.nan


@njit(cache=True)
def multiply(elements, factors, out, block):
    """Values: elements times the factor of their block, in float64 and then in the dtype of `out`."""
    for row in range(factors.shape[0]):
        for k in range(factors.shape[1]):
            first, last = _bounds(k, block, elements.shape[1])
            factor = factors[row, k]
            for i in range(first, last):
                out[row, np.uint64(i)] = np.float64(elements[row, np.uint64(i)]) * factor
