"""Operands packed for the register tiles.

`a` comes in panels of `height` rows, then of 4, 2, 1 for the rest, (k, rows) each; `b` in panels of one
vector of columns, (k, lanes) each, padded with zeros.
"""

import numpy as np
from numba import njit

from numerics._kernels.vectors import LANES_32


@njit(cache=True, nogil=True)
def lower(height):
    """Height of the panels that follow those of `height` rows."""
    return 4 if height > 4 else height // 2


@njit(cache=True, nogil=True)
def height_at(first, rows, height):
    """Height of the panel that begins at row `first` of `rows`, the tallest one `height`."""
    while first + height > rows:
        height = lower(height)
    return height


@njit(cache=True, nogil=True)
def pack_rows(a, out, height):
    """Pack (m, k) into panels of at most `height` rows; out is flat, m * k."""
    rows, depth = a.shape
    at, first = 0, 0
    while first < rows:
        height = height_at(first, rows, height)
        panel, step = out[at:], np.uint64(height)
        i = 0
        while i < height:
            to = np.uint64(i)
            if i + 2 <= height:  # two streams at a time: one alone leaves the stores waiting
                row, next_row = a[first + i], a[first + i + 1]
                for k in range(depth):
                    panel[to] = row[k]
                    panel[to + np.uint64(1)] = next_row[k]
                    to += step
                i += 2
            else:
                row = a[first + i]
                for k in range(depth):
                    panel[to] = row[k]
                    to += step
                i += 1
        at += height * depth
        first += height


@njit(cache=True, nogil=True)
def pack_columns(b, out, along_k):
    """Pack (k, n) into out, (panels, k, lanes); `along_k` where `b` is contiguous that way."""
    depth, columns = b.shape
    lanes = out.shape[2]
    for p in range(out.shape[0]):
        width = max(0, min(lanes, columns - p * lanes))
        strip, panel = b[:, p * lanes : p * lanes + width], out[p]
        if along_k:
            for j in range(width):
                for k in range(depth):
                    panel[k, j] = strip[k, j]
        elif width == LANES_32:  # a constant number of turns becomes one vector
            for k in range(depth):
                for j in range(LANES_32):
                    panel[k, j] = strip[k, j]
        else:
            for k in range(depth):
                for j in range(width):
                    panel[k, j] = strip[k, j]
        if width < lanes:
            panel[:, width:] = 0.0
