"""Kernels of `accel.schedule.allocation`: what the rectangles above force on each other.

Rectangle ``j`` is live in the sections ``start[j] .. end[j] - 1`` and is ``size[j]`` high. Lists that come
in pairs ``x_at, x`` are lists by rectangle or section: those of ``i`` are ``x[x_at[i] : x_at[i + 1]]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

INFEASIBLE, PLACED, LIMIT = range(3)  # what `propagate` and `search` return
FAR = np.int64(1) << np.int64(62)

# What kernels alone call: without the wrappers for Python, which take long to compile. What is called at
# every step is inlined: passing the many arrays costs more than the work.
inner = njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(nogil=True, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)

# Fields of `State.counter`.
HEAD, QUEUED, WAITING, EFFORT, TRAIL, STAMP, NODES, FAILED_SECTION = range(8)


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


class State(NamedTuple):
    """What changes during a search.

    ``live`` and ``slot`` keep the unplaced in front of each section, ``unplaced`` and ``rest`` their number
    and the sum of their sizes. Sections in ``queue`` are to be evaluated, those in ``waiting`` to be
    evaluated again by the slower rules; ``row`` is room to sort the unplaced of one section.
    """

    low: NDArray[np.int64]
    is_placed: NDArray[np.bool_]
    live: NDArray[np.int64]
    slot: NDArray[np.int64]
    unplaced: NDArray[np.int64]
    rest: NDArray[np.int64]
    queue: NDArray[np.int64]
    is_queued: NDArray[np.bool_]
    waiting: NDArray[np.int64]
    is_waiting: NDArray[np.bool_]
    stamp: NDArray[np.int64]
    row: NDArray[np.int64]
    counter: NDArray[np.int64]


@inner
def begin(problem, low):
    """State with nothing placed, offsets at least `low`, and every section queued."""
    sections = problem.live_at.size - 1
    count = problem.live_at[1:] - problem.live_at[:-1]
    most = np.int64(0)
    rest = np.zeros(sections, np.int64)
    for s in range(sections):
        most = max(most, count[s])
        for q in range(problem.live_at[s], problem.live_at[s + 1]):
            rest[s] += problem.size[problem.live[q]]
    counter = np.zeros(8, np.int64)
    counter[QUEUED] = sections
    counter[STAMP] = 1
    counter[FAILED_SECTION] = -1
    return State(
        low,
        np.zeros(low.size, np.bool_),
        problem.live.copy(),
        problem.slot.copy(),
        count,
        rest,
        np.arange(sections),
        np.ones(sections, np.bool_),
        np.empty(sections, np.int64),
        np.zeros(sections, np.bool_),
        np.zeros(low.size, np.int64),
        np.empty(3 * most, np.int64),
        counter,
    )


@inlined
def ask(problem, state, j):
    """Queue the sections of rectangle `j`."""
    counter, queue = state.counter, state.queue
    for s in range(problem.start[j], problem.end[j]):
        if not state.is_queued[s]:
            state.is_queued[s] = True
            at = counter[HEAD] + counter[QUEUED]
            queue[at if at < queue.size else at - queue.size] = s
            counter[QUEUED] += 1


@inlined
def raise_low(problem, state, trail, j, to):
    """Raise the lowest offset of `j`, and of its twins above it; whether it still fits."""
    low, counter = state.low, state.counter
    while True:
        if to + problem.size[j] > problem.capacity:
            return False
        if state.stamp[j] != counter[STAMP]:  # one entry a branch is enough to go back
            state.stamp[j] = counter[STAMP]
            trail[counter[TRAIL], 0] = j
            trail[counter[TRAIL], 1] = low[j]
            counter[TRAIL] += 1
        low[j] = to
        ask(problem, state, j)
        to += problem.size[j]
        j = problem.twin[j]
        if j < 0 or state.is_placed[j] or low[j] >= to:
            return True


@inner
def forget(state):
    """Empty the queues."""
    counter = state.counter
    for _ in range(counter[QUEUED]):
        state.is_queued[state.queue[counter[HEAD]]] = False
        counter[HEAD] = (counter[HEAD] + 1) % state.queue.size
    counter[QUEUED] = 0
    for i in range(counter[WAITING]):
        state.is_waiting[state.waiting[i]] = False
    counter[WAITING] = 0


@inner
def _evaluate(problem, state, trail, s):
    """Rules by the lowest offset of section `s`; whether they hold.

    All that is still to be placed lies above the lowest ``low``; so that one plus the rest must not exceed
    the capacity, and a rectangle above which the rest would not fit is not the first: it lies on top of
    another one.
    """
    low, size, live = state.low, problem.size, state.live
    first = problem.live_at[s]
    last = first + state.unplaced[s]
    lowest = FAR
    top = FAR
    second_top = FAR
    top_of = np.int64(-1)
    highest_low = np.int64(0)
    for q in range(first, last):
        k = live[q]
        lowest = min(lowest, low[k])
        highest_low = max(highest_low, low[k])
        above = low[k] + size[k]
        if above < top:
            second_top = top
            top = above
            top_of = k
        elif above < second_top:
            second_top = above
    highest = problem.capacity - state.rest[s]
    if last > first and lowest > highest:
        return False
    if last == first or highest_low <= highest:
        return True
    if not state.is_waiting[s]:
        state.is_waiting[s] = True
        state.waiting[state.counter[WAITING]] = s
        state.counter[WAITING] += 1
    for q in range(first, last):
        k = live[q]
        if low[k] > highest:
            to = second_top if k == top_of else top
            if to > low[k] and not raise_low(problem, state, trail, k, to):
                return False
    return True


@inner
def _evaluate_sets(problem, state, trail, s):
    """The same two rules for parts of what section `s` still has to place; whether they hold.

    In order of their lowest offsets, one on top of another, they must not exceed the capacity. And if
    those that cannot end below some height do not fit above rectangle ``k``, one of them is under it,
    so that ``k`` is at least that high.
    """
    low, size, live, row = state.low, problem.size, state.live, state.row
    first = problem.live_at[s]
    count = state.unplaced[s]
    most = row.size // 3
    for i in range(count):
        k = live[first + i]
        p = i
        while p > 0 and low[row[p - 1]] > low[k]:
            row[p] = row[p - 1]
            p -= 1
        row[p] = k
    top = np.int64(0)
    for i in range(count):
        top = max(top, low[row[i]]) + size[row[i]]
    if top > problem.capacity:
        return False
    for i in range(count):  # by the lowest ends, the highest first
        k = live[first + i]
        end = low[k] + size[k]
        p = i
        while p > 0 and row[most + p - 1] < end:
            row[p] = row[p - 1]
            row[most + p] = row[most + p - 1]
            p -= 1
        row[p] = k
        row[most + p] = end
    together = np.int64(0)
    for i in range(count):
        together += size[row[i]]
        row[2 * most + i] = together
    highest = problem.capacity - state.rest[s]
    for i in range(count - 1, -1, -1):
        k = row[i]
        if low[k] <= highest:
            continue
        room = problem.capacity - low[k] - size[k]
        at, beyond = 0, count  # the fewest that do not fit above `k`, itself apart
        while at < beyond:
            middle = (at + beyond) // 2
            if row[2 * most + middle] - (size[k] if middle >= i else 0) > room:
                beyond = middle
            else:
                at = middle + 1
        to = row[most + at] if at < count and at != i else low[k]
        if to > low[k] and not raise_low(problem, state, trail, k, to):
            return False
    return True


@inner
def propagate(problem, state, trail, blame, limit, stop):
    """Evaluate queued sections until nothing changes: PLACED if consistent. The queues are empty then."""
    counter = state.counter
    status = PLACED
    while status == PLACED and counter[QUEUED] + counter[WAITING] > 0:
        if counter[QUEUED] > 0:
            s = state.queue[counter[HEAD]]
            counter[HEAD] += 1
            if counter[HEAD] == state.queue.size:
                counter[HEAD] = 0
            counter[QUEUED] -= 1
            state.is_queued[s] = False
            counter[EFFORT] += 1
            holds = _evaluate(problem, state, trail, s)
        else:
            counter[WAITING] -= 1
            s = state.waiting[counter[WAITING]]
            state.is_waiting[s] = False
            counter[EFFORT] += 2
            holds = _evaluate_sets(problem, state, trail, s)
        if not holds:
            blame[s] += 1.0
            counter[FAILED_SECTION] = s
            status = INFEASIBLE
        elif counter[EFFORT] >= limit or stop[0] != 0:
            status = LIMIT
    forget(state)
    return status


@inner
def put(problem, state, trail, blame, j):
    """Place `j` at its lowest offset, all others above it; whether they can be, and whether any moved."""
    live, slot, low = state.live, state.slot, state.low
    state.is_placed[j] = True
    for s in range(problem.start[j], problem.end[j]):
        state.unplaced[s] -= 1
        state.rest[s] -= problem.size[j]
        here = slot[problem.slot_at[j] + s - problem.start[j]]
        last = problem.live_at[s] + state.unplaced[s]
        k = live[last]
        live[last] = j
        live[here] = k
        slot[problem.slot_at[j] + s - problem.start[j]] = last
        slot[problem.slot_at[k] + s - problem.start[k]] = here
    top = low[j] + problem.size[j]
    has_moved = False
    for q in range(problem.near_at[j], problem.near_at[j + 1]):
        k = problem.near[q]
        if not state.is_placed[k] and low[k] < top:
            has_moved = True
            if not raise_low(problem, state, trail, k, top):
                s = max(problem.start[j], problem.start[k])
                blame[s] += 1.0
                state.counter[FAILED_SECTION] = s
                return False, True
    ask(problem, state, j)
    return True, has_moved


@inner
def postpone(problem, state, trail, j):
    """Let `j` not lie at its lowest offset, hence on top of another one; whether it can."""
    to = FAR
    for q in range(problem.near_at[j], problem.near_at[j + 1]):
        k = problem.near[q]
        if not state.is_placed[k]:
            to = min(to, state.low[k] + problem.size[k])
    return to < FAR and raise_low(problem, state, trail, j, to)


@inner
def go_back(problem, state, trail, trail_to, placed, placed_count, placed_to):
    """Undo what came after the first `trail_to` entries and `placed_to` placed; how many remain placed."""
    counter = state.counter
    while counter[TRAIL] > trail_to:
        counter[TRAIL] -= 1
        state.low[trail[counter[TRAIL], 0]] = trail[counter[TRAIL], 1]
    while placed_count > placed_to:
        placed_count -= 1
        j = placed[placed_count]
        state.is_placed[j] = False
        for s in range(problem.start[j], problem.end[j]):
            state.unplaced[s] += 1
            state.rest[s] += problem.size[j]
    return placed_count
