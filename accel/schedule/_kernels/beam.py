"""Kernels of the beam: a search level by level over rows of bits, see `beam_moves`."""

from __future__ import annotations

import numpy as np
from numba import njit

from accel.schedule._kernels.beam_moves import (
    clear,
    count_drops,
    execute,
    has,
    hashed,
    is_as_good,
    least_drops,
    price_of_foresight,
    put,
    room_beside,
    safe_move,
    still_to_pay,
)

_ONE = np.uint64(1)
_LOW = np.uint64(63)
_COST, _ESTIMATE, _LOAD, _PARENT, _OPERATOR, _DROPPED, _COUNT, _NEXT = range(8)  # columns of `facts`


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
            if has(first_rows[s], resident, v):
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
                noise = hashed(rows[at], 0, words) ^ (np.uint64(seed) * np.uint64(0xD1342543DE82EF95))
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
            slot = np.int64(hashed(rows[state], 0, op_words) >> np.uint64(20)) & (slots - 1)
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
                if is_as_good(
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
                        if has(row, resident, reads[k]):
                            others -= size[reads[k]]
                    missing = others - room_beside(
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
                                is_stored = has_copy[v] or has(row, stored, v)
                                prices[at] = size[v] * (1 if is_stored else 2)
                                there += 1
                        if most_drops == 0:
                            needed = count_drops(sizes[:there], missing, np.int64(1) << 40)
                            if needed > chosen_count.size:
                                chosen = np.empty((needed, m), np.int64)
                                chosen_count = np.empty(needed, np.int64)
                                chosen_price = np.empty(needed, np.int64)
                        found = least_drops(
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
                            clear(row, resident, v)
                            if not has_copy[v]:
                                put(row, stored, v)
                            load -= size[v]
                        load = execute(
                            row, load, i, op_words, tensor_words, reads_at, reads, writes_at, writes,
                            after_at, after, next_at, next_, users_at, users, is_kept_on, size,
                        )  # fmt: skip
                        depth = level + weight[i]
                        while True:
                            move = safe_move(
                                row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at,
                                writes, users_at, users, overwritten_at, overwritten, is_kept_on, has_copy,
                                size, room,
                            )  # fmt: skip
                            if move < 0:
                                break
                            load = execute(
                                row, load, move, op_words, tensor_words, reads_at, reads, writes_at, writes,
                                after_at, after, next_at, next_, users_at, users, is_kept_on, size,
                            )  # fmt: skip
                            depth += weight[move]
                        bound = still_to_pay(
                            row, op_words, tensor_words, apart, users_at, users, apart_result, across,
                            is_kept_on, has_copy, size,
                        )  # fmt: skip
                        if cost + bound >= upper:
                            continue
                        if foresight > 0:
                            bound += foresight * price_of_foresight(
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
        if has(row, resident, v):
            load += size[v]
    order = np.empty(n, np.int64)
    origin = np.full(n, -1)
    count = 0
    for k in range(moves.size):
        for c in range(drops_at[k], drops_at[k + 1]):
            clear(row, resident, drops[c])
            if not has_copy[drops[c]]:
                put(row, stored, drops[c])
            load -= size[drops[c]]
        move = moves[k]
        origin[count] = k
        while move >= 0:
            load = execute(
                row, load, move, op_words, tensor_words, reads_at, reads, writes_at, writes,
                after_at, after, next_at, next_, users_at, users, is_kept_on, size,
            )  # fmt: skip
            order[count] = move
            count += 1
            move = safe_move(
                row, load, is_proved, op_words, tensor_words, reads_at, reads, writes_at, writes,
                users_at, users, overwritten_at, overwritten, is_kept_on, has_copy, size, room,
            )  # fmt: skip
    return order, origin
