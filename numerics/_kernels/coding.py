"""Numba kernels of `numerics.codes`: from values on a format to its codes, and back by table.

A code is made at the upper end of the carrier's word (float32 or float64), where exponent and fraction
already are, and shifted down at the end. The exponent field loses the difference of the biases. A
subnormal magnitude first gets the smallest normal number added, which is exact and keeps the fraction.

All of it is integers and selections, without a branch, so that it vectorises. The mask of a shift shows
the compiler that 32 bits are enough for it.
"""

import numpy as np
from numba import njit

_MAGNITUDE_32, _INFINITY_32 = np.uint32(0x7FFFFFFF), np.uint32(0x7F800000)
_MAGNITUDE_64, _INFINITY_64 = np.uint64(0x7FFFFFFFFFFFFFFF), np.uint64(0x7FF0000000000000)


@njit(cache=True)
def largest_f32(x):
    """Bits of the largest magnitude in a flat float32 array; infinity and then NaN follow the numbers."""
    words = x.view(np.uint32)
    most = np.uint32(0)
    for i in range(words.shape[0]):
        most = max(most, np.uint32(words[i] & _MAGNITUDE_32))
    return most


@njit(cache=True)
def largest_f64(x):
    """The same for float64."""
    words = x.view(np.uint64)
    most = np.uint64(0)
    for i in range(words.shape[0]):
        most = max(most, words[i] & _MAGNITUDE_64)
    return most


@njit(cache=True)
def encode_f32(values, codes, frac_bits, emin, sign_bit, infinity, nan):
    """Codes of flat float32 values on a float format whose `emin` is at least -126.

    `sign_bit` is the code of -0, or 0 where nothing is negative; `infinity` and `nan` are codes.
    """
    shift = np.uint32((23 - frac_bits) & 31)
    least = np.uint32((emin + 127) << 23)  # bits of the smallest normal number
    offset = np.uint32((emin + 126) << 23)
    lift = least.view(np.float32)
    sign, top, bad = np.uint32(sign_bit << shift), np.uint32(infinity << shift), np.uint32(nan << shift)
    words = values.view(np.uint32)
    for i in range(words.shape[0]):
        word = words[i]
        magnitude = np.uint32(word & _MAGNITUDE_32)
        below = magnitude < least
        lifted = np.float32(magnitude.view(np.float32) + (lift if below else np.float32(0.0)))
        code = np.uint32(lifted.view(np.uint32) - (least if below else offset))
        code = top if magnitude == _INFINITY_32 else code
        code = np.uint32(code | (sign if word > magnitude else np.uint32(0)))
        code = bad if magnitude > _INFINITY_32 else code
        codes[i] = code >> shift


@njit(cache=True)
def encode_f64(values, codes, frac_bits, emin, sign_bit, infinity, nan):
    """The same for flat float64 values on any float format."""
    shift = np.uint64((52 - frac_bits) & 63)
    least = np.uint64(emin + 1023) << np.uint64(52)
    offset = np.uint64(emin + 1022) << np.uint64(52)
    lift = np.uint64(least).view(np.float64)
    sign, top, bad = np.uint64(sign_bit) << shift, np.uint64(infinity) << shift, np.uint64(nan) << shift
    words = values.view(np.uint64)
    for i in range(words.shape[0]):
        word = words[i]
        magnitude = np.uint64(word & _MAGNITUDE_64)
        below = magnitude < least
        lifted = np.float64(magnitude.view(np.float64) + (lift if below else 0.0))
        code = np.uint64(lifted.view(np.uint64) - (least if below else offset))
        code = top if magnitude == _INFINITY_64 else code
        code = np.uint64(code | (sign if word > magnitude else np.uint64(0)))
        code = bad if magnitude > _INFINITY_64 else code
        codes[i] = code >> shift


@njit(cache=True)
def encode_fixed_f32(values, codes, frac_bits, mask):
    """Codes of flat float32 values on a fixed-point format; `mask` has a one for each of its bits."""
    steps = np.float32(2.0**frac_bits)
    for i in range(values.shape[0]):
        codes[i] = np.int32(values[i] * steps) & np.int32(mask)


@njit(cache=True)
def encode_fixed_f64(values, codes, frac_bits, mask):
    """The same for flat float64 values."""
    steps = 2.0**frac_bits
    for i in range(values.shape[0]):
        codes[i] = np.int64(values[i] * steps) & mask


@njit(cache=True)
def look_up(codes, table, out):
    """``out[i] = table[codes[i]]`` for flat codes below the length of the table."""
    for i in range(codes.shape[0]):
        out[i] = table[codes[i]]
