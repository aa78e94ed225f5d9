"""Kernels of the beam: states as rows of bits, their successors, and a search level by level.

A row of 64-bit words holds the executed operators, those that could run next, the resident tensors and
those stored off chip although nobody reads that copy for free, in this order: ``n`` and ``m`` bits
rounded up to words. Tensors that nothing reads any more have neither of their bits. Dropping a tensor is
paid at once: its later fetch, and its store where there is no copy yet.

Arguments that come in pairs ``x_at, x`` are lists by operator or tensor: those of ``i`` are
``x[x_at[i] : x_at[i + 1]]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_ONE = np.uint64(1)
_LOW = np.uint64(63)
_COST, _ESTIMATE, _LOAD, _PARENT, _OPERATOR, _DROPPED, _COUNT, _NEXT = range(8)  # columns of `facts`


@njit(cache=True, nogil=True)
def _has(row, base, k):
    return (row[base + (k >> 6)] >> (np.uint64(k) & _LOW)) & _ONE != 0


@njit(cache=True, nogil=True)
def _set(row, base, k):
    row[base + (k >> 6)] |= _ONE << (np.uint64(k) & _LOW)


@njit(cache=True, nogil=True)
def _clear(row, base, k):
    row[base + (k >> 6)] &= ~(_ONE << (np.uint64(k) & _LOW))


@njit(cache=True, nogil=True)
def _is_over(row, users_at, users, is_kept_on, v):
    """Whether nothing reads tensor `v` any more."""
    if is_kept_on[v]:
        return False
    for k in range(users_at[v], users_at[v + 1]):  # noqa: SIM110, loops compile best
        if not _has(row, 0, users[k]):
            return False
    return True


@njit(cache=True, nogil=True)
def _room_beside(
    row, i, room, overwritten_at, overwritten, writes_at, writes, users_at, users, is_kept_on, size
):
    """Units left for other tensors while operator `i` runs, which may take the block of a last-read input."""
    for k in range(overwritten_at[i], overwritten_at[i + 1]):
        v = overwritten[k]
        is_last = not is_kept_on[v]
        for u in range(users_at[v], users_at[v + 1]):
            if users[u] != i and not _has(row, 0, users[u]):
                is_last = False
        if is_last:
            return room[i] + size[writes[writes_at[i]]]
    return room[i]


@njit(cache=True, nogil=True)
def _execute(
    row, load, i, op_words, tensor_words, reads_at, reads, writes_at, writes, after_at, after,
    next_at, next_, users_at, users, is_kept_on, size,
):  # fmt: skip
    """Run operator `i`: returns the units resident afterwards."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    _set(row, 0, i)
    _clear(row, op_words, i)
    for k in range(next_at[i], next_at[i + 1]):
        is_ready = True
        for p in range(after_at[next_[k]], after_at[next_[k] + 1]):
            if not _has(row, 0, after[p]):
                is_ready = False
                break
        if is_ready:
            _set(row, op_words, next_[k])
    for is_write in range(2):
        start = writes_at[i] if is_write else reads_at[i]
        stop = writes_at[i + 1] if is_write else reads_at[i + 1]
        for k in range(start, stop):
            v = writes[k] if is_write else reads[k]
            was_there = _has(row, resident, v)
            if _is_over(row, users_at, users, is_kept_on, v):
                if was_there:
                    load -= size[v]
                    _clear(row, resident, v)
                _clear(row, stored, v)
            elif not was_there:
                load += size[v]
                _set(row, resident, v)
    return load


