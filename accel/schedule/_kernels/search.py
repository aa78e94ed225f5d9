"""Best-first search over machine states: dominance, the heap and the loop, as plain loops.

A bit set is a row of uint64 words. A state is one row of resident and one of backed tensors, over the
tensors that can stay between two steps, and the group of all states with the same operators done.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from accel.schedule._kernels.growing import copy, grown, grown_rows, sift_down, sift_up
from accel.schedule._kernels.late_moves import list_waiting, may_run
from accel.schedule._kernels.search_moves import (
    MAX_CHAIN,
    MAX_DROPPABLE,
    add,
    discard,
    is_read_before,
    list_droppable,
    list_ready,
    price,
    room_beside,
    run_operator,
    run_safe_chains,
    units_ahead,
    units_beside,
    update_ready,
)


class Pool(NamedTuple):
    """States found so far: two fields by group, a hash table of groups, a heap, and the rest by state."""

    done: np.ndarray  # by group
    first_of: np.ndarray  # by group: its youngest state
    table: np.ndarray  # groups by the hash of what is done
    group: np.ndarray
    resident: np.ndarray
    backed: np.ndarray
    evicted: np.ndarray  # before the operator ran
    cost: np.ndarray
    units: np.ndarray  # resident
    parent: np.ndarray
    operator: np.ndarray  # that led here from the parent; safe chains follow it
    older: np.ndarray  # next state of the group
    dead: np.ndarray  # dominated
    keys: np.ndarray  # heap: value
    marks: np.ndarray  # heap: operators not done << 32 | state


@njit(cache=True)
def price_to_become(p, done, have_resident, have_backed, resident, backed, limit, taken):
    """Units that turn one state into one that is as good as another.

    Drop what only it holds, store what only the other has. What only the other holds is fetched, which has
    been paid for. A tensor need not be dropped in whose place the other holds one that is read later
    (`_atomic.search`); each is `taken` once. Stops above `limit`.
    """
    total = 0
    for w in range(resident.shape[0]):
        unstored = have_resident[w] & resident[w] & backed[w] & ~have_backed[w]
        v = w << 6
        while unstored != np.uint64(0):
            if unstored & np.uint64(1):
                total += p.size[v]
                if total > limit:
                    return total
            unstored >>= np.uint64(1)
            v += 1
    for w in range(resident.shape[0]):
        taken[w] = np.uint64(0)
    for w in range(resident.shape[0]):
        extra = have_resident[w] & ~resident[w]
        v = w << 6
        while extra != np.uint64(0):
            if extra & np.uint64(1):
                paid = price(v, have_backed, p.size)
                if total + paid > limit and not is_exchanged(
                    p, v, done, have_resident, have_backed, resident, backed, taken
                ):
                    return total + paid
                if total + paid <= limit:
                    total += paid
            extra >>= np.uint64(1)
            v += 1
    return total


@njit(cache=True)
def is_exchanged(p, v, done, have_resident, have_backed, resident, backed, taken):
    """Whether a tensor takes the place of `v` in the other state that is as large and dear and read later."""
    for w in range(resident.shape[0]):
        other = resident[w] & ~have_resident[w] & ~taken[w]
        u = w << 6
        while other != np.uint64(0):
            if (
                other & np.uint64(1)
                and p.size[v] <= p.size[u]
                and price(v, have_backed, p.size) <= price(u, backed, p.size)
                and is_read_before(v, u, done, p.readers_at, p.readers, p.earlier)
            ):
                add(taken, u)
                return True
            other >>= np.uint64(1)
            u += 1
    return False


@njit(cache=True)
def slot_of(done, table, done_of):
    """Slot of the hash table at which the group of `done` is, or would be."""
    code = np.uint64(1469598103934665603)
    for w in range(done.shape[0]):
        code = (code ^ done[w]) * np.uint64(0x9E3779B97F4A7C15)
        code ^= code >> np.uint64(29)
    slot = np.int64(code & np.uint64(table.shape[0] - 1))
    while table[slot] >= 0:
        same = True
        for w in range(done.shape[0]):
            if done_of[table[slot], w] != done[w]:
                same = False
                break
        if same:
            break
        slot = (slot + 1) & (table.shape[0] - 1)
    return slot


@njit(cache=True)
def grown_table(table, done_of, n_groups):
    """Hash table of twice the size."""
    larger = np.full(2 * table.shape[0], -1, np.int64)
    for q in range(n_groups):
        larger[slot_of(done_of[q], larger, done_of)] = q
    return larger


@njit(cache=True)
def is_dominated(
    p, q, done, paid, resident, backed, first_of, older, dead, cost, resident_of, backed_of, taken
):
    """Whether a state of group `q` is as good as the new one; those that are no better than it die.

    Also the number of states it was compared with.
    """
    rival = first_of[q]
    last = -1
    compared = 0
    while rival >= 0:
        compared += 1
        more = paid - cost[rival]
        if more >= 0 and (
            price_to_become(p, done, resident_of[rival], backed_of[rival], resident, backed, more, taken)
            <= more
        ):
            return True, compared
        if more <= 0 and (
            price_to_become(p, done, resident, backed, resident_of[rival], backed_of[rival], -more, taken)
            <= -more
        ):
            dead[rival] = True
            if last < 0:
                first_of[q] = older[rival]
            else:
                older[last] = older[rival]
        else:
            last = rival
        rival = older[rival]
    return False, compared


@njit(cache=True)
def search_states(p, pool, counts, budget, patience, upper):
    """Expand states, those of the least value first, until `budget` is spent; return the pool.

    Every set of evictions and every comparison of two states counts. A state that takes more than `patience`
    of them is put back, and the search stops. `counts`,
    updated: states, groups, heap entries, value of the last state taken, goal state or -1, and whether a
    state was put back. Only states of a value below `upper` are kept; of equal ones that with the most
    operators done is taken, then the oldest.
    """
    (done_of, first_of, table, group, resident_of, backed_of, evicted_of, cost, units_of, parent, operator,
     older, dead, keys, marks) = pool  # fmt: skip
    n = p.used.shape[0]
    n_states, n_groups, n_heap = counts[0], counts[1], counts[2]
    counts[5] = 0
    trail = np.empty((MAX_CHAIN + 1, resident_of.shape[1]), np.uint64)
    chain = np.empty(MAX_CHAIN, np.int64)
    held = np.empty(MAX_DROPPABLE, np.int64)
    path = np.empty(n + 1, np.int64)
    ready = np.empty(n + 1, np.int64)
    waiting = np.empty(n + 1, np.int64)
    child_ready = np.empty(n + 1, np.int64)
    items = np.empty(p.size.shape[0] + 1, np.int64)
    left = np.empty(p.size.shape[0] + 2, np.int64)
    like = np.empty(p.size.shape[0] + 1, np.int64)
    picked = np.empty(p.size.shape[0] + 1, np.int64)
    is_picked = np.zeros(p.size.shape[0] + 1, np.bool_)
    done = np.empty(done_of.shape[1], np.uint64)
    resident = np.empty(resident_of.shape[1], np.uint64)
    backed = np.empty(resident_of.shape[1], np.uint64)
    evicted = np.empty(resident_of.shape[1], np.uint64)
    taken = np.empty(resident_of.shape[1], np.uint64)
    while n_heap > 0 and budget > 0:
        value, mark = keys[0], marks[0]
        n_heap -= 1
        keys[0], marks[0] = keys[n_heap], marks[n_heap]
        sift_down(keys, marks, n_heap)
        state = np.int64(mark & 0xFFFFFFFF)
        n_done = n - np.int64(mark >> 32)
        if dead[state]:
            continue
        counts[3] = value
        if n_done == n:
            counts[4] = state
            break
        spent = 0
        g = group[state]
        n_ready = list_ready(done_of[g], ready, p.before_at, p.before)
        n_waiting = 0
        if operator[state] >= 0 and p.late[operator[state]]:
            n_waiting = list_waiting(done_of[g], p.late, p.next_at, p.next, waiting)
        for r in range(n_ready):
            i = ready[r]
            if not may_run(p, i, done_of[g], waiting, n_waiting):
                continue
            missing = units_beside(i, resident_of[state], units_of[state], p.touched_at, p.touched, p.size)
            missing -= room_beside(
                i, done_of[g], p.capacity, p.used, p.result, p.over_at, p.over, p.readers_at, p.readers
            )
            n_items = 0
            if missing > 0:
                n_items = list_droppable(
                    p, i, done_of[g], resident_of[state], backed_of[state], items, left, like
                )
            # Sets of items that make room, depth first. Sizes fall, so the item that completes a set is its
            # smallest, and none of them could stay.
            depth = 0
            a = 0
            paid = cost[state]
            while True:
                spent += 1
                if spent > patience:
                    keys[n_heap] = value
                    marks[n_heap] = mark
                    sift_up(keys, marks, n_heap)
                    counts[0], counts[1], counts[2], counts[5] = n_states, n_groups, n_heap + 1, 1
                    return Pool(
                        done_of, first_of, table, group, resident_of, backed_of, evicted_of, cost, units_of,
                        parent, operator, older, dead, keys, marks,
                    )  # fmt: skip
                if missing <= 0:
                    copy(done_of[g], done)
                    copy(resident_of[state], resident)
                    copy(backed_of[state], backed)
                    for w in range(evicted.shape[0]):
                        evicted[w] = np.uint64(0)
                    units = units_of[state]
                    for k in range(depth):
                        v = items[picked[k]]
                        discard(resident, v)
                        add(backed, v)
                        add(evicted, v)
                        units -= p.size[v]
                    units += run_operator(
                        i, done, resident, p.touched_at, p.touched, p.size, p.readers_at, p.readers
                    )
                    for k in range(n_ready):
                        child_ready[k] = ready[k]
                    n_child = update_ready(
                        i, done, child_ready, n_ready, p.before_at, p.before, p.next_at, p.next
                    )
                    ran = 0
                    if not p.late[i]:
                        units, n_child, ran = run_safe_chains(
                            p, done, resident, backed, units, child_ready, n_child, path, trail, chain, held
                        )
                    worth = max(paid + units_ahead(p, done, resident, backed), value)
                    if worth < upper:
                        slot = slot_of(done, table, done_of)
                        q = table[slot]
                        dominated = False
                        if q >= 0:
                            dominated, compared = is_dominated(
                                p, q, done, paid, resident, backed, first_of, older, dead, cost,
                                resident_of, backed_of, taken,
                            )  # fmt: skip
                            spent += compared
                        if q < 0:
                            if n_groups == done_of.shape[0]:
                                done_of = grown_rows(done_of)
                                first_of = grown(first_of)
                            q = n_groups
                            n_groups += 1
                            copy(done, done_of[q])
                            first_of[q] = -1
                            table[slot] = q
                            if 2 * n_groups > table.shape[0]:
                                table = grown_table(table, done_of, n_groups)
                        if not dominated:
                            if n_states == cost.shape[0]:
                                group = grown(group)
                                resident_of = grown_rows(resident_of)
                                backed_of = grown_rows(backed_of)
                                evicted_of = grown_rows(evicted_of)
                                cost = grown(cost)
                                units_of = grown(units_of)
                                parent = grown(parent)
                                operator = grown(operator)
                                older = grown(older)
                                dead = grown(dead)
                            group[n_states] = q
                            copy(resident, resident_of[n_states])
                            copy(backed, backed_of[n_states])
                            copy(evicted, evicted_of[n_states])
                            cost[n_states] = paid
                            units_of[n_states] = units
                            parent[n_states] = state
                            operator[n_states] = i
                            dead[n_states] = False
                            older[n_states] = first_of[q]
                            first_of[q] = n_states
                            if n_heap == keys.shape[0]:
                                keys = grown(keys)
                                marks = grown(marks)
                            keys[n_heap] = worth
                            marks[n_heap] = np.int64(n - n_done - 1 - ran) << 32 | n_states
                            n_heap += 1
                            n_states += 1
                            sift_up(keys, marks, n_heap - 1)
                elif a < n_items and left[a] >= missing:
                    v = items[a]
                    dearer = paid + price(v, backed_of[state], p.size)
                    if dearer < upper and (like[a] < 0 or is_picked[like[a]]):
                        is_picked[a] = True
                        picked[depth] = a
                        depth += 1
                        paid = dearer
                        missing -= p.size[v]
                    a += 1
                    continue
                if depth == 0:
                    break
                depth -= 1
                a = picked[depth]
                is_picked[a] = False
                paid -= price(items[a], backed_of[state], p.size)
                missing += p.size[items[a]]
                a += 1
        budget -= spent
    counts[0], counts[1], counts[2] = n_states, n_groups, n_heap
    return Pool(
        done_of, first_of, table, group, resident_of, backed_of, evicted_of, cost, units_of, parent, operator,
        older, dead, keys, marks,
    )  # fmt: skip
