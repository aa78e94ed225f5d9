"""What a certificate needs to know of an operand."""

import numpy as np
from numba import njit


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


@njit(cache=True, nogil=True)
def bounds_f32(bits):
    """(largest, least but zero, union) of the magnitudes of float32 patterns, as patterns.

    The least one of zeros only is 0x7FFFFFFF.
    """
    # Numba widens int32 to int64 in every operation; cast back, four times as many fit a vector.
    largest, least, union = np.int32(0), np.int32(0x7FFFFFFF), np.int32(0)
    for i in range(bits.shape[0]):
        magnitude = np.int32(bits[i] & np.int32(0x7FFFFFFF))
        union = np.int32(union | magnitude)
        largest = magnitude if magnitude > largest else largest
        # All ones where the magnitude is zero; a selection here would become a branch.
        absent = np.int32(np.int32(magnitude - np.int32(1)) >> np.int32(31))
        present = np.int32(magnitude | np.int32(absent & np.int32(0x7FFFFFFF)))
        least = present if present < least else least
    return largest, least, union


@njit(cache=True, nogil=True)
def unit_f32(bits):
    """Exponent of the largest power of two that divides all of some normal float32 patterns, or zeros.

    The lowest set bit of a significand, converted to float, tells its position by its exponent.
    """
    unit = np.int32(2150)
    for i in range(bits.shape[0]):
        magnitude = np.int32(bits[i] & np.int32(0x7FFFFFFF))
        significand = np.int32(np.int32(magnitude & np.int32(0x7FFFFF)) | np.int32(0x800000))
        lowest = np.float32(np.int32(significand & np.int32(-significand))).view(np.int32)
        place = np.int32(np.int32(magnitude >> np.int32(23)) + np.int32(lowest >> np.int32(23)))
        place = place if magnitude > 0 else np.int32(2150)
        unit = place if place < unit else unit
    return unit - 277  # twice the bias, and 23 bits after the point
