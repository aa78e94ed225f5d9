"""Complete search of `accel.schedule.allocation`: rectangles of fixed times get offsets below a capacity.

Arrays are those of `accel.schedule._kernels.allocation`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accel.schedule._kernels.allocation import (
    EFFORT,
    FAILED_SECTION,
    FAR,
    INFEASIBLE,
    LIMIT,
    NODES,
    PLACED,
    STAMP,
    TRAIL,
    begin,
    forget,
    go_back,
    inlined,
    inner,
    postpone,
    propagate,
    put,
)

LOWEST, TIGHTEST, FEWEST, FEWEST_BLAMED = range(4)  # rules by which `search` picks its next rectangle

_ITEM, _BRANCH, _TRAIL_AT, _PLACED_AT, _PENDING_AT, _PARENT, _FIRST, _LAST, _TOP, _KEY = range(
    10
)  # of a level


@inlined
def _mixed(j, low):
    """Sixty-four well-mixed bits of a rectangle and its lowest offset."""
    x = (np.uint64(j) << np.uint64(44)) ^ np.uint64(low)
    x = (x ^ (x >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@inner
def _grown(rows, needed):
    """`rows`, with room for at least `needed` of them."""
    if needed <= rows.shape[0]:
        return rows
    larger = np.empty((max(2 * rows.shape[0], needed), rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            larger[i, k] = rows[i, k]
    return larger


@inlined
def _is_before(low, rank, j, k):
    return k < 0 or low[j] < low[k] or (low[j] == low[k] and rank[j] < rank[k])


@inner
def _choose(problem, state, items, rank, rule, blame):
    """An unplaced rectangle of `items` that nothing else fits under."""
    low, size, live = state.low, problem.size, state.live
    best = -1
    if rule == LOWEST:
        for j in items:
            if _is_before(low, rank, j, best):
                best = j
        return best
    # The lowest rectangle of the section that failed last, as long as it is not done, so that what is to
    # blame is found at once; else of the one that has least room, or least choice for its lowest place.
    least = np.inf
    section = -1
    end = 0
    for j in items:
        end = max(end, problem.end[j])
    for s in range(problem.start[items[0]], end):
        first = problem.live_at[s]
        last = first + state.unplaced[s]
        lowest = FAR
        for q in range(first, last):
            lowest = min(lowest, low[live[q]])
        highest = problem.capacity - state.rest[s]
        key = float(highest - lowest)
        if rule != TIGHTEST:
            key /= problem.capacity
            for q in range(first, last):
                key += low[live[q]] <= highest
            if rule == FEWEST_BLAMED:
                key /= blame[s]
        if s == state.counter[FAILED_SECTION]:
            key = -1.0
        if key < least:
            least = key
            section = s
    for q in range(problem.live_at[section], problem.live_at[section] + state.unplaced[section]):
        if _is_before(low, rank, live[q], best):
            best = live[q]
    while True:  # go down to one that nothing fits under
        below = -1
        for q in range(problem.near_at[best], problem.near_at[best + 1]):
            k = problem.near[q]
            if not state.is_placed[k] and low[k] + size[k] <= low[best] and _is_before(low, rank, k, below):
                below = k
        if below < 0:
            return best
        best = below


@njit(cache=True, nogil=True)
def search(problem, low, rank, rule, limit, stop, failed, blame, counts):
    """Depth-first search for offsets: INFEASIBLE, PLACED or LIMIT.

    A node holds a part of the unplaced rectangles that meets no other part. One that nothing fits under
    is put at its lowest offset or, in the second branch, on top of another. A part that fails goes back
    to the node that cut it off. What remains to be done depends on the lowest offsets of a part alone:
    `failed` remembers those that failed, for later searches too.

    Parameters
    ----------
    low : (n,)
        Lower bounds of the offsets on entry, the offsets if placed.
    rank
        Order in which rectangles of equal offsets are tried.
    limit
        Most evaluations of sections.
    stop
        The search ends soon after its first element is not 0.
    failed : (power of two,)
        Hashes of failed parts; 0 is empty.
    blame : (sections,)
        Failures of each section, counted on.
    counts : (3,)
        Nodes and evaluations, added to; the section that failed last, or -1.
    """
    n = low.size
    state = begin(problem, low)
    counter = state.counter
    counter[FAILED_SECTION] = counts[2]
    mask = np.uint64(failed.size - 1)
    one = np.uint64(1)
    trail = np.empty((4 * n + 64, 2), np.int64)
    levels = np.empty((n + 64, 10), np.int64)
    pending = np.empty((n + 64, 3), np.int64)
    items = np.empty((8 * n + 64, 1), np.int64)
    placed = np.empty(n, np.int64)
    placed_count = 0
    pending_count = 0
    depth = 0
    parent = -1
    first, last, top = 0, n, n
    for j in range(n):
        items[j, 0] = j
    status = propagate(problem, state, trail, blame, limit, stop)
    while status == PLACED:
        # Cut what is left of the part into parts that do not meet.
        items = _grown(items, top + last - first)
        reach = np.int64(-1)
        first_of_part = top
        for q in range(first, last):
            j = items[q, 0]
            if state.is_placed[j]:
                continue
            if top > first_of_part and problem.start[j] >= reach:
                pending = _grown(pending, pending_count + 1)
                pending[pending_count, 0] = first_of_part
                pending[pending_count, 1] = top
                pending[pending_count, 2] = parent
                pending_count += 1
                first_of_part = top
            items[top, 0] = j
            top += 1
            reach = max(reach, problem.end[j])
        if top > first_of_part:
            pending = _grown(pending, pending_count + 1)
            pending[pending_count, 0] = first_of_part
            pending[pending_count, 1] = top
            pending[pending_count, 2] = parent
            pending_count += 1
        if pending_count == 0:
            break
        # Open the node of the next part, or fail.
        pending_count -= 1
        first = pending[pending_count, 0]
        last = pending[pending_count, 1]
        parent = pending[pending_count, 2]
        counter[NODES] += 1
        key = np.uint64(0)
        for q in range(first, last):
            key += _mixed(items[q, 0], low[items[q, 0]])
        key = max(key, one)
        has_failed = failed[key & mask] == key or failed[(key & mask) ^ one] == key
        if not has_failed:
            levels = _grown(levels, depth + 1)
            item = _choose(problem, state, items[first:last, 0], rank, rule, blame)
            level = levels[depth]
            level[_ITEM] = item
            level[_BRANCH] = 0
            level[_TRAIL_AT] = counter[TRAIL]
            level[_PLACED_AT] = placed_count
            level[_PENDING_AT] = pending_count
            level[_PARENT] = parent
            level[_FIRST] = first
            level[_LAST] = last
            level[_TOP] = top
            level[_KEY] = np.int64(key)
            parent = depth
            depth += 1
        # Try the branches of `parent` and of the nodes before it until one is consistent.
        is_new = not has_failed
        while True:
            if not is_new:
                if parent < 0:
                    status = INFEASIBLE
                    break
                level = levels[parent]
                depth = parent + 1
                placed_count = go_back(
                    problem, state, trail, level[_TRAIL_AT], placed, placed_count, level[_PLACED_AT]
                )
                pending_count = level[_PENDING_AT]
                top = level[_TOP]
                level[_BRANCH] += 1
                if level[_BRANCH] > 1:
                    key = np.uint64(level[_KEY])
                    place = key & mask
                    failed[place if failed[place] == 0 else place ^ one] = key
                    parent = level[_PARENT]
                    continue
            is_new = False
            level = levels[parent]
            trail = _grown(trail, counter[TRAIL] + n)
            counter[STAMP] += 1
            j = level[_ITEM]
            if level[_BRANCH] == 0:
                placed[placed_count] = j
                placed_count += 1
                is_open, has_moved = put(problem, state, trail, blame, j)
                if not has_moved:
                    level[_BRANCH] = 1  # it is in nobody's way: no need to try it elsewhere
            else:
                is_open = postpone(problem, state, trail, j)
            if not is_open:
                forget(state)
                continue
            outcome = propagate(problem, state, trail, blame, limit, stop)
            if outcome == LIMIT:
                status = LIMIT
            if outcome != INFEASIBLE:
                break
        if status == PLACED:
            first = levels[parent, _FIRST]
            last = levels[parent, _LAST]
    counts[0] += counter[NODES]
    counts[1] += counter[EFFORT]
    counts[2] = counter[FAILED_SECTION]
    return status
