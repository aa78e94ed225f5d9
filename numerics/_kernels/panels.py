"""Operands packed for the register tiles.

`a` comes in panels of rows, (k, rows) each: panel t has the rows ``starts[t] .. starts[t + 1] - 1``. `b`
comes in panels of one vector of columns, (k, lanes) each, padded with zeros.
"""

import numpy as np
from numba import njit

from numerics._kernels.vectors import LANES_32

_DEPTH = 256  # of rows of `a` packed at a time: the panel stays in the first-level cache
_ROWS = 64  # of `b` packed at a time: they are read in the order of memory


@njit(cache=True, nogil=True)
def pack_rows(a, out, starts):
    """Pack (m, k) into panels of rows; `out` is flat, m * k."""
    depth = a.shape[1]
    for t in range(starts.shape[0] - 1):
        first, height = starts[t], starts[t + 1] - starts[t]
        step = np.uint64(height)
        for start in range(0, depth, _DEPTH):
            width = min(_DEPTH, depth - start)
            panel = out[first * depth + start * height :]
            for i in range(height):
                to = np.uint64(i)
                for k in range(start, start + width):
                    panel[to] = a[first + i, k]
                    to += step


@njit(cache=True, nogil=True)
def pack_columns(b, out):
    """Pack (k, n) into out, (panels, k, lanes)."""
    depth, columns = b.shape
    lanes = out.shape[2]
    whole = columns // LANES_32
    for start in range(0, depth, _ROWS):
        end = min(start + _ROWS, depth)
        for p in range(whole):
            for k in range(start, end):
                for j in range(LANES_32):  # a constant number of turns becomes one vector
                    out[p, k, j] = b[k, p * LANES_32 + j]
    for p in range(whole, out.shape[0]):
        for k in range(depth):
            for j in range(lanes):
                column = p * lanes + j
                out[p, k, j] = b[k, column] if column < columns else np.float32(0.0)


@njit(cache=True, nogil=True)
def pack_columns_along_k(b, out):
    """The same for an operand that is contiguous along k."""
    depth, columns = b.shape
    lanes = out.shape[2]
    for p in range(out.shape[0]):
        panel = out[p]
        for j in range(lanes):
            column = p * lanes + j
            for k in range(depth):
                panel[k, j] = b[k, column] if column < columns else np.float32(0.0)
