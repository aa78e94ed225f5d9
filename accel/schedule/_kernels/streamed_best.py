"""Best plans of streamed operands out of all states within a cost, read backwards and then forwards."""

from __future__ import annotations

import numpy as np
from numba import njit

from accel.schedule._kernels.streamed_counts import DONE, FIRST, PAID, RESIDENT, TO_STAY, added

_NEVER = 1 << 62  # above every cost


@njit(cache=True, nogil=True)
def costs_from(layers, child, charge, mark_at, marked):
    """What the best plan from each state adds: of all states of all layers, and of those after each step."""
    depth = layers.shape[0] - 1
    least = np.full(child.shape[0], _NEVER)
    rest = np.zeros(marked, np.int64)  # after the last step nothing is added
    k = mark_at.shape[0] - 2
    while k >= 0 and mark_at[k, 1] == depth:
        k -= 1
    for layer in range(depth - 1, -1, -1):
        start, stop = layers[layer, 0], layers[layer + 1, 0]
        for s in range(start, stop):
            for option in range(2):
                c = child[s, option]
                if c >= 0:
                    then = 0 if layer == depth - 1 else least[stop + c]
                    if then < _NEVER:
                        least[s] = min(least[s], charge[s, option] + then)
        while k >= 0 and mark_at[k, 1] == layer:
            for s in range(start, stop):
                rest[mark_at[k, 0] + s - start] = least[s]
            k -= 1
    return least, rest


@njit(cache=True, nogil=True)
def follow(program, area, layers, child, charge, before, least, kept):
    """Set `kept`, (u,), to the gaps of a best plan.

    A state does not say which tensor of a kind has which status: whatever it decides on one is done to any
    that is of its kind and has its status.
    """
    by_step = program.by_step
    n = program.last.size
    depth = layers.shape[0] - 1
    status = np.zeros(n, np.int64)
    tag = np.zeros(n, np.int64)  # of the tensors that the states name
    mine = np.zeros(n, np.int64)  # of those that stand for them here
    use = np.full(n, -1)
    layer = s = at = 0
    while at < by_step.size:
        t = program.step[by_step[at]]
        end = at
        while end < by_step.size and program.step[by_step[end]] == t:
            i = by_step[end]
            v = program.owner[i]
            if use[v] < 0:
                tag[v] = mine[v] = 4 * program.kind[i] + FIRST
            use[v] = i
            end += 1
        for phase in range(2):
            if phase == 1:
                for k in range(at, end):
                    i = by_step[k]
                    tag[program.owner[i]] = mine[program.owner[i]] = 4 * program.kind[i] + TO_STAY
            while layer < depth and layers[layer, 2] == phase and layers[layer, 3] == t:
                i = layers[layer, 1]
                node = layers[layer, 0] + s
                option = 0
                c = child[node, 1]
                if c >= 0:
                    then = 0 if layer == depth - 1 else least[layers[layer + 1, 0] + c]
                    option = 1 if charge[node, 1] + then == least[node] else 0
                if i >= 0:
                    st = before[node]
                    v = program.owner[i]
                    u = -1
                    for k in range(at, end):
                        w = program.owner[by_step[k]]
                        if mine[w] == tag[v] and status[w] == st:
                            u = w
                            break
                    tag[v] = mine[u] = 4 * program.kind[i] + DONE
                    results = added(program, i, phase, st, area)
                    status[u] = results[3] if option == 1 else results[2]
                    kept[use[u]] |= option == 1
                s = child[node, option]
                layer += 1
        for k in range(at, end):
            i = by_step[k]
            v = program.owner[i]
            tag[v] = mine[v] = 4 * program.kind[i]
            status[v] &= PAID | RESIDENT
            if i == program.last[v]:
                status[v] = 0
                tag[v] = mine[v] = -1
        at = end
