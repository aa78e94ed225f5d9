"""Kernels of `accel.schedule.allocation`: rectangles of fixed times get offsets below a capacity.

Rectangle ``j`` is live in the sections ``start[j] .. end[j] - 1`` and is ``size[j]`` high. Lists that come
in pairs ``x_at, x`` are lists by rectangle or section: those of ``i`` are ``x[x_at[i] : x_at[i + 1]]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

LOWEST, TIGHTEST, FEWEST, FEWEST_BLAMED = range(4)  # rules by which `search` picks its next rectangle
INFEASIBLE, PLACED, LIMIT = range(3)  # what `search` returns

_FAR = np.int64(1) << np.int64(62)
_HEAD, _QUEUED, _EFFORT, _TRAIL, _STAMP, _NODES = range(6)  # fields of `State.counter`
_ITEM, _BRANCH, _TRAIL_AT, _PLACED_AT, _PENDING_AT, _PARENT, _FIRST, _LAST, _TOP = range(9)  # of a level


class Problem(NamedTuple):
    """Rectangles in the order of their starts, and who meets whom.

    ``near`` are the other rectangles that share a section; ``live`` those of a section; the place of
    rectangle ``j`` in the list of section ``s`` is ``slot[slot_at[j] + s - start[j]]``. ``twin`` is the
    next rectangle of the same sections and size, or -1.
    """

    capacity: int
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    size: NDArray[np.int64]
    near_at: NDArray[np.int64]
    near: NDArray[np.int64]
    live_at: NDArray[np.int64]
    live: NDArray[np.int64]
    slot_at: NDArray[np.int64]
    slot: NDArray[np.int64]
    twin: NDArray[np.int64]


class _State(NamedTuple):
    """What changes during a search; ``live`` and ``slot`` keep the unplaced in front of each section."""

    low: NDArray[np.int64]
    is_placed: NDArray[np.bool_]
    live: NDArray[np.int64]
    slot: NDArray[np.int64]
    count: NDArray[np.int64]
    rest: NDArray[np.int64]
    queue: NDArray[np.int64]
    is_queued: NDArray[np.bool_]
    stamp: NDArray[np.int64]
    counter: NDArray[np.int64]


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
def place_greedily(start, end, size, capacity, rounds, offset):
    """Lowest holes in order of area, size, length and start; then the failed move forward, in `rounds`.

    Whether all were placed; `offset` then holds the placement.
    """
    n = start.size
    by_offset = np.empty(n, np.int64)
    value = np.empty(n, np.float64)
    by_area = np.empty(n, np.int64)
    for key in range(4):
        for j in range(n):
            length = float(end[j] - start[j])
            if key == 0:
                value[j] = -size[j] * length
            elif key == 1:
                value[j] = -size[j]
            elif key == 2:
                value[j] = -length
            else:
                value[j] = start[j]
        order = np.argsort(value, kind="mergesort")
        if place_in_order(order, start, end, size, capacity, offset, by_offset) == 0:
            return True
        if key == 0:
            by_area[:] = order
    order = by_area
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


@njit(cache=True, nogil=True)
def _mixed(j, low):
    """Sixty-four well-mixed bits of a rectangle and its lowest offset."""
    x = (np.uint64(j) << np.uint64(44)) ^ np.uint64(low)
    x = (x ^ (x >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def _grown(rows, needed):
    """`rows`, with room for at least `needed` of them."""
    if needed <= rows.shape[0]:
        return rows
    larger = np.empty((max(2 * rows.shape[0], needed), rows.shape[1]), rows.dtype)
    larger[: rows.shape[0]] = rows
    return larger


@njit(cache=True, nogil=True)
def _ask(problem, state, j):
    """Queue the sections of rectangle `j`."""
    counter = state.counter
    for s in range(problem.start[j], problem.end[j]):
        if not state.is_queued[s]:
            state.is_queued[s] = True
            state.queue[(counter[_HEAD] + counter[_QUEUED]) % state.queue.size] = s
            counter[_QUEUED] += 1


@njit(cache=True, nogil=True)
def _raise(problem, state, trail, j, to):
    """Raise the lowest offset of `j`, and of its twins above it; whether it still fits."""
    low, counter = state.low, state.counter
    while True:
        if to + problem.size[j] > problem.capacity:
            return False
        if state.stamp[j] != counter[_STAMP]:  # one entry a branch is enough to go back
            state.stamp[j] = counter[_STAMP]
            trail[counter[_TRAIL], 0] = j
            trail[counter[_TRAIL], 1] = low[j]
            counter[_TRAIL] += 1
        low[j] = to
        _ask(problem, state, j)
        to += problem.size[j]
        j = problem.twin[j]
        if j < 0 or state.is_placed[j] or low[j] >= to:
            return True


@njit(cache=True, nogil=True)
def _propagate(problem, state, trail, blame, limit, stop):
    """Evaluate queued sections until nothing changes: PLACED if consistent.

    All that is still to be placed in a section lies above its lowest ``low``; so that one plus the rest
    must not exceed the capacity, and a rectangle above which the rest would not fit is not the first:
    it lies on top of another one.
    """
    low, size, live, counter = state.low, problem.size, state.live, state.counter
    status = PLACED
    while counter[_QUEUED] > 0:
        s = state.queue[counter[_HEAD]]
        counter[_HEAD] = (counter[_HEAD] + 1) % state.queue.size
        counter[_QUEUED] -= 1
        state.is_queued[s] = False
        if status != PLACED:
            continue  # empty the queue
        counter[_EFFORT] += 1
        if counter[_EFFORT] >= limit or stop[0] != 0:
            status = LIMIT
            continue
        first = problem.live_at[s]
        last = first + state.count[s]
        if first == last:
            continue
        lowest = _FAR
        top = _FAR
        second_top = _FAR
        top_of = -1
        for q in range(first, last):
            k = live[q]
            lowest = min(lowest, low[k])
            above = low[k] + size[k]
            if above < top:
                second_top = top
                top = above
                top_of = k
            elif above < second_top:
                second_top = above
        highest = problem.capacity - state.rest[s]
        if lowest > highest:
            blame[s] += 1.0
            status = INFEASIBLE
            continue
        for q in range(first, last):
            k = live[q]
            if low[k] > highest:
                to = second_top if k == top_of else top
                if to > low[k] and not _raise(problem, state, trail, k, to):
                    blame[s] += 1.0
                    status = INFEASIBLE
                    break
    return status


@njit(cache=True, nogil=True)
def _put(problem, state, trail, blame, j):
    """Place `j` at its lowest offset, all others above it; whether they can be, and whether any moved."""
    live, slot = state.live, state.slot
    state.is_placed[j] = True
    for s in range(problem.start[j], problem.end[j]):
        state.count[s] -= 1
        state.rest[s] -= problem.size[j]
        here = slot[problem.slot_at[j] + s - problem.start[j]]
        last = problem.live_at[s] + state.count[s]
        k = live[last]
        live[last] = j
        live[here] = k
        slot[problem.slot_at[j] + s - problem.start[j]] = last
        slot[problem.slot_at[k] + s - problem.start[k]] = here
    top = state.low[j] + problem.size[j]
    has_moved = False
    for q in range(problem.near_at[j], problem.near_at[j + 1]):
        k = problem.near[q]
        if not state.is_placed[k] and state.low[k] < top:
            has_moved = True
            if not _raise(problem, state, trail, k, top):
                blame[max(problem.start[j], problem.start[k])] += 1.0
                return False, True
    return True, has_moved


@njit(cache=True, nogil=True)
def _postpone(problem, state, trail, j):
    """Let `j` not lie at its lowest offset, hence on top of another one; whether it can."""
    to = _FAR
    for q in range(problem.near_at[j], problem.near_at[j + 1]):
        k = problem.near[q]
        if not state.is_placed[k]:
            to = min(to, state.low[k] + problem.size[k])
    return _raise(problem, state, trail, j, to)


@njit(cache=True, nogil=True)
def _is_before(state, rank, j, k):
    return k < 0 or state.low[j] < state.low[k] or (state.low[j] == state.low[k] and rank[j] < rank[k])


@njit(cache=True, nogil=True)
def _choose(problem, state, items, rank, rule, blame):
    """An unplaced rectangle of `items` that nothing else fits under."""
    low, size, live = state.low, problem.size, state.live
    best = -1
    if rule == LOWEST:
        for j in items:
            if _is_before(state, rank, j, best):
                best = j
        return best
    # The lowest rectangle of the section that has least room, or least choice for its lowest place.
    least = np.inf
    section = -1
    end = 0
    for j in items:
        end = max(end, problem.end[j])
    for s in range(problem.start[items[0]], end):
        first = problem.live_at[s]
        last = first + state.count[s]
        lowest = _FAR
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
        if key < least:
            least = key
            section = s
    for q in range(problem.live_at[section], problem.live_at[section] + state.count[section]):
        if _is_before(state, rank, live[q], best):
            best = live[q]
    while True:  # go down to one that nothing fits under
        below = -1
        for q in range(problem.near_at[best], problem.near_at[best + 1]):
            k = problem.near[q]
            if not state.is_placed[k] and low[k] + size[k] <= low[best] and _is_before(state, rank, k, below):
                below = k
        if below < 0:
            return best
        best = below


@njit(cache=True, nogil=True)
def _go_back(problem, state, trail, placed, placed_count, level):
    """Undo all since the branch of `level` began; how many remain placed."""
    counter = state.counter
    while counter[_TRAIL] > level[_TRAIL_AT]:
        counter[_TRAIL] -= 1
        state.low[trail[counter[_TRAIL], 0]] = trail[counter[_TRAIL], 1]
    while placed_count > level[_PLACED_AT]:
        placed_count -= 1
        j = placed[placed_count]
        state.is_placed[j] = False
        for s in range(problem.start[j], problem.end[j]):
            state.count[s] += 1
            state.rest[s] += problem.size[j]
    return placed_count


@njit(cache=True, nogil=True)
def _begin(problem, low):
    """State with nothing placed, offsets at least `low`, and every section queued."""
    sections = problem.live_at.size - 1
    state = _State(
        low,
        np.zeros(low.size, np.bool_),
        problem.live.copy(),
        problem.slot.copy(),
        problem.live_at[1:] - problem.live_at[:-1],
        np.zeros(sections, np.int64),
        np.arange(sections),
        np.ones(sections, np.bool_),
        np.zeros(low.size, np.int64),
        np.zeros(6, np.int64),
    )
    for s in range(sections):
        for q in range(problem.live_at[s], problem.live_at[s + 1]):
            state.rest[s] += problem.size[problem.live[q]]
    state.counter[_QUEUED] = sections
    state.counter[_STAMP] = 1
    return state


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
    counts : (2,)
        Nodes and evaluations, added to.
    """
    n = low.size
    state = _begin(problem, low)
    counter = state.counter
    mask = np.uint64(failed.size - 1)
    one = np.uint64(1)
    trail = np.empty((4 * n + 64, 2), np.int64)
    levels = np.empty((n + 64, 9), np.int64)
    keys = np.empty((n + 64, 1), np.uint64)
    pending = np.empty((n + 64, 3), np.int64)
    items = np.empty((8 * n + 64, 1), np.int64)
    placed = np.empty(n, np.int64)
    placed_count = 0
    pending_count = 0
    depth = 0
    parent = -1
    first, last, top = 0, n, n
    items[:n, 0] = np.arange(n)
    status = _propagate(problem, state, trail, blame, limit, stop)
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
                pending = _grown(pending, pending_count + 2)
                pending[pending_count] = (first_of_part, top, parent)
                pending_count += 1
                first_of_part = top
            items[top, 0] = j
            top += 1
            reach = max(reach, problem.end[j])
        if top > first_of_part:
            pending = _grown(pending, pending_count + 2)
            pending[pending_count] = (first_of_part, top, parent)
            pending_count += 1
        if pending_count == 0:
            break
        # Open the node of the next part, or fail.
        pending_count -= 1
        first = pending[pending_count, 0]
        last = pending[pending_count, 1]
        parent = pending[pending_count, 2]
        counter[_NODES] += 1
        key = np.uint64(0)
        for q in range(first, last):
            key += _mixed(items[q, 0], low[items[q, 0]])
        key = max(key, one)
        has_failed = failed[key & mask] == key or failed[(key & mask) ^ one] == key
        if not has_failed:
            levels = _grown(levels, depth + 1)
            keys = _grown(keys, depth + 1)
            item = _choose(problem, state, items[first:last, 0], rank, rule, blame)
            levels[depth] = (
                item, 0, counter[_TRAIL], placed_count, pending_count, parent, first, last, top
            )  # fmt: skip
            keys[depth, 0] = key
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
                placed_count = _go_back(problem, state, trail, placed, placed_count, level)
                pending_count = level[_PENDING_AT]
                top = level[_TOP]
                level[_BRANCH] += 1
                if level[_BRANCH] > 1:
                    key = keys[parent, 0]
                    place = key & mask
                    failed[place if failed[place] == 0 else place ^ one] = key
                    parent = level[_PARENT]
                    continue
            is_new = False
            level = levels[parent]
            trail = _grown(trail, counter[_TRAIL] + n)
            counter[_STAMP] += 1
            j = level[_ITEM]
            if level[_BRANCH] == 0:
                placed[placed_count] = j
                placed_count += 1
                is_open, has_moved = _put(problem, state, trail, blame, j)
                if not has_moved:
                    level[_BRANCH] = 1  # it is in nobody's way: no need to try it elsewhere
                _ask(problem, state, j)
            else:
                is_open = _postpone(problem, state, trail, j)
            if not is_open:
                while counter[_QUEUED] > 0:
                    state.is_queued[state.queue[counter[_HEAD]]] = False
                    counter[_HEAD] = (counter[_HEAD] + 1) % state.queue.size
                    counter[_QUEUED] -= 1
                continue
            outcome = _propagate(problem, state, trail, blame, limit, stop)
            if outcome == LIMIT:
                status = LIMIT
            if outcome != INFEASIBLE:
                break
        if status == PLACED:
            first = levels[parent, _FIRST]
            last = levels[parent, _LAST]
    counts[0] += counter[_NODES]
    counts[1] += counter[_EFFORT]
    return status
