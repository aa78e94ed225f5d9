"""Sums in any order of additions, and what happened in them, counted."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels.random import stream_key
from numerics._kernels.rounding import round_sum, sum_to_odd

ADDITIONS, SWAMPED, OVERFLOW, UNDERFLOW, SATURATION, SHIFT, COUNTERS = range(7)

_ENDLESS = 1e300  # limit of a format without an upper end
_NOTHING = -0.0  # to add it keeps the sign of a zero


@njit(cache=True)
def exponent_of(x):
    """``floor(log2(abs(x)))`` of a finite non-zero float64."""
    field = (np.float64(x).view(np.int64) >> 52) & 0x7FF
    if field == 0:
        return ((np.float64(x * 2.0**54).view(np.int64) >> 52) & 0x7FF) - 1077
    return field - 1023


@njit(cache=True)
def _add(x, y, target, element, number, k0, k1, counting, counts):
    """``x + y`` rounded once, with the words of the addition; count what it did."""
    total = round_counting(x, y, target, element, number, k0, k1, counting, counts)
    if counting:
        counts[ADDITIONS] += 1
        if y != 0.0 and np.isfinite(x) and np.isfinite(y):
            if total == x:
                counts[SWAMPED] += 1
            if x != 0.0:
                counts[SHIFT] = max(counts[SHIFT], abs(exponent_of(x) - exponent_of(y)))
    return total


@njit(cache=True)
def round_counting(x, y, target, element, number, k0, k1, counting, counts):
    """``x + y`` rounded once; count what it did to the range."""
    emin, low, high = target[2:5]
    rounded = round_sum(x, y, target, True, element, number, k0, k1)
    total = sum_to_odd(x, y)
    if counting and total != 0.0 and np.isfinite(total):
        if not np.isfinite(rounded):
            counts[OVERFLOW] += 1
        elif total > high or total < low:
            endless = (*target[:3], -_ENDLESS, _ENDLESS, *target[5:])
            free = round_sum(x, y, endless, True, element, number, k0, k1)
            if free > high or free < low:
                counts[SATURATION] += 1
        elif rounded != total and abs(total) < 2.0**emin:
            counts[UNDERFLOW] += 1
    return rounded


@njit(cache=True)
def _tree(values, count, first, target, element, k0, k1, counting, counts):
    """Adder tree over ``values[:count]``, the products from number `first` on; level by level."""
    if count == 1:
        return round_counting(values[0], _NOTHING, target, element, first, k0, k1, counting, counts)
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
    seed, stream, first_element, counting, counts,
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
            element = first_element + i * columns + j
            total = 0.0
            for number in range(chunks):
                first = number * chunk
                last = min(first + chunk, depth)
                values[:] = 0.0
                for k in range(first, last):
                    term = np.float64(a[i, k]) * np.float64(b[k, j])
                    if rounds_product:
                        counter = depth + chunks * lanes + k
                        term = round_counting(
                            term, _NOTHING, product_target, element, counter, k0, k1, counting, counts
                        )
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
