"""Moves between machine states: bit sets, what an operator needs and leaves, and safe chains.

A bit set is a row of uint64 words. Lists of lists are flat: list k is
``items[items_at[k] : items_at[k + 1]]``.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from accel.schedule._kernels.growing import copy

MAX_CHAIN = 24  # operators of one safe chain, at most
MAX_DROPPABLE = 10  # tensors of which every subset is tried in the proof that a chain is safe


class Problem(NamedTuple):
    """Operators and tensors by index; sizes in units."""

    capacity: int
    chain_limit: int  # operators of one safe chain; 0: run none
    before_at: np.ndarray  # operators each operator waits for
    before: np.ndarray
    next_at: np.ndarray  # operators that wait for each operator
    next: np.ndarray
    touched_at: np.ndarray  # tensors each operator reads or writes
    touched: np.ndarray
    readers_at: np.ndarray  # operators that read each tensor
    readers: np.ndarray
    size: np.ndarray
    made_by: np.ndarray  # producer, or -1
    free_copy: np.ndarray  # whether its off-chip copy costs nothing
    lone: np.ndarray  # whether no result can take its block
    used: np.ndarray  # units of each working set
    result: np.ndarray  # units of each operator's first result
    over_at: np.ndarray  # tensors whose block the result may take; -1: one that dies there in any case
    over: np.ndarray
    late: np.ndarray  # operators that run right before a reader of their result
    target_at: np.ndarray  # by late operator: the readers, not late themselves, that late ones lead to
    target: np.ndarray
    earlier: (
        np.ndarray
    )  # by operator: those that run before it in every order; none: no tensors are exchanged
    needed: np.ndarray  # by such a reader: all that must be done before late operators that lead to it run
    tight: np.ndarray  # operators beside which not all that is live fits, in any order
    tight_value: np.ndarray  # units to be paid there
    share_at: np.ndarray  # by tight operator: tensors, and the units counted on each
    share_of: np.ndarray
    share: np.ndarray


@njit(cache=True)
def has(row, k):
    """Whether bit `k` is set."""
    return (row[k >> 6] >> np.uint64(k & 63)) & np.uint64(1) != np.uint64(0)


@njit(cache=True)
def add(row, k):
    """Set bit `k`."""
    row[k >> 6] |= np.uint64(1) << np.uint64(k & 63)


@njit(cache=True)
def discard(row, k):
    """Clear bit `k`."""
    row[k >> 6] &= ~(np.uint64(1) << np.uint64(k & 63))


@njit(cache=True)
def is_ready(i, done, before_at, before):
    """Whether operator `i` is not done and all it waits for is."""
    if has(done, i):
        return False
    for k in range(before_at[i], before_at[i + 1]):  # noqa: SIM110
        if not has(done, before[k]):
            return False
    return True


@njit(cache=True)
def list_ready(done, ready, before_at, before):
    """Write down the ready operators; return their number."""
    count = 0
    for i in range(before_at.shape[0] - 1):
        if is_ready(i, done, before_at, before):
            ready[count] = i
            count += 1
    return count


@njit(cache=True)
def update_ready(i, done, ready, count, before_at, before, next_at, following):
    """Take `i` off the list of ready operators, and put on what now is ready; return their number."""
    kept = 0
    for k in range(count):
        if ready[k] != i:
            ready[kept] = ready[k]
            kept += 1
    for k in range(next_at[i], next_at[i + 1]):
        if is_ready(following[k], done, before_at, before):
            new = True
            for q in range(kept):
                if ready[q] == following[k]:
                    new = False
                    break
            if new:
                ready[kept] = following[k]
                kept += 1
    return kept


@njit(cache=True)
def read_by_others(v, i, done, readers_at, readers):
    """Whether an operator that is neither done nor `i` reads tensor `v`."""
    for k in range(readers_at[v], readers_at[v + 1]):  # noqa: SIM110
        if readers[k] != i and not has(done, readers[k]):
            return True
    return False


@njit(cache=True)
def room_beside(i, done, capacity, used, result, over_at, over, readers_at, readers):
    """Units left beside operator `i`: more where its result takes a block over."""
    for k in range(over_at[i], over_at[i + 1]):
        if over[k] < 0 or not read_by_others(over[k], i, done, readers_at, readers):
            return capacity - used[i] + result[i]
    return capacity - used[i]


@njit(cache=True)
def run_operator(i, done, resident, touched_at, touched, size, readers_at, readers):
    """Run `i`: update both bit sets; return the change of resident units."""
    change = 0
    for k in range(touched_at[i], touched_at[i + 1]):
        v = touched[k]
        stays = read_by_others(v, i, done, readers_at, readers)
        if has(resident, v):
            if not stays:
                discard(resident, v)
                change -= size[v]
        elif stays:
            add(resident, v)
            change += size[v]
    add(done, i)
    return change


@njit(cache=True)
def units_beside(i, resident, units, touched_at, touched, size):
    """Resident units that operator `i` does not touch."""
    for k in range(touched_at[i], touched_at[i + 1]):
        if has(resident, touched[k]):
            units -= size[touched[k]]
    return units


@njit(cache=True)
def price(v, backed, size):
    """Units that dropping `v` costs: its refetch, and its store if it has no copy."""
    return size[v] if has(backed, v) else 2 * size[v]


@njit(cache=True)
def chain_is_safe(length, chain, trail, backed, made_by, size, held):
    """Whether a chain can be run before anything else at no loss; the proof is in `_atomic.search`.

    ``trail[j]`` are the resident tensors before operator j of the chain, ``trail[length]`` those after it.
    """
    words = trail.shape[1]
    new_units = 0
    new_price = 0
    for w in range(words):
        fresh = trail[length, w] & ~trail[0, w]
        v = w << 6
        while fresh != np.uint64(0):
            if fresh & np.uint64(1):
                if made_by[v] != chain[length - 1]:
                    return False
                new_units += size[v]
                new_price += price(v, backed, size)
            fresh >>= np.uint64(1)
            v += 1
    if new_units == 0:
        return True
    for j in range(length):
        count = 0
        units = 0
        dear = True
        for w in range(words):
            old = trail[j, w] & ~(trail[0, w] & trail[length, w])
            v = w << 6
            while old != np.uint64(0):
                if old & np.uint64(1):
                    if count == MAX_DROPPABLE:
                        return False
                    held[count] = v
                    count += 1
                    units += size[v]
                    dear = dear and price(v, backed, size) >= new_price
                old >>= np.uint64(1)
                v += 1
        if units < new_units:
            return False
        if dear:
            continue
        for chosen in range(1, 1 << count):
            left = units
            paid = 0
            for k in range(count):
                if chosen >> k & 1:
                    left -= size[held[k]]
                    paid += price(held[k], backed, size)
            if left < new_units and paid < new_price:
                return False
    return True


@njit(cache=True)
def run_safe_chains(p, done, resident, backed, units, ready, n_ready, path, trail, chain, held):
    """Run safe chains until none is left; return resident units, ready operators, and how many ran.

    `path` receives the operators; bit sets and the list of ready operators are changed in place.
    """
    count = 0
    at = 0
    while at < n_ready and p.chain_limit > 0:
        i = ready[at]
        copy(resident, trail[0])
        length = 0
        now = units
        found = False
        while i >= 0:
            room = room_beside(
                i, done, p.capacity, p.used, p.result, p.over_at, p.over, p.readers_at, p.readers
            )
            if units_beside(i, trail[length], now, p.touched_at, p.touched, p.size) > room:
                break
            copy(trail[length], trail[length + 1])
            now += run_operator(
                i, done, trail[length + 1], p.touched_at, p.touched, p.size, p.readers_at, p.readers
            )
            chain[length] = i
            length += 1
            if (
                now <= units
                and not p.late[i]
                and chain_is_safe(length, chain, trail, backed, p.made_by, p.size, held)
            ):
                found = True
                break
            if length == p.chain_limit:
                break
            onward = -1
            for k in range(p.touched_at[i], p.touched_at[i + 1]):
                v = p.touched[k]
                if p.made_by[v] != i:
                    continue
                for q in range(p.readers_at[v], p.readers_at[v + 1]):
                    if is_ready(p.readers[q], done, p.before_at, p.before):
                        onward = p.readers[q]
                        break
                if onward >= 0:
                    break
            i = onward
        if found:
            copy(trail[length], resident)
            units = now
            for k in range(length):
                path[count] = chain[k]
                count += 1
                n_ready = update_ready(
                    chain[k], done, ready, n_ready, p.before_at, p.before, p.next_at, p.next
                )
            at = 0
        else:
            for k in range(length):
                discard(done, chain[k])
            at += 1
    return units, n_ready, count


@njit(cache=True)
def is_born(v, done, made_by, readers_at, readers):
    """Whether tensor `v` has been produced, or loaded a first time."""
    if made_by[v] >= 0:
        return has(done, made_by[v])
    for k in range(readers_at[v], readers_at[v + 1]):  # noqa: SIM110
        if has(done, readers[k]):
            return True
    return False


@njit(cache=True)
def units_ahead(p, done, resident, backed):
    """Units that are still to be paid at tight operators, whatever follows."""
    total = 0
    for k in range(p.tight.shape[0]):
        if has(done, p.tight[k]):
            continue
        value = p.tight_value[k]
        for q in range(p.share_at[k], p.share_at[k + 1]):
            v = p.share_of[q]
            if p.free_copy[v]:
                if not has(resident, v) and is_born(v, done, p.made_by, p.readers_at, p.readers):
                    value -= p.share[q]
            elif has(backed, v):
                value -= p.share[q]
            if value <= 0:
                break
        total += max(value, 0)
    return total


@njit(cache=True)
def are_alike(u, v, done, backed, lone, size, readers_at, readers):
    """Whether exchanging two resident tensors changes nothing that lies ahead."""
    if size[u] != size[v] or has(backed, u) != has(backed, v) or not (lone[u] and lone[v]):
        return False
    a = readers_at[u]
    b = readers_at[v]
    while True:
        while a < readers_at[u + 1] and has(done, readers[a]):
            a += 1
        while b < readers_at[v + 1] and has(done, readers[b]):
            b += 1
        if a == readers_at[u + 1] or b == readers_at[v + 1]:
            return a == readers_at[u + 1] and b == readers_at[v + 1]
        if readers[a] != readers[b]:
            return False
        a += 1
        b += 1


@njit(cache=True)
def is_read_before(v, w, done, readers_at, readers, earlier):
    """Whether `v` is read once more, and `w` never before that."""
    last = -1
    for k in range(readers_at[v], readers_at[v + 1]):
        if not has(done, readers[k]):
            if last >= 0:
                return False
            last = readers[k]
    if last < 0:
        return False
    for k in range(readers_at[w], readers_at[w + 1]):
        c = readers[k]
        if not has(done, c) and not has(earlier[c], last):
            return False
    return True


@njit(cache=True)
def list_droppable(p, i, done, resident, backed, items, left, like):
    """Write down the resident tensors that `i` does not touch, largest first; return their number.

    ``left[a]`` is the units of items a and later, ``like[a]`` the last earlier item that may as well leave in
    place of it, or -1: one that is alike, or is read later.
    """
    count = 0
    for w in range(resident.shape[0]):
        bits = resident[w]
        v = w << 6
        while bits != np.uint64(0):
            if bits & np.uint64(1):
                idle = True
                for k in range(p.touched_at[i], p.touched_at[i + 1]):
                    if p.touched[k] == v:
                        idle = False
                        break
                if idle:
                    b = count
                    while b > 0 and p.size[items[b - 1]] <= p.size[v]:
                        items[b] = items[b - 1]
                        b -= 1
                    items[b] = v
                    count += 1
            bits >>= np.uint64(1)
            v += 1
    left[count] = 0
    for a in range(count - 1, -1, -1):
        left[a] = left[a + 1] + p.size[items[a]]
    for a in range(count):
        like[a] = -1
        b = a - 1
        while b >= 0 and p.size[items[b]] == p.size[items[a]]:
            if are_alike(items[b], items[a], done, backed, p.lone, p.size, p.readers_at, p.readers) or (
                has(backed, items[a]) == has(backed, items[b])
                and is_read_before(items[a], items[b], done, p.readers_at, p.readers, p.earlier)
            ):
                like[a] = b
                break
            b -= 1
    return count
