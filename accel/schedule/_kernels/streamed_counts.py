"""All states that plans of streamed operands within a cost pass through; tensors that are alike are counted.

Why the least cost that is found is the least
    A cost is an integer: bytes dropped, byte-steps and room at prices, all scaled. Let the room at step
    ``t`` have a price ``p[t] >= 0``. A tensor on its own then has a best plan from each use on, at a cost
    ``after`` that :func:`costs_to_go` finds, where staying at ``t`` costs ``p[t]`` a unit of size. The walk
    starts with ``base``: the best plans of all tensors, less ``p[t] * capacity[t]`` for all ``t``. Each
    decision adds by how much it is worse than the best one of its tensor; each step adds ``p[t]`` for the
    room that is left over. Nothing that is added is negative, and at the end the prices have cancelled: the
    sum is the cost of the plan. So a state whose cost exceeds ``most`` is on no plan within ``most``,
    whatever the prices. They only decide how many states that leaves.

Which states are one
    Two tensors of one *kind* are of one size, and all that is left of their uses is at the same steps with
    the same choices. Plans remain plans, at the same cost, if the two change places from here on. So a state
    is how many tensors of each kind have each status. It is kept as a row of statuses in which those of one
    kind descend; states are the same only if their rows are equal, a hash just tells where to look. Of
    two ways into one state the cheaper is kept, as both go on alike.

A tensor has the uses ``i`` with ``owner[i]``, one after another. In a step, first tensors come in (phase 0),
then those that were there stay or go (phase 1); one at its last use goes in any case. The uses of a step are
decided one after another, each makes a *layer* of states. In between, tensors of which one is decided and
one is not are of different kinds: their *tags* differ.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Status of a tensor in a state: store paid, decided in this phase or the one before, resident.
PAID, DECIDED, RESIDENT = 1, 2, 4
#: Added to four times the kind after a use: before any use, done in this phase, undecided in phase 1.
FIRST, DONE, TO_STAY = 1, 2, 3
#: How the walk ended.
COUNTED, TOO_MANY, NOTHING, STOPPED = 0, 1, 2, 3

_PATIENCE = 1 << 12  # states between two looks at the clock
_A, _B = -7046029254386353131, -4658895280553007687  # odd: multiplied with, all bits count


class Program(NamedTuple):
    """Tensors (n,), their uses (u,) and the steps (T,); sizes in units, costs and prices in parts of them.

    Attributes
    ----------
    last : (n,)
        Last use of each tensor.
    kind : (u,)
        Equal where the tensors of two uses are alike from there on.
    by_step : (u,)
        Uses by step.
    keep, drop : (u, 2)
        Least cost from a use on if the gap after it is kept, or dropped; by whether the store is paid.
    after : (u, 2, 2)
        The lesser of the two; the middle axis is whether the tensor is there when the step begins.
    """

    size: NDArray[np.int64]
    step: NDArray[np.int64]
    owner: NDArray[np.int64]
    last: NDArray[np.int64]
    is_open: NDArray[np.bool_]
    is_tied: NDArray[np.bool_]
    kind: NDArray[np.int64]
    by_step: NDArray[np.int64]
    price: NDArray[np.int64]
    capacity: NDArray[np.int64]
    keep: NDArray[np.int64]
    drop: NDArray[np.int64]
    after: NDArray[np.int64]


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def mix(a, b):
    """Hash of a pair; those of a set are added up."""
    x = (8 * a + b) * _A
    x ^= x >> 29
    x *= _B
    return x ^ (x >> 32)


@njit(cache=True)
def costs_to_go(size, step, owner, last, is_open, is_tied, price, scale, area):
    """`keep`, `drop` and `after` of a program in which a byte dropped costs `scale`, a byte-step `area`."""
    uses = step.size
    total = np.zeros(price.size + 1, np.int64)
    for t in range(price.size):
        total[t + 1] = total[t] + price[t] + area
    keep = np.zeros((uses, 2), np.int64)
    drop = np.zeros((uses, 2), np.int64)
    after = np.zeros((uses, 2, 2), np.int64)
    for i in range(uses - 1, -1, -1):
        v = owner[i]
        if i == last[v]:
            continue
        for paid in range(2):
            if is_open[i]:
                store = size[v] * scale if is_tied[v] and paid == 0 else 0
                stay = size[v] * (total[step[i + 1] + 1] - total[step[i] + 1])
                begin = size[v] * (price[step[i]] + area)
                keep[i, paid] = stay + after[i + 1, 1, paid]
                drop[i, paid] = size[v] * scale + store + after[i + 1, 0, 1 if is_tied[v] else paid]
                after[i, 1, paid] = min(keep[i, paid], drop[i, paid])
                after[i, 0, paid] = min(keep[i, paid] + begin, drop[i, paid])
            else:
                drop[i, paid] = after[i + 1, 0, paid]
                after[i, 0, paid] = drop[i, paid]
                after[i, 1, paid] = drop[i, paid]
    return keep, drop, after


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _sort_alike(rows, count, tag, active, mark):
    """Let the statuses of each kind descend in the first `count` rows, and hash them."""
    for x in range(active.size):
        v = active[x]
        for y in range(x + 1, active.size):
            w = active[y]
            if tag[w] == tag[v]:
                # The largest of those that follow comes here.
                for s in range(count):
                    if rows[s, w] > rows[s, v]:
                        held = rows[s, v]
                        rows[s, v] = rows[s, w]
                        rows[s, w] = held
    for s in range(count):
        h = 0
        for v in active:
            h += mix(tag[v], rows[s, v])
        mark[s] = h


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def added(program, i, phase, st, area):
    """What dropping and keeping the gap after use `i` add in a state, -1: no such choice; and the statuses.

    A tensor on which nothing is decided in this phase goes on as it is, at the first place.
    """
    v = program.owner[i]
    paid = st & PAID
    here = 1 if st & RESIDENT != 0 else 0
    if st & DECIDED != 0 or phase != here:
        return 0, -1, st, st
    least = program.after[i, here, paid]
    dropped = DECIDED | (PAID if program.is_tied[v] else paid)
    kept = DECIDED | RESIDENT | paid
    if i + 1 == program.last[v]:  # whether the store is paid no longer matters
        dropped, kept = DECIDED, DECIDED | RESIDENT
    if not program.is_open[i]:
        return program.drop[i, paid] - least, -1, dropped, st
    begin = 0 if here == 1 else program.size[v] * (program.price[program.step[i]] + area)
    return program.drop[i, paid] - least, program.keep[i, paid] + begin - least, dropped, kept


@njit(cache=True, nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _layer(program, i, phase, old_tag, tag, active, spare, idle, area, most, stop, states, grown, links):
    """Decide use `i` in every state, or (-1) pay for room that is left; number of new states, or less than 0.

    `states` and `grown` are rows, and as columns cost, load and hash, before and after; `links` the
    children, their charges and the status before, of each state.
    """
    rows, table = states
    new_rows, new_table = grown
    child, charge, before = links
    count = table.shape[0]
    slots = 64
    while slots < 4 * count:
        slots *= 2
    bucket = np.full(slots, -1, np.int32)
    v = 0
    group = active[:0]
    if i >= 0:
        v = program.owner[i]
        group = active[tag[active] == tag[v]]
    total = 0
    for s in range(count):
        if s % _PATIENCE == 0 and stop[0] != 0:
            return -STOPPED
        st = rows[s, v]
        before[s] = st
        child[s, 0] = -1
        child[s, 1] = -1
        drop, keep, dropped, kept = spare - idle * table[s, 1], -1, st, st
        if i >= 0:
            drop, keep, dropped, kept = added(program, i, phase, st, area)
        for option in range(2):
            more = drop if option == 0 else keep
            new = dropped if option == 0 else kept
            cost = table[s, 0] + more
            load = table[s, 1]
            if i >= 0 and st & RESIDENT != new & RESIDENT:
                load += program.size[v] if new & RESIDENT else -program.size[v]
            if (
                more < 0
                or cost > most
                or (phase == 0 and i >= 0 and load > program.capacity[program.step[i]])
            ):
                continue
            if total == new_table.shape[0]:
                return -TOO_MANY
            for w in active:
                new_rows[total, w] = rows[s, w]
            h = table[s, 2]
            if i >= 0:
                h += mix(tag[v], new) - mix(old_tag, st)
                new_rows[total, v] = new
                for x in range(1, group.size):  # all but one descend
                    y = x
                    while y > 0 and new_rows[total, group[y - 1]] < new_rows[total, group[y]]:
                        held = new_rows[total, group[y]]
                        new_rows[total, group[y]] = new_rows[total, group[y - 1]]
                        new_rows[total, group[y - 1]] = held
                        y -= 1
            slot = h & (slots - 1)
            c = -1
            while bucket[slot] >= 0:
                c = bucket[slot]
                if new_table[c, 2] == h:
                    is_same = True
                    for w in active:
                        if new_rows[c, w] != new_rows[total, w]:
                            is_same = False
                            break
                    if is_same:
                        break
                c = -1
                slot = (slot + 1) & (slots - 1)
            if c < 0:
                c = total
                total += 1
                bucket[slot] = c
                new_table[c, 0] = cost
                new_table[c, 1] = load
                new_table[c, 2] = h
            elif cost < new_table[c, 0]:
                new_table[c, 0] = cost
            child[s, option] = c
            charge[s, option] = more
    return total if total > 0 else -NOTHING


@njit(cache=True, nogil=True)
def count_states(program, base, area, most, limit, in_layer, stop):
    """Walk forwards over all states within the cost `most`; at most `limit`, `in_layer` of a layer.

    Parameters
    ----------
    area
        Cost of a unit that stays for a step, beside the price of room.
    stop : (1,)
        The walk ends soon after another thread makes this something else than 0.

    Returns
    -------
    outcome, layers, child, charge, before, marks, mark_at
        The layer ``k`` has the states ``layers[k, 0] .. layers[k + 1, 0] - 1``, decides on use
        ``layers[k, 1]`` (-1: only room is paid for) in phase ``layers[k, 2]`` of step ``layers[k, 3]``. A
        state has two children, in the next layer, where the gap is dropped and kept, -1: none, and what each
        adds to the cost. ``before`` is the status of the tensor that is decided on. The states after the
        ``k``-th step that has uses have the hashes ``marks`` from ``mark_at[k, 0]`` on; the layer
        ``mark_at[k, 1]`` follows.
    """
    by_step = program.by_step
    n = program.size.size
    uses = by_step.size
    rows = np.zeros((1, n), np.int8)
    table = np.zeros((1, 3), np.int64)  # cost, load, hash
    table[0, 0] = base
    child = np.empty((limit, 2), np.int32)  # takes no memory before it is written
    charge = np.empty((limit, 2), np.int64)
    before = np.empty(limit, np.int8)
    layers = np.zeros((4 * uses + 1, 4), np.int64)
    marks = np.empty(1024, np.int64)
    mark_at = np.zeros((uses + 1, 2), np.int64)
    depth = nodes = marked = steps = 0
    tag = np.zeros(n, np.int64)
    is_active = np.zeros(n, np.bool_)
    outcome = NOTHING if base > most else COUNTED
    at = 0
    previous = -1
    while at < uses and outcome == COUNTED:
        t = program.step[by_step[at]]
        end = at
        while end < uses and program.step[by_step[end]] == t:
            v = program.owner[by_step[end]]
            if not is_active[v]:
                is_active[v] = True
                tag[v] = 4 * program.kind[by_step[end]] + FIRST
            end += 1
        active = np.flatnonzero(is_active)
        for phase in range(2):
            if phase == 1:
                for k in range(at, end):
                    tag[program.owner[by_step[k]]] = 4 * program.kind[by_step[k]] + TO_STAY
            _sort_alike(rows, table.shape[0], tag, active, table[:, 2])
            spare = idle = 0
            for later in range(t if phase == 1 or previous < 0 else previous + 1, t + phase):
                spare += program.price[later] * program.capacity[later]
                idle += program.price[later]
            for k in range(at - 1, end):
                i = -1 if k < at else by_step[k]
                if (i < 0 and idle == 0) or (i >= 0 and i == program.last[program.owner[i]]):
                    continue
                count = table.shape[0]
                if nodes + count > limit:
                    outcome = TOO_MANY
                    break
                old_tag = tag[program.owner[i]]
                if i >= 0:
                    tag[program.owner[i]] = 4 * program.kind[i] + DONE
                room = min(2 * count, in_layer)
                grown = np.zeros((room, n), np.int8), np.empty((room, 3), np.int64)
                here = slice(nodes, nodes + count)
                links = child[here], charge[here], before[here]
                total = _layer(
                    program,
                    i,
                    phase,
                    old_tag,
                    tag,
                    active,
                    spare,
                    idle,
                    area,
                    most,
                    stop,
                    (rows, table),
                    grown,
                    links,
                )
                layers[depth, 0] = nodes
                layers[depth, 1] = i
                layers[depth, 2] = phase
                layers[depth, 3] = t
                depth += 1
                nodes += count
                layers[depth, 0] = nodes
                if total < 0:
                    outcome = -total
                    break
                rows = grown[0][:total].copy()
                table = grown[1][:total].copy()
            if outcome != COUNTED:
                break
        if outcome != COUNTED:
            break
        for k in range(at, end):
            i = by_step[k]
            v = program.owner[i]
            tag[v] = 4 * program.kind[i]
            if i == program.last[v]:
                is_active[v] = False
            for s in range(table.shape[0]):
                if is_active[v]:
                    rows[s, v] &= PAID | RESIDENT
                else:
                    if rows[s, v] & RESIDENT != 0:
                        table[s, 1] -= program.size[v]
                    rows[s, v] = 0
        count = table.shape[0]
        _sort_alike(rows, count, tag, np.flatnonzero(is_active), table[:, 2])
        if marked + count > marks.shape[0]:
            longer = np.empty(2 * (marked + count), np.int64)
            longer[:marked] = marks[:marked]
            marks = longer
        marks[marked : marked + count] = table[:, 2]
        mark_at[steps, 0] = marked
        mark_at[steps, 1] = depth
        marked += count
        steps += 1
        mark_at[steps, 0] = marked
        previous = t
        at = end
    return (
        outcome,
        layers[: depth + 1],
        child[:nodes],
        charge[:nodes],
        before[:nodes],
        marks[:marked],
        mark_at[: steps + 1],
    )
