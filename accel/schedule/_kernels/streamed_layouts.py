"""A beam over the layouts of a scratchpad, step by step, guided by what the best plan without addresses adds.

A state is the address of each resident tensor between two steps, -1 if it is not resident. A tensor that
comes in lies at either end of a hole that is large enough. Of all states only the most promising go on:
those with few holes, as many for each amount of room that is free, so that none of the ways to go on is
forgotten. What the beam finds is a plan; that it finds none proves nothing. So here a hash stands for a
state: a mistaken one costs at most a plan that would have been found.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accel.schedule._kernels.streamed_counts import DECIDED, DONE, PAID, RESIDENT, added, mix


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _order(keys):
    """Numbers of the keys, ascending; compiled once."""
    return np.argsort(keys, kind="mergesort")


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _copy(source, s, target, k, active):
    for v in active:
        target[k, v, 0] = source[s, v, 0]
        target[k, v, 1] = source[s, v, 1]


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _blocks(states, s, size, active, blocks):
    """Resident blocks of a state, lowest first, as rows (first, end) of `blocks`; their number."""
    count = 0
    for v in active:
        low = states[s, v, 0]
        if low >= 0:
            k = count
            while k > 0 and blocks[k - 1, 0] > low:
                blocks[k, 0] = blocks[k - 1, 0]
                blocks[k, 1] = blocks[k - 1, 1]
                k -= 1
            blocks[k, 0] = low
            blocks[k, 1] = low + size[v]
            count += 1
    return count


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _narrow(states, cost, count, width, size, active, tag, capacity, scale, blocks):
    """Numbers of the best `width` of the states, without doubles, ascending."""
    slots = 64
    while slots < 2 * count:
        slots *= 2
    bucket = np.full(slots, -1, np.int32)
    seen = np.zeros(count, np.int64)
    kept = np.zeros(count, np.int64)
    n = 0
    for s in range(count):
        h = 0
        for v in active:
            h += mix(mix(tag[v], states[s, v, 1]), states[s, v, 0] + 1)
        slot = h & (slots - 1)
        while bucket[slot] >= 0 and seen[bucket[slot]] != h:
            slot = (slot + 1) & (slots - 1)
        held = bucket[slot]
        if held < 0:
            bucket[slot] = n
            seen[n] = h
            kept[n] = s
            n += 1
        elif cost[s] < cost[kept[held]]:
            kept[held] = s
    if n <= width:
        return kept[:n]
    score = np.zeros(n, np.int64)
    free = np.zeros(n, np.int64)
    for k in range(n):
        m = _blocks(states, kept[k], size, active, blocks)
        low = holes = largest = 0
        for b in range(m + 1):
            high = blocks[b, 0] if b < m else capacity
            if high > low:
                holes += 1
                largest = max(largest, high - low)
                free[k] += high - low
            if b < m:
                low = blocks[b, 1]
        score[k] = cost[kept[k]] + holes * scale + scale * (free[k] - largest) // max(1, free[k])
    # The best of each amount of free room, then the second best of each, and so on.
    by_score = _order(score)
    by_free = by_score[_order(free[by_score])]
    place = np.zeros(n, np.int64)
    for k in range(n):
        place[by_score[k]] = k
    key = np.zeros(n, np.int64)
    rank = 0
    for k in range(n):
        rank = rank + 1 if k > 0 and free[by_free[k]] == free[by_free[k - 1]] else 0
        key[k] = rank * n + place[by_free[k]]
    chosen = np.zeros(n, np.bool_)
    for k in _order(key)[:width]:
        chosen[by_free[k]] = True
    return kept[:n][chosen]


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _within(states, cost, count, active, tag, most, marks, rest):
    """Numbers of the states between two steps from which a plan without addresses ends within `most`."""
    slots = 64
    while slots < 2 * marks.size:
        slots *= 2
    bucket = np.full(slots, -1, np.int32)
    for k in range(marks.size):
        slot = marks[k] & (slots - 1)
        while bucket[slot] >= 0 and marks[bucket[slot]] != marks[k]:
            slot = (slot + 1) & (slots - 1)
        if bucket[slot] < 0 or rest[k] < rest[bucket[slot]]:
            bucket[slot] = k
    found = np.empty(count, np.int64)
    total = 0
    for s in range(count):
        h = 0
        for v in active:
            h += mix(tag[v], states[s, v, 1] | (RESIDENT if states[s, v, 0] >= 0 else 0))
        slot = h & (slots - 1)
        while bucket[slot] >= 0 and marks[bucket[slot]] != h:
            slot = (slot + 1) & (slots - 1)
        if bucket[slot] >= 0 and cost[s] + rest[bucket[slot]] <= most:
            found[total] = s
            total += 1
    return found[:total]


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _decide(
    program, i, phase, area, capacity, most, active, blocks, states, cost, count, coming, coming_cost
):
    """States in `coming` after the decision on use `i`; their number."""
    v = program.owner[i]
    size = program.size
    total = 0
    for s in range(count):
        at = states[s, v, 0]
        drop, keep, dropped, kept = added(
            program, i, phase, states[s, v, 1] | (RESIDENT if at >= 0 else 0), area
        )
        is_choice = states[s, v, 1] & DECIDED == 0 and phase == (1 if at >= 0 else 0)
        if cost[s] + drop <= most and total < coming_cost.size:
            _copy(states, s, coming, total, active)
            if is_choice:
                coming[total, v, 0] = -1
                coming[total, v, 1] = dropped
            coming_cost[total] = cost[s] + drop
            total += 1
        if keep < 0 or cost[s] + keep > most:
            continue
        # Where it lies, or at either end of a hole; both ends of an empty scratchpad are alike.
        m = 0 if at >= 0 else _blocks(states, s, size, active, blocks)
        low = max(at, 0)
        for b in range(m + 1):
            high = blocks[b, 0] if b < m else (low + size[v] if at >= 0 else capacity)
            sides = 1 if high - low == size[v] or m == 0 else 2
            for side in range(sides if high - low >= size[v] else 0):
                if total < coming_cost.size:
                    _copy(states, s, coming, total, active)
                    coming[total, v, 0] = low if side == 0 else high - size[v]
                    coming[total, v, 1] = kept & ~RESIDENT
                    coming_cost[total] = cost[s] + keep
                    total += 1
            if b < m:
                low = blocks[b, 1]
    return total


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _take(chosen, states, cost, origin, active):
    """Move the chosen states, ascending, to the front."""
    for k in range(chosen.size):
        s = chosen[k]
        if s != k:
            _copy(states, s, states, k, active)
            cost[k] = cost[s]
            origin[k] = origin[s]
    return chosen.size


@njit(cache=True, nogil=True)
def lay_out(program, base, area, scale, most, marks, rest, mark_at, width, children, stop, found):
    """Whether a plan with addresses is found within the cost `most`.

    Parameters
    ----------
    scale
        Cost of a byte dropped, as much as one hole more.
    marks, rest, mark_at
        Of the states without addresses, see ``streamed_counts``.
    width, children
        States that go on from one step to the next, and of each of them while a step is decided.
    stop : (1,)
        The beam ends soon after another thread makes this something else than 0.
    found : (u,)
        Address of each kept gap, else -1: written.
    """
    size, by_step, owner, price = program.size, program.by_step, program.owner, program.price
    capacity = program.capacity.min()
    n = size.size
    uses = by_step.size
    local = 4 * children + 64
    pool = 4 * width + local
    states = np.full((width, n, 2), -1, np.int64)  # address, status but whether it is resident
    cost = np.full(width, base)
    count = 1
    here = np.zeros((local, n, 2), np.int64)
    here_cost = np.zeros(local, np.int64)
    coming = np.zeros((local, n, 2), np.int64)
    coming_cost = np.zeros(local, np.int64)
    none = np.zeros(local, np.int64)
    pooled = np.zeros((pool, n, 2), np.int64)
    pooled_cost = np.zeros(pool, np.int64)
    origin = np.zeros(pool, np.int64)
    blocks = np.zeros((n + 1, 2), np.int64)
    tag = np.zeros(n, np.int64)
    parent = np.zeros((uses, width), np.int32)
    record = np.full((uses, width), -1, np.int64)
    is_active = np.zeros(n, np.bool_)
    at = block = 0
    previous = -1
    while at < uses:
        t = program.step[by_step[at]]
        end = at
        while end < uses and program.step[by_step[end]] == t:
            v = owner[by_step[end]]
            if not is_active[v]:
                is_active[v] = True
                for s in range(count):
                    states[s, v, 0] = -1
                    states[s, v, 1] = 0
            end += 1
        active = np.flatnonzero(is_active)
        for k in range(at, end):
            if by_step[k] == program.last[owner[by_step[k]]]:
                is_active[owner[by_step[k]]] = False
        going_on = np.flatnonzero(is_active)
        first, last = mark_at[block, 0], mark_at[block + 1, 0]
        block += 1
        in_pool = 0
        for s in range(count):
            if stop[0] != 0:
                return False
            _copy(states, s, here, 0, active)
            here_cost[0] = cost[s]
            alive = 1
            for k in range(at, end):
                tag[owner[by_step[k]]] = 4 * program.kind[by_step[k]]
            for phase in range(2):
                for later in range(t if phase == 1 or previous < 0 else previous + 1, t + phase):
                    if price[later] > 0:
                        for k in range(alive):
                            load = 0
                            for v in active:
                                if here[k, v, 0] >= 0:
                                    load += size[v]
                            here_cost[k] += price[later] * (program.capacity[later] - load)
                for i in by_step[at:end]:
                    if i == program.last[owner[i]]:
                        continue
                    alive = _decide(
                        program,
                        i,
                        phase,
                        area,
                        capacity,
                        most,
                        active,
                        blocks,
                        here,
                        here_cost,
                        alive,
                        coming,
                        coming_cost,
                    )
                    here, coming = coming, here
                    here_cost, coming_cost = coming_cost, here_cost
                    tag[owner[i]] = 4 * program.kind[i] + DONE
                    if alive > children:
                        chosen = _narrow(
                            here, here_cost, alive, children, size, active, tag, capacity, scale, blocks
                        )
                        alive = _take(chosen, here, here_cost, none, active)
            for k in range(at, end):
                v = owner[by_step[k]]
                tag[v] = 4 * program.kind[by_step[k]]
                for a in range(alive):
                    here[a, v, 1] &= PAID
            chosen = _within(here, here_cost, alive, going_on, tag, most, marks[first:last], rest[first:last])
            if in_pool + chosen.size > pool:
                best = _narrow(
                    pooled, pooled_cost, in_pool, 2 * width, size, going_on, tag, capacity, scale, blocks
                )
                in_pool = _take(best, pooled, pooled_cost, origin, active)
            for k in chosen:
                _copy(here, k, pooled, in_pool, active)
                pooled_cost[in_pool] = here_cost[k]
                origin[in_pool] = s
                in_pool += 1
        if in_pool == 0:
            return False
        chosen = _narrow(pooled, pooled_cost, in_pool, width, size, going_on, tag, capacity, scale, blocks)
        count = chosen.size
        for k in range(count):
            s = chosen[k]
            _copy(pooled, s, states, k, active)
            cost[k] = pooled_cost[s]
            for j in range(at, end):
                if is_active[owner[by_step[j]]]:
                    record[j, k] = states[k, owner[by_step[j]], 0]
                parent[j, k] = origin[s]
        previous = t
        at = end
    best_of_all = 0
    for k in range(count):
        if cost[k] < cost[best_of_all]:
            best_of_all = k
    s = best_of_all
    while at > 0:
        t = program.step[by_step[at - 1]]
        while at > 0 and program.step[by_step[at - 1]] == t:
            at -= 1
            found[by_step[at]] = record[at, s]
        s = parent[at, s]
    return True
