"""Kernel of `accel.schedule._atomic.gap_model`: a dynamic program over the steps of a fixed order.

A gap is the stretch between two uses of a tensor, and is followed only from the first step to the last
at which all candidates together exceed the room there. The state is the set of followed gaps still kept,
one bit each, and for some tensors one more bit: whether their store is paid. Gaps are dropped where room
runs out, and only as many as needed; of the plans that lead to one state the cheapest goes on.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_MAX_BITS = 62  # of a state
_GOLDEN = -7046029254386353131  # 2**64 over the golden ratio, odd, as int64: Fibonacci hashing
_MASK, _LOSS, _NODE = range(3)  # columns of a table of states


@njit(cache=True, nogil=True)
def _free_bit(used):
    for k in range(_MAX_BITS):
        if not used >> k & 1:
            return k
    return -1


@njit(cache=True, nogil=True)
def _merge(states, count):
    """Each mask once, with its least loss, in order of appearance; returns how many."""
    slots = 4
    while slots < 2 * count:
        slots *= 2
    table = np.full(slots, -1)
    left = 0
    for s in range(count):
        mask = states[s, _MASK]
        slot = (mask * _GOLDEN) >> 24 & (slots - 1)
        while table[slot] >= 0 and states[table[slot], _MASK] != mask:
            slot = (slot + 1) & (slots - 1)
        held = table[slot]
        if held < 0:
            table[slot] = left
            states[left] = states[s]
            left += 1
        elif states[s, _LOSS] < states[held, _LOSS]:
            states[held] = states[s]
    return left


@njit(cache=True, nogil=True)
def solve(tensor, size, start, end, has_copy, is_last, room, most_loss, most_work):
    """Gaps to drop, for the least loss up to `most_loss`.

    Parameters
    ----------
    tensor, size, start, end, is_last
        By followed gap, (g,): its tensor, units, the first and last step at which it is followed, and
        whether no later gap of its tensor is.
    has_copy
        By tensor: dropping a gap takes no store.
    room
        Units by step.
    most_work
        Number of states, summed over all decisions.

    Returns
    -------
    tuple
        Flags, (g,); the loss; and 1, or 0 where no loss is small enough, or -1 where that takes more
        than `most_work` or more bits than there are.
    """
    gaps = tensor.size
    is_dropped = np.zeros(gaps, np.bool_)
    by_start = np.argsort(start, kind="mergesort")
    bit = np.full(gaps, -1)
    paid = np.full(has_copy.size, -1)
    held = np.empty(_MAX_BITS, np.int64)  # gaps followed at this step
    holds = 0
    used = np.int64(0)
    coming = 0
    states = np.zeros((1, 3), np.int64)
    states[0, _NODE] = -1
    count = 1
    nodes = np.empty((1024, 2), np.int64)  # node before, and the gap dropped
    node_count = 0
    work = 0
    items = np.empty(_MAX_BITS, np.int64)
    left = np.empty(_MAX_BITS + 1, np.int64)
    path = np.empty(_MAX_BITS, np.int64)
    price = np.empty(_MAX_BITS, np.int64)
    is_chosen = np.empty(_MAX_BITS, np.bool_)
    for t in range(room.size):
        arriving = np.int64(0)
        while coming < gaps and start[by_start[coming]] == t:
            g = by_start[coming]
            k = _free_bit(used)
            if k < 0:
                return is_dropped, 0, -1
            bit[g] = k
            used |= np.int64(1) << k
            arriving |= np.int64(1) << k
            at = holds
            while at > 0 and size[held[at - 1]] < size[g]:
                held[at] = held[at - 1]
                at -= 1
            held[at] = g
            holds += 1
            coming += 1
            if not has_copy[tensor[g]] and not is_last[g] and paid[tensor[g]] < 0:
                k = _free_bit(used)
                if k < 0:
                    return is_dropped, 0, -1
                paid[tensor[g]] = k
                used |= np.int64(1) << k
        if holds == 0:
            continue
        grown = np.empty((max(64, 2 * count), 3), np.int64)
        grown_count = 0
        for s in range(count):
            mask = states[s, _MASK] | arriving
            there = 0
            for h in range(holds):
                if mask >> bit[held[h]] & 1:
                    items[there] = held[h]
                    there += 1
            left[there] = 0
            for k in range(there - 1, -1, -1):
                g = items[k]
                left[k] = left[k + 1] + size[g]
                v = tensor[g]
                is_stored = has_copy[v] or (paid[v] >= 0 and mask >> paid[v] & 1)
                price[k] = size[g] * (1 if is_stored else 2)
                is_chosen[k] = False
            missing = left[0] - room[t]
            work += 1
            depth = 0
            units = 0
            loss = states[s, _LOSS]
            k = 0
            while True:
                if units >= missing:  # enough is dropped: only without anything, or right after a choice
                    is_best = True
                    for c in range(depth):
                        a = path[c]
                        g = items[a]
                        # Drop rather what stays longer, is no smaller and no dearer, if the store of
                        # this one serves nothing later.
                        if not (is_last[g] or price[a] == size[g]):
                            continue
                        for b in range(there):
                            other = items[b]
                            if (
                                not is_chosen[b]
                                and end[other] >= end[g]
                                and size[other] >= size[g]
                                and price[b] <= price[a]
                                and (
                                    end[other] > end[g]
                                    or size[other] > size[g]
                                    or price[b] < price[a]
                                    or b < a
                                )
                            ):
                                is_best = False
                                break
                        if not is_best:
                            break
                    if is_best and loss <= most_loss:
                        work += 1
                        if grown_count == grown.shape[0]:
                            more = np.empty((2 * grown_count, 3), np.int64)
                            more[:grown_count] = grown
                            grown = more
                        node = states[s, _NODE]
                        after = mask
                        for c in range(depth):
                            g = items[path[c]]
                            if node_count == nodes.shape[0]:
                                more_nodes = np.empty((2 * node_count, 2), np.int64)
                                more_nodes[:node_count] = nodes
                                nodes = more_nodes
                            nodes[node_count, 0] = node
                            nodes[node_count, 1] = g
                            node = node_count
                            node_count += 1
                            after &= ~(np.int64(1) << bit[g])
                            if paid[tensor[g]] >= 0:
                                after |= np.int64(1) << paid[tensor[g]]
                        grown[grown_count, _MASK] = after
                        grown[grown_count, _LOSS] = loss
                        grown[grown_count, _NODE] = node
                        grown_count += 1
                elif k < there and units + left[k] >= missing and loss < most_loss:
                    path[depth] = k
                    is_chosen[k] = True
                    depth += 1
                    units += size[items[k]]
                    loss += price[k]
                    k += 1
                    work += 1
                    if work > most_work:
                        return is_dropped, 0, -1
                    continue
                if depth == 0:
                    break
                depth -= 1
                k = path[depth]
                is_chosen[k] = False
                units -= size[items[k]]
                loss -= price[k]
                k += 1
            if work > most_work:
                return is_dropped, 0, -1
        # Bits of gaps that end here, and of stores that no later gap asks for, are free again.
        cleared = np.int64(0)
        stay = 0
        for h in range(holds):
            g = held[h]
            if end[g] == t:
                cleared |= np.int64(1) << bit[g]
            else:
                held[stay] = g
                stay += 1
            if end[g] == t and is_last[g] and paid[tensor[g]] >= 0:
                cleared |= np.int64(1) << paid[tensor[g]]
                paid[tensor[g]] = -1
        holds = stay
        used &= ~cleared
        for s in range(grown_count):
            grown[s, _MASK] &= ~cleared
        count = _merge(grown, grown_count)
        if count == 0:
            return is_dropped, 0, 0
        states = grown[:count].copy()
    best = 0
    for s in range(count):
        if states[s, _LOSS] < states[best, _LOSS]:
            best = s
    node = states[best, _NODE]
    while node >= 0:
        is_dropped[nodes[node, 1]] = True
        node = nodes[node, 0]
    return is_dropped, states[best, _LOSS], 1
