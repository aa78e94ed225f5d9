"""Sequential and chunked matrix products by plain loops, the twins of the register tiles.

All give the same bits where they apply. `gemm_f32` and `gemm_f64` round a float sum and need the
conditions of `numerics.certificate`; `gemm_exact` needs none.
"""

import numpy as np
from numba import njit

from numerics._kernels.random import stream_key
from numerics._kernels.rounding import round_sum

_EXPONENT_64 = np.int64(0x7FF0000000000000)
_SIGN_64 = np.int64(-0x8000000000000000)
_EXPONENT_AND_SIGN_32 = np.int32(-0x00800000)  # 0xFF800000


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
def gemm_exact(a, b, out, chunk, target, seed, stream, first_element):
    """The same for any target and data. Products must be exact in float64.

    The random words of an addition depend on (seed, stream, output element, number of the addition):
    output elements are counted row by row from `first_element` on, products as 0, 1, 2, ..., the outer
    additions of a chunked sum follow from ``depth`` on.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    k0, k1 = stream_key(seed, stream)
    for i in range(rows):
        for j in range(columns):
            element = first_element + i * columns + j
            total = 0.0
            for first in range(0, depth, chunk):
                partial = 0.0
                for k in range(first, min(first + chunk, depth)):
                    term = np.float64(a[i, k]) * np.float64(b[k, j])
                    partial = round_sum(partial, term, target, True, element, k, k0, k1)
                if chunk >= depth:
                    total = partial
                else:
                    total = round_sum(total, partial, target, True, element, depth + first // chunk, k0, k1)
            out[i, j] = total
