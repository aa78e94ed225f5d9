"""Sums in an integer register that clamps or wraps after every addition.

Operands are scaled so that products count in units of the register. `gemm_clamped` adds them in float32
or float64, whichever the operands have, and needs every product and sum to be an integer that it holds;
`gemm_wide` adds in 64-bit integers and needs nothing of the sums.
"""
# mypy: disable-error-code="no-untyped-def,no-untyped-call"

import numpy as np
from numba import njit

from numerics._kernels.rounding import DOWN, NEAREST_AWAY, NEAREST_EVEN, TOWARD_ZERO, UP

INTEGERS = -1  # instead of a mode: products are integers as they are
_BLOCK = 512  # columns per pass: a row of registers stays in the first-level cache


@njit(cache=True)
def round_row(x, mode):
    """Round floats to integers in place; a loop for each mode, so that each vectorises."""
    if mode == NEAREST_EVEN:
        for j in range(x.shape[0]):
            x[j] = np.rint(x[j])
    elif mode == NEAREST_AWAY:
        for j in range(x.shape[0]):
            cut = np.trunc(x[j])
            rest = x[j] - cut
            x[j] = cut + np.trunc(rest + rest)
    elif mode == TOWARD_ZERO:
        for j in range(x.shape[0]):
            x[j] = np.trunc(x[j])
    elif mode == DOWN:
        for j in range(x.shape[0]):
            x[j] = np.floor(x[j])
    elif mode == UP:
        for j in range(x.shape[0]):
            x[j] = np.ceil(x[j])
    else:  # to odd
        half = x.dtype.type(0.5)
        for j in range(x.shape[0]):
            below = np.floor(x[j])
            even = below * half == np.floor(below * half)
            x[j] = np.ceil(x[j]) if even else below  # an even integer is its own ceiling


@njit(cache=True, nogil=True)
def gemm_clamped(a, b, out, mode, chunk, ends, outer_ends):
    """``out = a @ b``, every sum clamped to its register: between two ends.

    `a`, `b` and `out` are of one float type. Without chunks (0) there is no outer register. Lanes run
    over the columns of `b`.
    """
    low, high = out.dtype.type(ends[0]), out.dtype.type(ends[1])
    outer_low, outer_high = out.dtype.type(outer_ends[0]), out.dtype.type(outer_ends[1])
    rows, depth = a.shape
    columns = b.shape[1]
    single = chunk == 0
    length = depth if single else chunk
    registers = np.empty(_BLOCK, a.dtype)
    rounded = np.empty(_BLOCK, a.dtype)
    for start in range(0, columns, _BLOCK):
        width = min(_BLOCK, columns - start)
        products = rounded[:width]
        for i in range(rows):
            total = out[i, start : start + width]
            total[:] = 0.0
            sums = total if single else registers[:width]
            for first in range(0, depth, length):
                sums[:] = 0.0
                for k in range(first, min(first + length, depth)):
                    scale = a[i, k]
                    row = b[k, start : start + width]
                    if mode == INTEGERS:
                        for j in range(width):
                            x = sums[j] + scale * row[j]
                            x = low if x < low else x
                            sums[j] = high if x > high else x
                    else:
                        for j in range(width):
                            products[j] = scale * row[j]
                        round_row(products, mode)
                        for j in range(width):
                            x = sums[j] + products[j]
                            x = low if x < low else x
                            sums[j] = high if x > high else x
                if not single:
                    for j in range(width):
                        x = total[j] + sums[j]
                        x = outer_low if x < outer_low else x
                        total[j] = outer_high if x > outer_high else x
    return 0


@njit(cache=True)
def _add(x, y, bits, saturates):
    """(``x + y`` in a register of `bits`, whether it was out of range), all in two's complement."""
    total = x + y  # modulo 2**64
    high = np.int64(0x7FFFFFFFFFFFFFFF) >> (64 - bits)
    carries = ((x ^ total) & (y ^ total)) < 0
    beyond = carries or total > high or total < ~high
    if beyond:
        if saturates:
            total = high if y > 0 else ~high
        else:
            total = (total << (64 - bits)) >> (64 - bits)
    return total, beyond


@njit(cache=True, nogil=True)
def gemm_wide(a, b, out, mode, chunk, bits, outer_bits, saturates):
    """The same for registers of up to 64 bits that clamp or wrap; returns how often they did.

    `a` and `b` hold int64, or float64 whose products are exact and rounded by `mode`; products are
    below 2**63. Numbers of bits are int64.
    """
    rows, depth = a.shape
    columns = b.shape[1]
    single = chunk == 0
    length = depth if single else chunk
    registers = np.empty(columns, np.int64)
    rounded = np.empty(columns, np.float64)
    events = np.int64(0)
    for i in range(rows):
        total = out[i]
        total[:] = 0
        sums = total if single else registers
        for first in range(0, depth, length):
            sums[:] = 0
            for k in range(first, min(first + length, depth)):
                if mode == INTEGERS:
                    for j in range(columns):
                        sums[j], beyond = _add(sums[j], np.int64(a[i, k] * b[k, j]), bits, saturates)
                        events += beyond
                else:
                    for j in range(columns):
                        rounded[j] = a[i, k] * b[k, j]
                    round_row(rounded, mode)
                    for j in range(columns):
                        sums[j], beyond = _add(sums[j], np.int64(rounded[j]), bits, saturates)
                        events += beyond
            if not single:
                for j in range(columns):
                    total[j], beyond = _add(total[j], sums[j], outer_bits, saturates)
                    events += beyond
    return events
