"""The exact accumulator: integer limbs as wide as the range of the sum."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels.ordered import COUNTERS, exponent_of, round_counting
from numerics._kernels.random import stream_key
from numerics._kernels.rounding import sum_to_odd


@njit(cache=True)
def _register_value(limbs, base):
    """Value of a register of limbs of 32 bits and weights ``2**(base + 32 i)``, to odd at 53 bits."""
    carry = np.int64(0)
    for i in range(limbs.shape[0]):
        value = limbs[i] + carry
        limbs[i] = value & 0xFFFFFFFF
        carry = value >> 32
    negative = carry < 0
    if negative:
        carry = np.int64(1)
        for i in range(limbs.shape[0]):
            value = (limbs[i] ^ 0xFFFFFFFF) + carry
            limbs[i] = value & 0xFFFFFFFF
            carry = value >> 32
    top = limbs.shape[0] - 1
    while top > 2 and limbs[top] == 0:  # the two lowest limbs are below the last bit of any product
        top -= 1
    low = limbs[top - 2]
    for i in range(top - 2):
        if limbs[i] != 0:
            low |= 1  # at least 64 bits below the leading one: a sticky bit
    total = sum_to_odd(limbs[top] * 2.0**64, limbs[top - 1] * 2.0**32)
    total = sum_to_odd(total, np.float64(low))
    if total == 0.0:
        return 0.0
    # Far beyond every format, both ways, the exponent does not matter; it must stay in float64.
    scale = base + 32 * (top - 2)
    exponent = max(-900, min(900, exponent_of(total) + scale)) - exponent_of(total)
    return (-total if negative else total) * 2.0**exponent


@njit(cache=True)
def gemm_kulisch(a, b, out, base, limb_count, target, seed, stream):
    """``out = a @ b``, every sum exact and rounded once.

    Every product must be exact in float64 and a multiple of ``2**(base + 117)``, and the sums must stay
    below ``2**(base + 32 * limb_count - 2)``; at most 2**30 products.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    k0, k1 = stream_key(seed, stream)
    counts = np.zeros(COUNTERS, np.int64)
    limbs = np.zeros(limb_count, np.int64)
    for i in range(rows):
        for j in range(columns):
            limbs[:] = 0
            special = 0.0
            for k in range(depth):
                product = np.float64(a[i, k]) * np.float64(b[k, j])
                if not np.isfinite(product):
                    special += product
                elif product != 0.0:
                    bits = np.float64(product).view(np.int64)
                    field = (bits >> 52) & 0x7FF
                    significand = bits & 0xFFFFFFFFFFFFF
                    if field == 0:
                        field = np.int64(1)
                    else:
                        significand |= np.int64(1) << 52
                    place = field - 1075 - base
                    limb, offset = place >> 5, place & 31
                    sign = np.int64(-1) if product < 0.0 else np.int64(1)
                    low = (significand & 0xFFFFFFFF) << offset
                    high = (significand >> 32) << offset
                    limbs[limb] += sign * (low & 0xFFFFFFFF)
                    limbs[limb + 1] += sign * ((low >> 32) + (high & 0xFFFFFFFF))
                    limbs[limb + 2] += sign * (high >> 32)
            total = special if special != 0.0 else _register_value(limbs, base)
            out[i, j] = round_counting(total, target, i * columns + j, 0, k0, k1, False, counts)
