"""The dynamic program of streamed operands.

It walks over the steps of one part of the problem. Its state is the set of gaps kept across the present
step, one bit each, and for some tensors one more bit: whether their store is paid. Of the plans that
lead to the same state only the cheapest goes on, by loss and then by byte-steps. *Loss* is what a plan
costs beyond the one that keeps every open gap. Dropping a gap is charged at once, with the least that
the use after it can then cost, so that a plan worse than the greedy one ends early.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accel.schedule._kernels.streamed import ALWAYS, NEVER, fill, shed, use_costs

_MAX_BITS = 62  # of a state
_GOLDEN = -7046029254386353131  # 2**64 over the golden ratio, odd, as int64: Fibonacci hashing
_MASK, _LOSS, _AREA, _LOAD, _NODE = range(5)  # columns of a table of states


@njit(cache=True)
def _merged(states, cleared):
    """States after the bits `cleared` are reset, each mask once, in order of appearance."""
    slots = 4
    while slots < 2 * states.shape[0]:
        slots *= 2
    table = np.full(slots, -1)
    count = 0
    for s in range(states.shape[0]):
        mask = states[s, _MASK] & ~cleared
        states[s, _MASK] = mask
        slot = (mask * _GOLDEN) >> 32 & (slots - 1)
        while table[slot] >= 0 and states[table[slot], _MASK] != mask:
            slot = (slot + 1) & (slots - 1)
        held = table[slot]
        if held < 0:
            table[slot] = count
            states[count] = states[s]
            count += 1
        elif (states[s, _LOSS], states[s, _AREA]) < (states[held, _LOSS], states[held, _AREA]):
            states[held] = states[s]
    return states[:count]


@njit(cache=True)
def _program(first, step, fate, part, by_step):
    """Uses at either end of an open gap of `part`, by step, and the tensor of each use of the problem."""
    tensor = np.zeros(step.size, np.int64)
    for v in range(first.size - 1):
        tensor[first[v] : first[v + 1]] = v
    found = np.empty(step.size, np.int64)
    count = 0
    for i in by_step:
        if fate[i] == part or (i > first[tensor[i]] and fate[i - 1] == part):
            found[count] = i
            count += 1
    return found[:count], tensor


@njit(cache=True)
def solve_part(
    size,
    first,
    step,
    streamed,
    is_produced,
    is_output,
    capacity,
    by_step,
    fate,
    part,
    most_loss,
    most_work,
    kept,
):
    """Set `kept` to the best choice of the gaps of `part`; false where that takes more than `most_work`.

    Parameters
    ----------
    by_step
        All uses of the problem by step.
    most_loss
        Loss of a plan that is known; plans that lose more are not followed.
    most_work
        Number of states, summed over all decisions.
    """
    uses, tensor = _program(first, step, fate, part, by_step)
    bit = np.zeros(step.size, np.int64)  # of an open gap, while the walk is between its uses
    paid = np.zeros(size.size, np.int64)  # bit of a tensor: its store is charged
    undecided = np.zeros(size.size, np.int64)
    is_tied = np.zeros(size.size, np.bool_)
    for i in uses:
        v = tensor[i]
        if fate[i] == part:
            undecided[v] += 1
        is_tied[v] = is_produced[v] and not is_output[v]
        for j in range(first[v], first[v + 1] - 1):
            is_tied[v] = is_tied[v] and fate[j] != NEVER
    used_bits = 0
    work = 0
    node_parent = np.empty(256, np.int64)
    node_use = np.empty(256, np.int64)
    nodes = 0
    states = np.zeros((1, 5), np.int64)
    states[0, _NODE] = -1
    at = 0
    while at < uses.size:
        t = step[uses[at]]
        end = at
        while end < uses.size and step[uses[end]] == t:
            end += 1
        # Two rounds at each step: first tensors come in, then gaps end and go on or not. In between the
        # state holds all that is resident during the step.
        for is_second in (False, True):
            for i in uses[at:end]:
                v = tensor[i]
                is_first_use = i == first[v]
                before = NEVER if is_first_use else fate[i - 1]
                here = bit[i - 1] if before == part else 0
                is_open = fate[i] == part
                if not is_second and (not is_open or before == ALWAYS):
                    continue
                if is_second and here == 0 and not (is_open and before == ALWAYS):
                    continue
                keep_bit = 0
                pay_bit = 0
                if is_open:
                    keep_bit = bit[i]
                    if keep_bit == 0:
                        while keep_bit == 0 or used_bits & keep_bit:
                            keep_bit = 1 if keep_bit == 0 else keep_bit << 1
                        bit[i] = keep_bit
                        used_bits |= keep_bit
                    if is_tied[v]:
                        if paid[v] == 0 and undecided[v] > 1:
                            pay_bit = 1
                            while used_bits & pay_bit:
                                pay_bit <<= 1
                            paid[v] = pay_bit
                            used_bits |= pay_bit
                        pay_bit = paid[v]
                    if used_bits >> _MAX_BITS:
                        return False
                drop_loss = 0
                drop_area = 0
                store_loss = 0
                if is_open:
                    is_last_gap = i + 2 == first[v + 1]
                    drop_loss = streamed[i + 1] if is_last_gap or fate[i + 1] == NEVER else size[v]
                    if not is_last_gap and fate[i + 1] == ALWAYS:
                        drop_area = size[v]
                    if is_tied[v]:
                        store_loss = streamed[i] if is_first_use else size[v]
                    elif is_first_use and is_produced[v]:
                        drop_loss += streamed[i] - size[v]
                    if not is_second and not (is_first_use and is_produced[v]):
                        drop_loss += streamed[i] - size[v]
                work += states.shape[0]
                if work > most_work:
                    return False
                grown = np.empty((2 * states.shape[0], 5), np.int64)
                count = 0
                for s in range(states.shape[0]):
                    is_resident = before == ALWAYS or states[s, _MASK] & here != 0
                    if not is_open or is_resident != is_second:
                        grown[count] = states[s]
                        if is_second and here and is_resident:
                            grown[count, _LOAD] -= size[v]
                        count += 1
                        continue
                    load = states[s, _LOAD]
                    if not here or not is_second:
                        load += size[v]  # else it takes the room of the gap that ends
                    if is_second or load <= capacity[t]:
                        grown[count] = states[s]
                        grown[count, _MASK] |= keep_bit
                        grown[count, _LOAD] = load
                        grown[count, _AREA] += size[v] * (step[i + 1] - t + (not is_second))
                        if nodes == node_use.size:
                            node_parent = np.append(node_parent, np.empty(nodes, np.int64))
                            node_use = np.append(node_use, np.empty(nodes, np.int64))
                        node_parent[nodes] = states[s, _NODE]
                        node_use[nodes] = i
                        grown[count, _NODE] = nodes
                        nodes += 1
                        count += 1
                    loss = states[s, _LOSS] + drop_loss
                    if pay_bit == 0 or states[s, _MASK] & pay_bit == 0:
                        loss += store_loss
                    if loss <= most_loss:
                        grown[count] = states[s]
                        grown[count, _MASK] |= pay_bit
                        grown[count, _LOSS] = loss
                        grown[count, _AREA] += drop_area
                        if is_second and here:
                            grown[count, _LOAD] -= size[v]
                        count += 1
                states = grown[:count]
                if is_second and here:
                    states = _merged(states, here)
            if not is_second:
                continue
            # Bits of gaps that ended here, and of stores that no open gap decides any more, are free.
            cleared = 0
            for i in uses[at:end]:
                v = tensor[i]
                if i > first[v] and fate[i - 1] == part:
                    used_bits &= ~bit[i - 1]
                if fate[i] == part:
                    undecided[v] -= 1
                    if undecided[v] == 0 and paid[v]:
                        cleared |= paid[v]
                        used_bits &= ~paid[v]
            if cleared:
                states = _merged(states, cleared)
        if end < uses.size:
            least = capacity[t]
            for later in range(t + 1, step[uses[end]] + 1):
                least = min(least, capacity[later])
            count = 0
            for s in range(states.shape[0]):
                if states[s, _LOAD] <= least:
                    states[count] = states[s]
                    count += 1
            states = states[:count]
        at = end
    assert states.shape[0] == 1  # all bits are free again, and the known plan at least is left
    node = states[0, _NODE]
    while node >= 0:
        kept[node_use[node]] = True
        node = node_parent[node]
    return True


@njit(cache=True)
def solve_parts(
    size,
    first,
    step,
    streamed,
    is_produced,
    is_output,
    capacity,
    by_step,
    ranked,
    fate,
    parts,
    most_work,
):
    """Best gaps to keep, and which parts were too much work: there the gaps are those of a greedy plan."""
    kept = fate == ALWAYS
    is_left = np.zeros(parts, np.bool_)
    everything = fate != NEVER
    greedy = everything.copy()
    shed(size, first, step, streamed, is_produced, is_output, capacity, greedy)
    fill(size, first, step, capacity, fate >= 0, ranked, greedy)
    least = use_costs(size, first, streamed, is_produced, is_output, everything).sum()
    for part in range(parts):
        mixed = np.where(fate == part, greedy, everything)
        loss = use_costs(size, first, streamed, is_produced, is_output, mixed).sum() - least
        if not solve_part(
            size,
            first,
            step,
            streamed,
            is_produced,
            is_output,
            capacity,
            by_step,
            fate,
            part,
            loss,
            most_work,
            kept,
        ):
            is_left[part] = True
            kept |= greedy & (fate == part)
    return kept, is_left
