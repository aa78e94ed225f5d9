"""Numba kernels of the sums that are not plain: any order of additions, and fused block adders.

Plain loops over arrays; no validation, no objects. A target is the tuple of `numerics._target.Target`.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels import STOCHASTIC, random_word, round_one, stream_key, sum_to_odd

ADDITIONS, SWAMPED, OVERFLOW, UNDERFLOW, SATURATION, SHIFT, COUNTERS = range(7)

_ENDLESS = 1e300  # limit of a format without an upper end
_NO_TERM = -100_000  # exponent of a zero operand, below that of any term


@njit(cache=True)
def _exponent(x):
    """``floor(log2(abs(x)))`` of a finite non-zero float64."""
    field = (np.float64(x).view(np.int64) >> 52) & 0x7FF
    if field == 0:
        return ((np.float64(x * 2.0**54).view(np.int64) >> 52) & 0x7FF) - 1077
    return field - 1023


@njit(cache=True)
def _round(x, target, element, number, k0, k1, counting, counts):
    """Round once, with the word of (element, number); count what it did to the range."""
    mode, frac_bits, emin, low, high, overflow, flush, random_bits = target
    word = np.uint32(0)
    if mode == STOCHASTIC:
        word = random_word(element, number, k0, k1)
    rounded = round_one(x, mode, frac_bits, emin, low, high, overflow, flush, word, random_bits)
    if counting and x != 0.0 and np.isfinite(x):
        if not np.isfinite(rounded):
            counts[OVERFLOW] += 1
        elif x > high or x < low:
            free = round_one(
                x, mode, frac_bits, emin, -_ENDLESS, _ENDLESS, overflow, flush, word, random_bits
            )
            if free > high or free < low:
                counts[SATURATION] += 1
        elif rounded != x and abs(x) < 2.0**emin:
            counts[UNDERFLOW] += 1
    return rounded


@njit(cache=True)
def _add(x, y, target, element, number, k0, k1, counting, counts):
    """``x + y`` rounded once."""
    total = _round(sum_to_odd(x, y), target, element, number, k0, k1, counting, counts)
    if counting:
        counts[ADDITIONS] += 1
        if y != 0.0 and np.isfinite(x) and np.isfinite(y):
            if total == x:
                counts[SWAMPED] += 1
            if x != 0.0:
                counts[SHIFT] = max(counts[SHIFT], abs(_exponent(x) - _exponent(y)))
    return total


@njit(cache=True)
def _tree(values, count, first, target, element, k0, k1, counting, counts):
    """Adder tree over ``values[:count]``, the products from number `first` on; level by level."""
    if count == 1:
        return _round(values[0], target, element, first, k0, k1, counting, counts)
    step = 1
    while step < count:
        for left in range(0, count - step, 2 * step):
            right = left + step
            values[left] = _add(
                values[left], values[right], target, element, first + right, k0, k1, counting, counts
            )
        step *= 2
    return values[0]


@njit(cache=True)
def gemm_ordered(
    a, b, out, chunk, lanes, pairwise, target, rounds_product, product_target, has_outer, outer_target,
    seed, stream, counting, counts,
):  # fmt: skip
    """``out = a @ b`` in the order and with the random words of `numerics.accumulator.Accumulator`.

    Products must be exact in float64. With `counting`, `counts` receives what a `Report` tells.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    chunks = (depth + chunk - 1) // chunk
    k0, k1 = stream_key(seed, stream)
    values = np.empty(chunk if pairwise else lanes, np.float64)
    for i in range(rows):
        for j in range(columns):
            element = i * columns + j
            total = 0.0
            for number in range(chunks):
                first = number * chunk
                last = min(first + chunk, depth)
                values[:] = 0.0
                for k in range(first, last):
                    term = np.float64(a[i, k]) * np.float64(b[k, j])
                    if rounds_product:
                        counter = depth + chunks * lanes + k
                        term = _round(term, product_target, element, counter, k0, k1, counting, counts)
                    if pairwise:
                        values[k - first] = term
                    else:
                        lane = (k - first) % lanes
                        values[lane] = _add(values[lane], term, target, element, k, k0, k1, counting, counts)
                if pairwise:
                    partial = _tree(values, last - first, first, target, element, k0, k1, counting, counts)
                else:
                    partial = values[0]
                    for lane in range(1, lanes):
                        counter = depth + chunks + number * (lanes - 1) + lane - 1
                        partial = _add(
                            partial, values[lane], target, element, counter, k0, k1, counting, counts
                        )
                if chunks > 1 or has_outer:
                    total = _add(
                        total, partial, outer_target, element, depth + number, k0, k1, counting, counts
                    )
                else:
                    total = partial
            out[i, j] = total


