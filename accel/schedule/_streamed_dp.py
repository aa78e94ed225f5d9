"""Kernels of `accel.schedule.streamed`: which gaps are open to choice, a greedy plan, the dynamic program.

A tensor ``v`` has the uses ``first[v] .. first[v + 1] - 1``, in order of their steps; a gap goes by the
use that it follows. Plain loops over int64 arrays, compiled by Numba, nothing is validated.

The dynamic program walks over the steps of one part of the problem. Its state is the set of gaps kept
across the present step, one bit each, and for some tensors one more bit: whether their store is paid.
Of the plans that lead to the same state only the cheapest goes on, by loss and then by byte-steps.
*Loss* is what a plan costs beyond the one that keeps every open gap. Dropping a gap is charged at once,
with the least that the use after it can then cost, so that a plan worse than the greedy one ends early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]
_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def _compiled(function: _Kernel) -> _Kernel:
    return cast("_Kernel", njit(cache=True)(function))


#: Fate of a gap that is not open: there is none or it never fits, and it always fits.
NEVER, ALWAYS = -2, -1

_MAX_BITS = 62  # of a state
_GOLDEN = -7046029254386353131  # 2**64 over the golden ratio, odd, as int64: Fibonacci hashing
_MASK, _LOSS, _AREA, _LOAD, _NODE = range(5)  # columns of a table of states


@_compiled
def _root(parent: Ints, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@_compiled
def _join(parent: Ints, i: int, j: int) -> None:
    # The smaller index leads, so that parts are numbered in order of their first gap.
    i, j = _root(parent, i), _root(parent, j)
    parent[max(i, j)] = min(i, j)


@_compiled
def sort_gaps(
    size: Ints, first: Ints, step: Ints, is_produced: Bools, is_output: Bools, capacity: Ints
) -> tuple[Ints, int]:
    """Fate of every gap, and the number of parts that share neither a full step nor a charge.

    An open gap has the number of its part. A gap that meets no step at which all candidates together
    exceed the capacity is kept always: it costs nothing, and the uses at its ends are cheaper for it.
    """
    fate = np.full(step.size, NEVER)
    load = np.zeros(capacity.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1] - 1):
            fits = True
            for t in range(step[i], step[i + 1] + 1):
                if capacity[t] < size[v]:
                    fits = False
                    break
            if fits:
                fate[i] = ALWAYS
                continues = i > first[v] and fate[i - 1] == ALWAYS
                for t in range(step[i] + continues, step[i + 1] + 1):
                    load[t] += size[v]
    parent = np.arange(step.size)
    is_open = np.zeros(step.size, np.bool_)
    at_step = np.full(capacity.size, -1)
    for v in range(size.size):
        for i in range(first[v], first[v + 1] - 1):
            if fate[i] == ALWAYS:
                for t in range(step[i], step[i + 1] + 1):
                    if load[t] > capacity[t]:
                        is_open[i] = True
                        if at_step[t] < 0:
                            at_step[t] = i
                        _join(parent, i, at_step[t])
    for v in range(size.size):
        last = first[v + 1] - 1
        # A store that only an open gap decides ties all open gaps of its tensor together.
        is_tied = is_produced[v] and not is_output[v]
        for i in range(first[v], last):
            is_tied = is_tied and fate[i] != NEVER
        before = -1
        for i in range(first[v], last):
            if is_open[i]:
                if before >= 0 and (is_tied or before == i - 1):
                    _join(parent, before, i)
                before = i
    parts = 0
    for i in range(step.size):
        if is_open[i]:
            root = _root(parent, i)
            if root == i:
                fate[i] = parts
                parts += 1
            else:
                fate[i] = fate[root]
    return fate, parts


@_compiled
def use_costs(
    size: Ints,
    first: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    kept: Bools,
) -> Ints:
    """Bytes that each use moves off chip or on chip, given the kept gaps."""
    cost = np.zeros(streamed.size, np.int64)
    for v in range(size.size):
        start, stop = first[v], first[v + 1]
        for i in range(start, stop):
            if i > start and kept[i - 1]:
                continue
            if i == start and is_produced[v]:
                is_stored = is_output[v]
                for j in range(start, stop - 1):
                    is_stored = is_stored or not kept[j]
                if not is_stored:
                    continue
            cost[i] = size[v] if kept[i] else streamed[i]
    return cost


@_compiled
def shed(
    size: Ints,
    first: Ints,
    step: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    capacity: Ints,
    kept: Bools,
) -> None:
    """Drop gaps from `kept` until it fits, each time the one that costs least per share of what is over."""
    over = -capacity
    tensor = np.zeros(step.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1]):
            tensor[i] = v
            if kept[i]:
                continues = i > first[v] and kept[i - 1]
                for t in range(step[i] + continues, step[i + 1] + 1):
                    over[t] += size[v]
    while True:
        most = 0.0
        dropped = -1
        for v in range(size.size):
            start, last = first[v], first[v + 1] - 1
            is_unstored = is_produced[v] and not is_output[v]
            for i in range(start, last):
                is_unstored = is_unstored and kept[i]
            for i in range(start, last):
                if not kept[i]:
                    continue
                continues = i > start and kept[i - 1]
                goes_on = i + 1 < last and kept[i + 1]
                relief = 0.0
                for t in range(step[i], step[i + 1] + 1):
                    if over[t] > 0:
                        # A step between two kept gaps is left only once both are dropped.
                        is_shared = (continues and t == step[i]) or (goes_on and t == step[i + 1])
                        share = 0.5 if is_shared else 1.0
                        relief += share * min(size[v], over[t]) / max(1, capacity[t])
                if relief == 0.0:
                    continue
                loss = size[v] if goes_on else streamed[i + 1]
                if is_unstored:
                    loss += streamed[i] if i == start else size[v]
                elif not continues:
                    loss += streamed[i] - size[v]
                if relief / loss > most:
                    most = relief / loss
                    dropped = i
        if dropped < 0:
            break
        v = tensor[dropped]
        continues = dropped > first[v] and kept[dropped - 1]
        goes_on = dropped + 2 < first[v + 1] and kept[dropped + 1]
        for t in range(step[dropped] + continues, step[dropped + 1] + 1 - goes_on):
            over[t] -= size[v]
        kept[dropped] = False


@_compiled
def fill(
    size: Ints, first: Ints, step: Ints, capacity: Ints, is_allowed: Bools, ranked: Ints, kept: Bools
) -> None:
    """Keep, in the order `ranked`, every allowed gap that fits beside those in `kept`, which it extends."""
    room = capacity.copy()
    tensor = np.zeros(step.size, np.int64)
    for v in range(size.size):
        for i in range(first[v], first[v + 1]):
            tensor[i] = v
            if kept[i]:
                continues = i > first[v] and kept[i - 1]
                for t in range(step[i] + continues, step[i + 1] + 1):
                    room[t] -= size[v]
    for i in ranked:
        if not is_allowed[i] or kept[i]:
            continue
        v = tensor[i]
        start, stop = step[i], step[i + 1] + 1
        if i > first[v] and kept[i - 1]:
            start += 1
        if i + 2 < first[v + 1] and kept[i + 1]:
            stop -= 1
        fits = True
        for t in range(start, stop):
            if room[t] < size[v]:
                fits = False
                break
        if fits:
            kept[i] = True
            for t in range(start, stop):
                room[t] -= size[v]


def rank(size: Ints, first: Ints, step: Ints, streamed: Ints, capacity: Ints) -> Ints:
    """Gaps in the order in which a plan is filled up: most bytes saved per share of the capacity."""
    is_gap = np.ones(step.size, np.bool_)
    is_gap[first[1:] - 1] = False
    gaps = np.flatnonzero(is_gap)
    shares = np.append(0.0, np.cumsum(1.0 / np.maximum(1, capacity)))
    share = shares[step[gaps + 1] + 1] - shares[step[gaps]]
    saved = streamed[gaps + 1] / np.repeat(size, np.diff(first) - 1)
    return gaps[np.argsort(-saved / share, kind="stable")]


@_compiled
def _merged(states: Ints, cleared: int) -> Ints:
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


@_compiled
def _program(first: Ints, step: Ints, fate: Ints, part: int, by_step: Ints) -> tuple[Ints, Ints]:
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


@_compiled
def solve_part(
    size: Ints,
    first: Ints,
    step: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    capacity: Ints,
    by_step: Ints,
    fate: Ints,
    part: int,
    most_loss: int,
    most_work: int,
    kept: Bools,
) -> bool:
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


@_compiled
def solve_parts(
    size: Ints,
    first: Ints,
    step: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    capacity: Ints,
    by_step: Ints,
    ranked: Ints,
    fate: Ints,
    parts: int,
    most_work: int,
) -> tuple[Bools, Bools]:
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


def solve(
    size: Ints,
    first: Ints,
    step: Ints,
    streamed: Ints,
    is_produced: Bools,
    is_output: Bools,
    capacity: Ints,
    most_work: int,
) -> tuple[Bools, Ints, Bools]:
    """Best gaps to keep, (u,), the fate of every gap, (u,), and which parts were too much work.

    In such a part the gaps are those of a greedy plan.
    """
    fate, parts = sort_gaps(size, first, step, is_produced, is_output, capacity)
    if parts == 0:
        return fate == ALWAYS, fate, np.zeros(0, np.bool_)
    ranked = rank(size, first, step, streamed, capacity)
    kept, is_left = solve_parts(
        size,
        first,
        step,
        streamed,
        is_produced,
        is_output,
        capacity,
        np.argsort(step, kind="stable"),
        ranked,
        fate,
        parts,
        most_work,
    )
    return kept, fate, is_left