@njit(cache=True, nogil=True)
def _safe_move(
    row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at, writes,
    users_at, users, overwritten_at, overwritten, is_kept_on, has_copy, size, room,
):  # fmt: skip
    """Find an operator that can run at once: all is there, it fits, and it leaves no more behind; or -1.

    Proved to be no loss: what it leaves behind is no larger than any input that it reads last, one of
    which has no copy. Whatever a later plan does to those inputs it can do to the results at no higher
    price. The weaker rule, no more units than before, is only mostly right.
    """
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    for word in range(op_words):
        bits = row[op_words + word]
        while bits != np.uint64(0):
            low = bits & (~bits + _ONE)
            bits ^= low
            i = 64 * word
            while low > _ONE:
                low >>= _ONE
                i += 1
            units_read = 0
            units_ended = 0
            least_ended = np.int64(1) << 62
            is_any_without_copy = False
            is_there = True
            for k in range(reads_at[i], reads_at[i + 1]):
                v = reads[k]
                if not _has(row, resident, v):
                    is_there = False
                    break
                units_read += size[v]
                is_last = not is_kept_on[v]
                for u in range(users_at[v], users_at[v + 1]):
                    if users[u] != i and not _has(row, 0, users[u]):
                        is_last = False
                        break
                if is_last:
                    units_ended += size[v]
                    least_ended = min(least_ended, size[v])
                    if not has_copy[v] and not _has(row, stored, v):
                        is_any_without_copy = True
            if not is_there:
                continue
            units_left = 0
            is_store_free = True
            for k in range(writes_at[i], writes_at[i + 1]):
                v = writes[k]
                if is_kept_on[v] or users_at[v] < users_at[v + 1]:
                    units_left += size[v]
                    is_store_free = is_store_free and has_copy[v]
            if units_left > 0:
                if is_proved:
                    if units_ended == 0 or units_left > least_ended:
                        continue
                    if not (is_any_without_copy or is_store_free):
                        continue
                elif units_left > units_ended:
                    continue
            others = load - units_read
            if others <= _room_beside(
                row,
                i,
                room,
                overwritten_at,
                overwritten,
                writes_at,
                writes,
                users_at,
                users,
                is_kept_on,
                size,
            ):
                return i
    return -1


@njit(cache=True, nogil=True)
def _still_to_pay(
    row, op_words, tensor_words, apart, users_at, users, apart_result, across, is_kept_on, has_copy, size
):
    """Units that are to pay from a state on, whatever comes.

    Resident tensors leave that wait for the result of an operator with no room for them. A tensor whose
    readers cannot follow each other leaves between them, or else the result of the earlier one does.
    """
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    total = 0
    for word in range(tensor_words):
        held = row[resident + word]
        v = 64 * word
        while held != np.uint64(0):
            while held & _ONE == np.uint64(0):
                held >>= _ONE
                v += 1
            held ^= _ONE
            for w in range(op_words):
                if across[v, w] & ~row[w] != np.uint64(0):
                    total += size[v]
                    if not has_copy[v] and not _has(row, stored, v):
                        total += size[v]
                    break
    for v in apart:
        is_any = is_kept_on[v]
        leaving = 0
        either, most_either = 0, 0  # the cheaper of the two leaves each time
        result, most_result = 0, 0  # the result leaves each time
        is_leaving = False
        for k in range(users_at[v], users_at[v + 1]):
            r = apart_result[k]
            is_done = _has(row, 0, users[k])
            if not is_done:
                is_any = True
            if r < 0:
                continue
            if not is_done:
                price = size[r] if has_copy[r] else 2 * size[r]
                either += min(size[v], price)
                most_either = max(most_either, min(size[v], price))
                result += price
                most_result = max(most_result, price)
            elif _has(row, resident, r) and not is_leaving:
                is_leaving = True
                leaving = size[r] if has_copy[r] or _has(row, stored, r) else 2 * size[r]
        if not is_any:
            continue
        if not is_kept_on[v]:  # nothing leaves after the last reader
            either -= most_either
            result -= most_result
        if is_leaving and _has(row, resident, v):
            either += min(size[v], leaving)
            result += leaving
        if either > 0 and not has_copy[v] and not _has(row, stored, v):
            either += size[v]
        total += min(either, result)
    return total


