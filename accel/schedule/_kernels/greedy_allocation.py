"""Greedy kernels of `accel.schedule.allocation`: rectangles go into their lowest holes, one after another.

Rectangle ``j`` is live in ``[start[j], end[j])`` and is ``size[j]`` high.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def place_in_order(order, start, end, size, capacity, offset, by_offset):
    """Put each rectangle into its lowest hole; those that find none get offset -1. Count of these."""
    placed = 0
    failed = 0
    for j in order:
        low = 0
        for q in range(placed):
            k = by_offset[q]
            if start[k] < end[j] and start[j] < end[k]:
                if offset[k] - low >= size[j]:
                    break
                low = max(low, offset[k] + size[k])
        if low + size[j] > capacity:
            offset[j] = -1
            failed += 1
            continue
        offset[j] = low
        q = placed
        while q > 0 and offset[by_offset[q - 1]] > low:
            by_offset[q] = by_offset[q - 1]
            q -= 1
        by_offset[q] = j
        placed += 1
    return failed


@njit(cache=True, nogil=True)
def place_greedily(orders, start, end, size, capacity, rounds, offset):
    """Lowest holes by each of `orders`; then those of the first that failed move forward, in `rounds`.

    Whether all were placed; `offset` then holds the placement.
    """
    n = start.size
    by_offset = np.empty(n, np.int64)
    for i in range(orders.shape[0]):
        if place_in_order(orders[i], start, end, size, capacity, offset, by_offset) == 0:
            return True
    order = orders[0].copy()
    for _ in range(rounds):
        if place_in_order(order, start, end, size, capacity, offset, by_offset) == 0:
            return True
        for p in range(n):
            j = order[p]
            if offset[j] < 0:
                for q in range(p, p // 2, -1):
                    order[q] = order[q - 1]
                order[p // 2] = j
    return False
