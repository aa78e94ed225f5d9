"""The exact accumulator: integer limbs as wide as the range of the sum."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels.ordered import round_counting
from numerics._kernels.random import stream_key


@njit(cache=True)
def _carried(limbs):
    """Bring limbs of 32 bits into 0 .. 2**32 - 1, of the magnitude; returns whether they were negative."""
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
    return negative


@njit(cache=True)
def _bits(limbs, top):
    """The 53 bits from bit `top` down as a number below ``2**53``; there are as many."""
    number = 0.0
    for bit in range(top, top - 53, -1):
        number = 2.0 * number + np.float64(limbs[bit >> 5] >> (bit & 31) & 1)
    return number


@njit(cache=True)
def _register_value(limbs, base):
    """Value of a register of limbs of weights ``2**(base + 32 i)``: a float64, and the rest to odd."""
    negative = _carried(limbs)
    limb = limbs.shape[0] - 1
    while limb >= 0 and limbs[limb] == 0:
        limb -= 1
    if limb < 0:
        return 0.0, 0.0
    top = 32 * limb + 31
    while limbs[limb] >> (top & 31) & 1 == 0:
        top -= 1
    value, rest = _bits(limbs, top), _bits(limbs, top - 53)
    sticky = False
    for bit in range(top - 106, -1, -1):
        sticky = sticky or limbs[bit >> 5] >> (bit & 31) & 1 == 1
    if sticky and rest % 2.0 == 0.0:
        rest += 1.0
    # Far beyond every format, both ways, the exponent does not matter; it must stay in float64.
    scale = 2.0 ** max(-900, min(900, base + top - 52))
    if negative:
        scale = -scale
    return value * scale, rest * 2.0**-53 * scale


@njit(cache=True)
def gemm_kulisch(a, b, out, base, limb_count, target, seed, stream, first_element, counting, counts):
    """``out = a @ b``, every sum exact and rounded once.

    Every product must be exact in float64 and a multiple of ``2**(base + 117)``, and the sums must stay
    below ``2**(base + 32 * limb_count - 2)``; at most 2**30 products.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    k0, k1 = stream_key(seed, stream)
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
            value, rest = special, 0.0
            if special == 0.0:
                value, rest = _register_value(limbs, base)
            element = first_element + i * columns + j
            out[i, j] = round_counting(value, rest, target, element, 0, k0, k1, counting, counts)
