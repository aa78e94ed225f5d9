"""Best-first search over machine states: bit sets, safe chains, dominance and the heap, as plain loops.

A bit set is a row of uint64 words. A state is one row of resident and one of backed tensors, over the
tensors that can stay between two steps, and the group of all states with the same operators done.
Lists of lists are flat: list k is ``items[items_at[k] : items_at[k + 1]]``.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

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
    tight: np.ndarray  # operators beside which not all that is live fits, in any order
    tight_value: np.ndarray  # units to be paid there
    share_at: np.ndarray  # by tight operator: tensors, and the units counted on each
    share_of: np.ndarray
    share: np.ndarray


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
def copy(source, target):
    """Copy one row or array: compiles faster than a slice."""
    for k in range(source.shape[0]):
        target[k] = source[k]


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
            if now <= units and chain_is_safe(length, chain, trail, backed, p.made_by, p.size, held):
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
def list_droppable(p, i, done, resident, backed, items, left, like):
    """Write down the resident tensors that `i` does not touch, largest first; return their number.

    ``left[a]`` is the units of items a and later, ``like[a]`` the last earlier item that is alike, or -1.
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
                    while b > 0 and p.size[items[b - 1]] < p.size[v]:
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
            if are_alike(items[b], items[a], done, backed, p.lone, p.size, p.readers_at, p.readers):
                like[a] = b
                break
            b -= 1
    return count


@njit(cache=True)
def price_to_become(have_resident, have_backed, resident, backed, size, limit):
    """Units that turn one state into another: drop what only it holds, store what only the other has.

    What only the other holds is fetched, which has been paid for. Stops above `limit`.
    """
    total = 0
    for w in range(resident.shape[0]):
        extra = have_resident[w] & ~resident[w]
        unstored = (extra | (have_resident[w] & backed[w])) & ~have_backed[w]
        v = w << 6
        either = extra | unstored
        while either != np.uint64(0):
            if extra & np.uint64(1):
                total += size[v]
            if unstored & np.uint64(1):
                total += size[v]
            if total > limit:
                return total
            either >>= np.uint64(1)
            extra >>= np.uint64(1)
            unstored >>= np.uint64(1)
            v += 1
    return total


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
def is_dominated(q, paid, resident, backed, first_of, older, dead, cost, resident_of, backed_of, size):
    """Whether a state of group `q` is as good as the new one; those that are no better than it die."""
    rival = first_of[q]
    last = -1
    while rival >= 0:
        more = paid - cost[rival]
        if more >= 0 and (
            price_to_become(resident_of[rival], backed_of[rival], resident, backed, size, more) <= more
        ):
            return True
        if more <= 0 and (
            price_to_become(resident, backed, resident_of[rival], backed_of[rival], size, -more) <= -more
        ):
            dead[rival] = True
            if last < 0:
                first_of[q] = older[rival]
            else:
                older[last] = older[rival]
        else:
            last = rival
        rival = older[rival]
    return False


@njit(cache=True)
def sift_down(keys, marks, count):
    """Restore the heap after its first entry was replaced."""
    k = 0
    while 2 * k + 1 < count:
        child = 2 * k + 1
        if child + 1 < count and (
            keys[child + 1] < keys[child]
            or (keys[child + 1] == keys[child] and marks[child + 1] < marks[child])
        ):
            child += 1
        if keys[k] < keys[child] or (keys[k] == keys[child] and marks[k] < marks[child]):
            return
        keys[k], keys[child] = keys[child], keys[k]
        marks[k], marks[child] = marks[child], marks[k]
        k = child


@njit(cache=True)
def sift_up(keys, marks, k):
    """Restore the heap after an entry was put at place `k`."""
    while k > 0:
        up = (k - 1) >> 1
        if keys[up] < keys[k] or (keys[up] == keys[k] and marks[up] < marks[k]):
            return
        keys[k], keys[up] = keys[up], keys[k]
        marks[k], marks[up] = marks[up], marks[k]
        k = up


@njit(cache=True)
def grown(a):
    """Array of twice the length."""
    b = np.empty(2 * a.shape[0], a.dtype)
    copy(a, b)
    return b


@njit(cache=True)
def grown_rows(a):
    """Array with twice the rows."""
    b = np.empty((2 * a.shape[0], a.shape[1]), a.dtype)
    for k in range(a.shape[0]):
        copy(a[k], b[k])
    return b


@njit(cache=True)
def search_states(p, pool, counts, budget, patience, upper):
    """Expand up to `budget` states, those of the least value first; return the pool.

    A state that takes more than `patience` sets of evictions is put back, and the search stops. `counts`,
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
        budget -= 1
        spent = 0
        g = group[state]
        n_ready = list_ready(done_of[g], ready, p.before_at, p.before)
        for r in range(n_ready):
            i = ready[r]
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
                    units, n_child, ran = run_safe_chains(
                        p, done, resident, backed, units, child_ready, n_child, path, trail, chain, held
                    )
                    worth = max(paid + units_ahead(p, done, resident, backed), value)
                    if worth < upper:
                        slot = slot_of(done, table, done_of)
                        q = table[slot]
                        dominated = q >= 0 and is_dominated(
                            q,
                            paid,
                            resident,
                            backed,
                            first_of,
                            older,
                            dead,
                            cost,
                            resident_of,
                            backed_of,
                            p.size,
                        )
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
    counts[0], counts[1], counts[2] = n_states, n_groups, n_heap
    return Pool(
        done_of, first_of, table, group, resident_of, backed_of, evicted_of, cost, units_of, parent, operator,
        older, dead, keys, marks,
    )  # fmt: skip
