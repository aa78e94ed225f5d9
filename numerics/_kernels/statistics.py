"""What a rounding did to an array, summed up over elements spread over it."""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

RUN = 64  # neighbours that are looked at together

(
    ELEMENTS,
    AMAX,
    NONZERO_BEFORE,
    NONZERO,
    UNDERFLOW,
    SATURATION,
    OVERFLOW,
    NONFINITE,
    COMPARED,
    SIGNAL,
    NOISE,
    ERROR,
    ABSOLUTE_ERROR,
    MAGNITUDE,
    TOTALS,
) = range(15)

_EXPONENT = np.int32(0x7F800000)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_EXPONENT_AND_SIGN = np.int32(-0x00800000)  # 0xFF800000


@njit(cache=True)
def scatter(number, salt):
    """32 bits that look random, of a place and of a salt below ``2**32``."""
    x = (np.int64(number) * 0x9E3779B1 + np.int64(salt)) & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return x ^ (x >> 16)


@njit(cache=True)
def places(count, size, salt):
    """Ascending indices below `size`: one anywhere in each of `count` equal parts."""
    found = np.empty(count, np.int64)
    for part in range(count):
        first, last = part * size // count, (part + 1) * size // count
        found[part] = first + scatter(part, salt) % (last - first)
    return found


@njit(cache=True)
def largest_finite(bits):
    """Largest finite magnitude of the float32 numbers of which these are the patterns, (n,) int32."""
    largest = np.int32(0)
    for i in range(bits.shape[0]):
        magnitude = bits[i] & _MAGNITUDE
        magnitude = magnitude if magnitude < _EXPONENT else np.int32(0)
        largest = magnitude if magnitude > largest else largest
    return np.int32(largest).view(np.float32)


@njit(cache=True)
def _look(x, q, scales, low, high, kept, difference, totals):
    """Count a run of elements; keep the finite ones, and what they became less what they were."""
    nonzero_before, nonzero, underflow, saturation, overflow, nonfinite, compared = 0, 0, 0, 0, 0, 0, 0
    for i in range(x.shape[0]):
        scale, value, rounded = scales[i], np.float64(x[i]), np.float64(q[i])
        before, after = abs(value) < np.inf, abs(rounded) < np.inf
        both = before & after
        nonzero_before += value != 0.0
        nonzero += rounded != 0.0
        underflow += (value != 0.0) & (rounded == 0.0)
        saturation += before & ((value < low * scale) | (value > high * scale))
        overflow += before & (not after)
        nonfinite += not after
        compared += both
        kept[i] = value if both else 0.0
        difference[i] = rounded * scale - value if both else 0.0
    totals[ELEMENTS] += x.shape[0]
    totals[NONZERO_BEFORE] += nonzero_before
    totals[NONZERO] += nonzero
    totals[UNDERFLOW] += underflow
    totals[SATURATION] += saturation
    totals[OVERFLOW] += overflow
    totals[NONFINITE] += nonfinite
    totals[COMPARED] += compared


@njit(cache=True)
def _add_powers(x, squares, magnitudes):
    """Add squares and magnitudes of a run of elements, each to its own sum: this order vectorises."""
    for i in range(x.shape[0]):
        squares[i] += x[i] * x[i]
        magnitudes[i] += abs(x[i])


@njit(cache=True)
def _add_to(x, sums):
    for i in range(x.shape[0]):
        sums[i] += x[i]


@njit(cache=True)
def compare(x, q, inverse, low, high, runs, salt, totals):
    """Add to `totals` what became of the elements of `x`, (n,), in ``q * inverse``.

    Looked at are runs of `RUN` neighbours, one anywhere in each of `runs` equal parts of the array; with no
    runs, all elements. `inverse` has one inverse scale, or that of each element; the limits are ``low`` and
    ``high`` times it, NaN where there are none. The sums of errors go over elements finite on both sides.
    """
    size = x.shape[0]
    kept, difference = np.empty(RUN, np.float64), np.empty(RUN, np.float64)
    signal, noise = np.zeros(RUN, np.float64), np.zeros(RUN, np.float64)
    error, absolute = np.zeros(RUN, np.float64), np.zeros(RUN, np.float64)
    magnitude = np.zeros(RUN, np.float64)
    scales = np.full(RUN, np.float64(inverse[0]))
    for run in range(runs if runs > 0 else (size + RUN - 1) // RUN):
        start = run * RUN
        if runs > 0:
            start, last = run * size // runs, (run + 1) * size // runs
            start += scatter(run, salt) % (last - start - RUN + 1)
        count = min(RUN, size - start)
        if inverse.shape[0] > 1:
            for i in range(count):
                scales[i] = inverse[start + i]
        end = start + count
        _look(x[start:end], q[start:end], scales, low, high, kept, difference, totals)
        _add_powers(kept[:count], signal, magnitude)
        _add_powers(difference[:count], noise, absolute)
        _add_to(difference[:count], error)
    for i in range(RUN):
        totals[SIGNAL] += signal[i]
        totals[NOISE] += noise[i]
        totals[ERROR] += error[i]
        totals[ABSOLUTE_ERROR] += absolute[i]
        totals[MAGNITUDE] += magnitude[i]


@njit(cache=True)
def _add_terms(terms, totals, swamped, lift):
    """Add each term to its sum, rounded as by `numerics._kernels.loops.gemm_f32`; count what left it."""
    for i in range(terms.shape[0]):
        before, term = totals[i], terms[i]
        x = np.float32(before + term)
        s = np.int32(np.float32(x).view(np.int32) & _EXPONENT_AND_SIGN).view(np.float32) * lift
        after = np.float32(x + s) - s
        totals[i] = after
        swamped[i] += np.int32(1) if (after == before) & (term != np.float32(0.0)) else np.int32(0)


@njit(cache=True)
def count_swamped(a, b, chunk, frac_bits):
    """Additions that left a sum as it was, of ``a @ b.T`` in chunks, to nearest even.

    For contiguous (m, k) and (n, k) of which `numerics.certificate` allows float32: products are exact, and
    no sum underflows or overflows.
    """
    (rows, depth), columns = a.shape, b.shape[0]
    terms = np.empty((depth, rows * columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            for k in range(depth):
                terms[k, i * columns + j] = a[i, k] * b[j, k]
    lift = np.float32(2.0 ** (23 - frac_bits))
    swamped = np.zeros(rows * columns, np.int32)
    totals = np.zeros(rows * columns, np.float32)
    partial = np.zeros(rows * columns, np.float32)
    for first in range(0, depth, chunk):
        partial[:] = np.float32(0.0)
        for k in range(first, min(first + chunk, depth)):
            _add_terms(terms[k], partial, swamped, lift)
        if chunk < depth:
            _add_terms(partial, totals, swamped, lift)
    return swamped.sum()


@njit(cache=True)
def _count_nonzero(x, counts):
    for i in range(x.shape[0]):
        counts[i] += np.int32(1) if x[i] != np.float32(0.0) else np.int32(0)


@njit(cache=True)
def nonzero_products(a, b):
    """Products of ``a @ b.T`` that are not zero; (m, k) and (n, k)."""
    depth = a.shape[1]
    left, right = np.zeros(depth, np.int32), np.zeros(depth, np.int32)
    for i in range(a.shape[0]):
        _count_nonzero(a[i], left)
    for j in range(b.shape[0]):
        _count_nonzero(b[j], right)
    found = 0
    for k in range(depth):
        found += left[k] * right[k]
    return found