@njit(cache=True)
def split_operand(x, frac_bits, emin, max_value, magnitude, exponent):
    """Integer significands, signed, and exponents of a flat array; index of the first value off the format.

    A subnormal has exponent `emin` and a significand below ``2**frac_bits``; a zero has an exponent
    below any other; an infinity or NaN passes as a zero. Returns -1 if all are on the format.
    """
    for i in range(x.shape[0]):
        value = np.float64(x[i])
        magnitude[i] = 0
        exponent[i] = _NO_TERM
        if value == 0.0 or not np.isfinite(value):
            continue
        e = max(_exponent(value), emin)
        whole = value * 2.0 ** (frac_bits - e)
        if abs(value) > max_value or whole != np.floor(whole):
            return i
        magnitude[i] = np.int64(whole)
        exponent[i] = e
    return -1


@njit(cache=True)
def gemm_fused(
    a, b, left, left_exp, right, right_exp, out, block, lift, drop, align, target, promote, finite
):  # fmt: skip
    """``out = a @ b`` by blocks of `block` products and the addend, aligned, truncated and added exactly.

    `left` and `right` hold the significands, `left_exp` and `right_exp` the exponents of `split_operand`;
    products are moved up by `lift` bits so that the alignment shifts to the right only, by `drop` bits
    where the exponent of the product is the largest. Lanes run over columns.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    mode, frac_bits, emin, low, high, overflow, flush, _ = target
    word = np.uint32(0)
    addend = np.empty(columns, np.float64)
    register = np.empty(columns, np.float64)
    largest = np.empty(columns, np.int64)
    total = np.empty(columns, np.int64)
    for i in range(rows):
        addend[:] = 0.0
        register[:] = 0.0
        for first in range(0, depth, block):
            last = min(first + block, depth)
            for j in range(columns):
                c = addend[j]
                e = ((np.float64(c).view(np.int64) >> 52) & 0x7FF) - 1023
                # Exponents of the addend start at that of its subnormals; zero counts as 2**-126.
                largest[j] = -126 if c == 0.0 or e > 1000 else max(e, emin)
            for k in range(first, last):
                e = left_exp[i, k]
                for j in range(columns):
                    largest[j] = max(largest[j], e + right_exp[k, j])
            for j in range(columns):
                scale = np.int64((1023 + align - largest[j]) << 52).view(np.float64)
                total[j] = np.int64(addend[j] * scale) if np.isfinite(addend[j]) else 0
            for k in range(first, last):
                e = left_exp[i, k]
                significand = left[i, k] << lift
                for j in range(columns):
                    term = significand * right[k, j]
                    cut = min(largest[j] - e - right_exp[k, j] + drop, 63)
                    size = abs(term) >> cut
                    total[j] += size if term > 0 else -size
            for j in range(columns):
                scale = np.int64((1023 + largest[j] - align) << 52).view(np.float64)
                x = total[j] * scale
                if not finite:
                    special = 0.0 if np.isfinite(addend[j]) else addend[j]
                    for k in range(first, last):
                        p, q = np.float64(a[i, k]), np.float64(b[k, j])
                        if not (np.isfinite(p) and np.isfinite(q)):
                            special += p * q
                    if special != 0.0:
                        x = special
                elif not np.isfinite(addend[j]):
                    x = addend[j]
                addend[j] = round_one(x, mode, frac_bits, emin, low, high, overflow, flush, word, 0)
            if promote > 0 and (last % promote == 0 or last == depth):
                for j in range(columns):
                    register[j] = np.float64(np.float32(register[j] + addend[j]))
                    addend[j] = 0.0
        for j in range(columns):
            out[i, j] = register[j] if promote > 0 else addend[j]


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
    exponent = max(-900, min(900, _exponent(total) + scale)) - _exponent(total)
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
            out[i, j] = _round(total, target, i * columns + j, 0, k0, k1, False, counts)