@njit(cache=True, nogil=True)
def _foresight(row, op_words, tensor_words, is_apart, reads_at, reads, has_copy, size, room, by_room):
    """Price of making room now for the largest operator to come."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    for i in by_room:
        if _has(row, 0, i):
            continue
        units = 0
        price = 0
        for v in range(size.size):
            if is_apart[v] or not _has(row, resident, v):
                continue
            is_read = False
            for k in range(reads_at[i], reads_at[i + 1]):
                if reads[k] == v:
                    is_read = True
            if not is_read:
                units += size[v]
                price += size[v] if has_copy[v] or _has(row, stored, v) else 2 * size[v]
        if units <= room[i]:
            return 0
        return np.int64(price * ((units - room[i]) / units))
    return 0


@njit(cache=True, nogil=True)
def _is_as_good(rival, rival_cost, state, cost, op_words, tensor_words, has_copy, size):
    """Whether `rival`, with the same operators executed, can become `state` at no higher price."""
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    budget = cost - rival_cost
    if budget < 0:
        return False
    for word in range(tensor_words):
        extra = rival[resident + word] & ~state[resident + word]
        unstored = (extra | (rival[resident + word] & state[stored + word])) & ~rival[stored + word]
        bits = extra | unstored
        v = 64 * word
        while bits != np.uint64(0):
            while bits & _ONE == np.uint64(0):
                bits >>= _ONE
                extra >>= _ONE
                unstored >>= _ONE
                v += 1
            if extra & _ONE != np.uint64(0):
                budget -= size[v]
            if unstored & _ONE != np.uint64(0) and not has_copy[v]:
                budget -= size[v]
            if budget < 0:
                return False
            bits ^= _ONE
    return True


@njit(cache=True, nogil=True)
def _hash(row, start, stop):
    found = np.uint64(1469598103934665603)
    for k in range(start, stop):
        found = (found ^ row[k]) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


@njit(cache=True, nogil=True)
def _least_drops(items, prices, sizes, missing, most, most_steps, chosen, chosen_count, chosen_price):
    """Fill `chosen` with the `most` cheapest sets of at least `missing` units of which no tensor could stay.

    `sizes` fall, so the tensor that completes a set is its smallest. Returns the number of sets.
    """
    count = items.size
    left = np.zeros(count + 1, np.int64)
    for k in range(count - 1, -1, -1):
        left[k] = left[k + 1] + sizes[k]
    path = np.empty(count, np.int64)
    depth = 0
    units = 0
    price = 0
    k = 0
    found = 0
    steps = 0
    while True:
        steps += 1
        is_worth = k < count and units + left[k] >= missing
        if is_worth and found == most and price + 1 > chosen_price[found - 1]:
            is_worth = False
        if most_steps > 0 and steps > most_steps and found > 0:
            return found
        if is_worth:
            if units + sizes[k] >= missing:
                total = price + prices[k]
                if found < most or total < chosen_price[found - 1]:
                    at = found if found < most else most - 1
                    while at > 0 and chosen_price[at - 1] > total:
                        chosen_price[at] = chosen_price[at - 1]
                        chosen_count[at] = chosen_count[at - 1]
                        for c in range(chosen_count[at]):
                            chosen[at, c] = chosen[at - 1, c]
                        at -= 1
                    chosen_price[at] = total
                    chosen_count[at] = depth + 1
                    for c in range(depth):
                        chosen[at, c] = items[path[c]]
                    chosen[at, depth] = items[k]
                    found = min(found + 1, most)
                k += 1
                continue
            path[depth] = k
            depth += 1
            units += sizes[k]
            price += prices[k]
            k += 1
            continue
        if depth == 0:
            return found
        depth -= 1
        k = path[depth]
        units -= sizes[k]
        price -= prices[k]
        k += 1


@njit(cache=True, nogil=True)
def count_drops(sizes, missing, most):
    """Number of sets that `_least_drops` could list, at most `most`."""
    count = sizes.size
    left = np.zeros(count + 1, np.int64)
    for k in range(count - 1, -1, -1):
        left[k] = left[k + 1] + sizes[k]
    path = np.empty(count, np.int64)
    depth = 0
    units = 0
    k = 0
    found = 0
    while True:
        if k < count and units + left[k] >= missing:
            if units + sizes[k] >= missing:
                found += 1
                if found == most:
                    return found
                k += 1
                continue
            path[depth] = k
            depth += 1
            units += sizes[k]
            k += 1
            continue
        if depth == 0:
            return found
        depth -= 1
        k = path[depth]
        units -= sizes[k]
        k += 1


@njit(cache=True, nogil=True)
def search_levels(
    reads_at, reads, writes_at, writes, after_at, after, next_at, next_, users_at, users,
    overwritten_at, overwritten, apart, apart_result, across,
    is_kept_on, has_copy, size, room, weight, first_rows, first_costs,
    width, most_per_set, most_drops, is_proved, most_nodes, floor, foresight, upper, jitter, seed, stop,
):  # fmt: skip
    """Keep the best states by number of executed operators.

    Parameters
    ----------
    first_rows, first_costs
        States to start from, (s, words), and what each has cost.
    weight
        By operator, at least 1: a state is compared with those of equal weight executed.
    width, most_per_set
        States that go on from each level, and those among them with the same operators executed.
    most_drops
        Choices of what to drop for an operator, the cheapest; 0: all.
    is_proved
        Run operators at once only where that is proved to be no loss.
    most_nodes
        End without a result once that many states were followed; 0: unlimited.
    floor
        End without a result once a state of this rank or a lower one is left out.
    foresight
        Hundredths: how much a state's rank fears the largest operator to come.
    upper
        Only states that cost less are followed.
    jitter
        Units of noise, by `seed`, on the rank of a state.
    stop
        One number: when it is set while the search runs, one state goes on from each further level.

    Returns
    -------
    tuple
        Rows of the last level and their costs and nodes; by node: parent, operator, and the slice of the
        last array that lists the tensors dropped before it; the least rank of a state left out,
        2**62 if none.
    """
    n, m = room.size, size.size
    op_words, tensor_words = (n + 63) // 64, (m + 63) // 64
    words = first_rows.shape[1]
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    rows = np.zeros((4096, words), np.uint64)
    facts = np.zeros((4096, 8), np.int64)
    used = 0
    unused = -1  # a chain of rows that are free again
    levels = weight.sum()
    by_room = np.argsort(room, kind="mergesort")
    is_apart = np.zeros(m, np.bool_)
    is_apart[apart] = True
    head = np.full(levels + 1, -1)
    nodes = np.full((4096, 4), -1)
    node_count = 0
    dropped = np.empty(4096, np.int64)
    dropped_count = 0
    left_out = np.int64(1) << 62
    items, prices, sizes = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
    lists = most_drops if most_drops > 0 else 1
    chosen = np.empty((lists, m), np.int64)
    chosen_count = np.empty(lists, np.int64)
    chosen_price = np.empty(lists, np.int64)
    row = np.empty(words, np.uint64)
    for s in range(first_rows.shape[0]):
        load = 0
        for v in range(m):
            if _has(first_rows[s], resident, v):
                load += size[v]
        rows[used] = first_rows[s]
        facts[used, _COST] = first_costs[s]
        facts[used, _LOAD] = load
        facts[used, _PARENT] = -1 - s
        facts[used, _OPERATOR] = -1
        facts[used, _COUNT] = 0
        facts[used, _NEXT] = head[0]
        head[0] = used
        used += 1
    for level in range(levels + 1):
        # Rank the states of this level.
        count = 0
        at = head[level]
        while at >= 0:
            count += 1
            at = facts[at, _NEXT]
        if count == 0:
            continue
        here = np.empty(count, np.int64)
        rank = np.empty(count, np.int64)
        loads = np.empty(count, np.int64)
        at = head[level]
        for k in range(count - 1, -1, -1):  # the chain begins with the state that came last
            here[k] = at
            rank[k] = facts[at, _COST] + facts[at, _ESTIMATE]
            if jitter > 0:
                noise = _hash(rows[at], 0, words) ^ (np.uint64(seed) * np.uint64(0xD1342543DE82EF95))
                noise = (noise ^ (noise >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
                rank[k] += np.int64(noise >> np.uint64(40)) * jitter >> 24
            loads[k] = facts[at, _LOAD]
            at = facts[at, _NEXT]
        by_load = np.argsort(loads, kind="mergesort")
        ranked = by_load[np.argsort(rank[by_load], kind="mergesort")]
        limit = min(width, count) if stop[0] == 0 else 1
        accepted = np.empty(limit, np.int64)
        previous = np.empty(limit, np.int64)  # the one before with the same operators executed
        slots = 16
        while slots < 4 * limit:
            slots *= 2
        table = np.full(slots, -1)
        taken = 0
        for k in ranked:
            if taken == limit:
                left_out = min(left_out, rank[k])  # and so do all that follow
                break
            state = here[k]
            slot = np.int64(_hash(rows[state], 0, op_words) >> np.uint64(20)) & (slots - 1)
            while table[slot] >= 0:
                is_same = True
                for word in range(op_words):
                    if rows[accepted[table[slot]], word] != rows[state, word]:
                        is_same = False
                        break
                if is_same:
                    break
                slot = (slot + 1) & (slots - 1)
            rival = table[slot]
            same = 0
            is_dominated = False
            while rival >= 0:
                other = accepted[rival]
                if _is_as_good(
                    rows[other], facts[other, _COST], rows[state], facts[state, _COST],
                    op_words, tensor_words, has_copy, size,
                ):  # fmt: skip
                    is_dominated = True
                    break
                same += 1
                rival = previous[rival]
            if is_dominated:
                continue
            if same >= most_per_set:
                left_out = min(left_out, rank[k])
                continue
            accepted[taken] = state
            previous[taken] = table[slot]
            table[slot] = taken
            taken += 1
        if left_out <= floor or (most_nodes > 0 and node_count >= most_nodes):
            break
        # Nodes of those that go on.
        for a in range(taken):
            state = accepted[a]
            if node_count == nodes.shape[0]:
                grown = np.full((2 * node_count, 4), -1)
                grown[:node_count] = nodes
                nodes = grown
            nodes[node_count, 0] = facts[state, _PARENT]
            nodes[node_count, 1] = facts[state, _OPERATOR]
            nodes[node_count, 2] = facts[state, _DROPPED]
            nodes[node_count, 3] = facts[state, _COUNT]
            facts[state, _PARENT] = node_count
            node_count += 1
        if level == levels:
            last = np.empty((taken, words), np.uint64)
            outcome = np.empty((taken, 2), np.int64)
            for a in range(taken):
                last[a] = rows[accepted[a]]
                outcome[a, 0] = facts[accepted[a], _COST]
                outcome[a, 1] = facts[accepted[a], _PARENT]
            return last, outcome, nodes[:node_count], dropped[:dropped_count], left_out
        for a in range(taken):
            state = accepted[a]
            for word in range(op_words):
                bits = rows[state, op_words + word]
                while bits != np.uint64(0):
                    low = bits & (~bits + _ONE)
                    bits ^= low
                    i = 64 * word
                    while low > _ONE:
                        low >>= _ONE
                        i += 1
                    row[:] = rows[state]
                    others = facts[state, _LOAD]
                    for k in range(reads_at[i], reads_at[i + 1]):
                        if _has(row, resident, reads[k]):
                            others -= size[reads[k]]
                    missing = others - _room_beside(
                        row, i, room, overwritten_at, overwritten, writes_at, writes,
                        users_at, users, is_kept_on, size,
                    )  # fmt: skip
                    found = 1
                    if missing <= 0:
                        chosen_count[0] = 0
                        chosen_price[0] = 0
                    else:
                        there = 0
                        for w in range(tensor_words):
                            held = row[resident + w]
                            v = 64 * w
                            while held != np.uint64(0):
                                while held & _ONE == np.uint64(0):
                                    held >>= _ONE
                                    v += 1
                                held ^= _ONE
                                is_read = False
                                for k in range(reads_at[i], reads_at[i + 1]):
                                    if reads[k] == v:
                                        is_read = True
                                if is_read:
                                    continue
                                at = there
                                while at > 0 and sizes[at - 1] < size[v]:
                                    items[at], sizes[at] = items[at - 1], sizes[at - 1]
                                    prices[at] = prices[at - 1]
                                    at -= 1
                                items[at], sizes[at] = v, size[v]
                                is_stored = has_copy[v] or _has(row, stored, v)
                                prices[at] = size[v] * (1 if is_stored else 2)
                                there += 1
                        if most_drops == 0:
                            needed = count_drops(sizes[:there], missing, np.int64(1) << 40)
                            if needed > chosen_count.size:
                                chosen = np.empty((needed, m), np.int64)
                                chosen_count = np.empty(needed, np.int64)
                                chosen_price = np.empty(needed, np.int64)
                        found = _least_drops(
                            items[:there], prices[:there], sizes[:there], missing, chosen_count.size,
                            0 if most_drops == 0 else 4096, chosen, chosen_count, chosen_price,
                        )  # fmt: skip
                        if most_drops > 0 and found == most_drops:
                            left_out = min(left_out, facts[state, _COST])
                    for choice in range(found):
                        cost = facts[state, _COST] + chosen_price[choice]
                        if cost >= upper:
                            continue
                        row[:] = rows[state]
                        load = facts[state, _LOAD]
                        for c in range(chosen_count[choice]):
                            v = chosen[choice, c]
                            _clear(row, resident, v)
                            if not has_copy[v]:
                                _set(row, stored, v)
                            load -= size[v]
                        load = _execute(
                            row, load, i, op_words, tensor_words, reads_at, reads, writes_at, writes,
                            after_at, after, next_at, next_, users_at, users, is_kept_on, size,
                        )  # fmt: skip
                        depth = level + weight[i]
                        while True:
                            move = _safe_move(
                                row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at,
                                writes, users_at, users, overwritten_at, overwritten, is_kept_on, has_copy,
                                size, room,
                            )  # fmt: skip
                            if move < 0:
                                break
                            load = _execute(
                                row, load, move, op_words, tensor_words, reads_at, reads, writes_at, writes,
                                after_at, after, next_at, next_, users_at, users, is_kept_on, size,
                            )  # fmt: skip
                            depth += weight[move]
                        bound = _still_to_pay(
                            row, op_words, tensor_words, apart, users_at, users, apart_result, across,
                            is_kept_on, has_copy, size,
                        )  # fmt: skip
                        if cost + bound >= upper:
                            continue
                        if foresight > 0:
                            bound += foresight * _foresight(
                                row, op_words, tensor_words, is_apart, reads_at, reads, has_copy, size, room,
                                by_room,
                            ) // 100  # fmt: skip
                        if unused >= 0:
                            at = unused
                            unused = facts[at, _NEXT]
                        else:
                            if used == rows.shape[0]:
                                more_rows = np.empty((2 * used, words), np.uint64)
                                more_rows[:used] = rows
                                rows = more_rows
                                more_facts = np.empty((2 * used, 8), np.int64)
                                more_facts[:used] = facts
                                facts = more_facts
                            at = used
                            used += 1
                        rows[at] = row
                        drops = chosen_count[choice]
                        if dropped_count + drops > dropped.size:
                            more = np.empty(2 * (dropped_count + drops), np.int64)
                            more[:dropped_count] = dropped[:dropped_count]
                            dropped = more
                        for c in range(drops):
                            dropped[dropped_count + c] = chosen[choice, c]
                        facts[at, _COST] = cost
                        facts[at, _ESTIMATE] = bound
                        facts[at, _LOAD] = load
                        facts[at, _PARENT] = facts[state, _PARENT]
                        facts[at, _OPERATOR] = i
                        facts[at, _DROPPED] = dropped_count
                        facts[at, _COUNT] = drops
                        facts[at, _NEXT] = head[depth]
                        head[depth] = at
                        dropped_count += drops
        for k in range(count):
            facts[here[k], _NEXT] = unused
            unused = here[k]
        head[level] = -1
    none = np.empty((0, words), np.uint64)
    return none, np.empty((0, 2), np.int64), nodes[:node_count], dropped[:dropped_count], left_out


@njit(cache=True, nogil=True)
def replay(
    reads_at, reads, writes_at, writes, after_at, after, next_at, next_, users_at, users,
    overwritten_at, overwritten, is_kept_on, has_copy, size, room, first_row, is_proved,
    moves, drops_at, drops,
):  # fmt: skip
    """Return all operators in order that `moves` and the safe moves after each of them run, (n,).

    The second array has the index of the move for operators of `moves`, -1 for safe moves.
    """
    n, m = room.size, size.size
    op_words, tensor_words = (n + 63) // 64, (m + 63) // 64
    resident, stored = 2 * op_words, 2 * op_words + tensor_words
    row = first_row.copy()
    load = 0
    for v in range(m):
        if _has(row, resident, v):
            load += size[v]
    order = np.empty(n, np.int64)
    origin = np.full(n, -1)
    count = 0
    for k in range(moves.size):
        for c in range(drops_at[k], drops_at[k + 1]):
            _clear(row, resident, drops[c])
            if not has_copy[drops[c]]:
                _set(row, stored, drops[c])
            load -= size[drops[c]]
        move = moves[k]
        origin[count] = k
        while move >= 0:
            load = _execute(
                row, load, move, op_words, tensor_words, reads_at, reads, writes_at, writes,
                after_at, after, next_at, next_, users_at, users, is_kept_on, size,
            )  # fmt: skip
            order[count] = move
            count += 1
            move = _safe_move(
                row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at, writes,
                users_at, users, overwritten_at, overwritten, is_kept_on, has_copy, size, room,
            )  # fmt: skip
    return order, origin
