"""Fused block adders: one alignment, one rounding for a block of products and the addend."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels.ordered import ADDITIONS, SHIFT, SWAMPED, exponent_of, round_counting

_NO_TERM = -100_000  # exponent of a zero operand, below that of any term


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
        e = max(exponent_of(value), emin)
        whole = value * 2.0 ** (frac_bits - e)
        if abs(value) > max_value or whole != np.floor(whole):
            return i
        magnitude[i] = np.int64(whole)
        exponent[i] = e
    return -1


@njit(cache=True)
def gemm_fused(
    a, b, left, left_exp, right, right_exp, out, block, lift, drop, align, target, promote, finite,
    counting, counts,
):  # fmt: skip
    """``out = a @ b`` by blocks of `block` products and the addend, aligned, truncated and added exactly.

    `left` and `right` hold the significands, `left_exp` and `right_exp` the exponents of `split_operand`;
    products are moved up by `lift` bits so that the alignment shifts to the right only, by `drop` bits
    where the exponent of the product is the largest. Lanes run over columns.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    emin = target[2]
    none = np.uint32(0)  # of random words
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
                if counting:
                    counts[ADDITIONS] += last - first + 1
                    if addend[j] != 0.0 and np.isfinite(addend[j]):
                        counts[SWAMPED] += total[j] == 0
                        counts[SHIFT] = max(counts[SHIFT], largest[j] - max(exponent_of(addend[j]), emin))
            for k in range(first, last):
                e = left_exp[i, k]
                significand = left[i, k] << lift
                for j in range(columns):
                    term = significand * right[k, j]
                    cut = min(largest[j] - e - right_exp[k, j] + drop, 63)
                    size = abs(term) >> cut
                    total[j] += size if term > 0 else -size
                    if counting and term != 0:
                        counts[SHIFT] = max(counts[SHIFT], largest[j] - e - right_exp[k, j])
                        counts[SWAMPED] += size == 0
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
                addend[j] = round_counting(x, -0.0, target, 0, 0, none, none, counting, counts)
            if promote > 0 and (last % promote == 0 or last == depth):
                for j in range(columns):
                    summed = np.float64(np.float32(register[j] + addend[j]))
                    if counting:
                        counts[ADDITIONS] += 1
                        counts[SWAMPED] += addend[j] != 0.0 and summed == register[j]
                    register[j] = summed
                    addend[j] = 0.0
        for j in range(columns):
            out[i, j] = register[j] if promote > 0 else addend[j]
